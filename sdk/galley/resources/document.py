"""YAML documents as JSON values that remember their lines.

A manifest says the same here as to `kubectl`: an unquoted date is its text, `1e3` a number. What
JSON cannot say, and what would be dropped in silence (a key that stands twice), is a problem.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml
from pydantic import JsonValue
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from galley.resources.problem import Place, Problem, field_path, shown

DEPTH_LIMIT: Final = 100
"""Levels of nesting; beyond it, libyaml's composer overruns the C stack."""

EXPANDED_LIMIT: Final = 8 * 1024 * 1024
"""Characters and values a file may have with its aliases written out. Twice a file's own limit, which
no file without aliases reaches, so that a few lines of aliases cannot fill the memory."""

_TAG: Final = "tag:yaml.org,2002:"
_UNPRINTABLE: Final = yaml.reader.Reader.NON_PRINTABLE
_TRUTH: Final = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False}

_UNTAGGED: Final = "write it without the tag (the word that begins with !)"

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where libyaml was built in


class _Loader(_Base):  # type: ignore[misc] # either of the two
    """The safe loader, which is only asked for nodes, with JSON's grammar of numbers."""


_Loader.add_implicit_resolver(f"{_TAG}float", re.compile(r"-?[0-9]+[eE][-+]?[0-9]+$"), list("-0123456789"))


class NotYaml(Exception):
    """The text as a whole cannot be read; further problems in it cannot be known."""

    def __init__(self, line: int, problem: str, hint: str, field: str = "") -> None:
        super().__init__(problem)
        self.problem = Problem(line, field, problem, hint)


class Document:
    """One YAML document: its value, and the nodes it came from.

    Attributes:
        value: the document as JSON has it.
        problems: what in it is not JSON; the value has null there.
    """

    def __init__(self, root: Node, value: JsonValue, problems: list[Problem]) -> None:
        self.value = value
        self.problems = problems
        self._root = root
        self._children: dict[int, dict[str | int, tuple[int, Node]]] = {}

    def line_of(self, place: Place) -> int:
        """Return the line of a field, or of the nearest mapping around it that is there."""
        node, line = self._root, _line(self._root)
        for step in place:
            found = self._children_of(node).get(step)
            if found is None:
                break
            line, node = found
        return line

    def _children_of(self, node: Node) -> dict[str | int, tuple[int, Node]]:
        """Return each child with the line it begins at; kept, since a long mapping may be asked often."""
        known = self._children.get(id(node))
        if known is None:
            known = {}
            if isinstance(node, MappingNode):
                known = {key.value: (_line(key), value) for key, value in node.value
                         if isinstance(key, ScalarNode)}  # fmt: skip
            elif isinstance(node, SequenceNode):
                known = {index: (_line(entry), entry) for index, entry in enumerate(node.value)}
            self._children[id(node)] = known
        return known


def read_documents(text: str) -> Iterator[Document]:
    """Yield the documents of a text, empty ones left out.

    Raises:
        NotYaml: if it is not YAML, is nested too deeply, or grows too large by aliases.
    """
    if unprintable := _UNPRINTABLE.search(text):
        raise NotYaml(
            text.count("\n", 0, unprintable.start()) + 1,
            f"contains the character U+{ord(unprintable[0]):04X}, which YAML does not allow",
            'remove it, or write it as an escape such as "\\u0000" in double quotes',
        )
    try:
        _check_depth(text)
        budget = _Budget()
        for root in yaml.compose_all(text, Loader=_Loader):
            if not (isinstance(root, ScalarNode) and root.tag == f"{_TAG}null"):
                reading = _Reading(budget)
                value = reading.value(root, ())
                yield Document(root, value, reading.problems)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(text, error) from None


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_LIMIT:
                raise _too_deep(event.start_mark.line + 1 if event.start_mark else 0)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _too_deep(line: int, place: Place = ()) -> NotYaml:
    return NotYaml(
        line, f"is nested more than {DEPTH_LIMIT} levels deep, or contains itself by an alias",
        "make it flatter, or store such data in a file and pass its place",
        field_path(place[:3]),
    )  # fmt: skip


def _syntax_error(text: str, error: yaml.MarkedYAMLError) -> NotYaml:
    lines = text.splitlines() or [""]
    mark = error.problem_mark or error.context_mark
    number = min(mark.line + 1, len(lines)) if mark else 1
    line = lines[number - 1]
    begun = error.context_mark.line + 1 if error.context_mark else number
    if "\t" in line[: len(line) - len(line.lstrip())]:
        hint = "indent with spaces: YAML does not allow tabs there"
    elif "mapping values" in str(error.problem):
        hint = "put text that contains ': ' in quotes, or indent the line like its neighbours"
    elif "alias" in str(error.problem):
        hint = "define the anchor with & before it is used, or put text that begins with * in quotes"
    else:
        since = f"; what is not finished begins at line {begun}" if begun != number else ""
        hint = f"check quotes, brackets and indentation of this line and the one before it{since}"
    context = f" {error.context}" if error.context else ""
    return NotYaml(number, f"is not YAML: {error.problem}{context}", hint)


class _Budget:
    """What may still be read of a file, aliases written out."""

    def __init__(self) -> None:
        self.left = EXPANDED_LIMIT

    def spend(self, node: Node) -> None:
        self.left -= 1 + (len(node.value) if isinstance(node, ScalarNode) else 0)
        if self.left < 0:
            raise NotYaml(
                _line(node), f"is larger than {EXPANDED_LIMIT} characters with its aliases written out",
                "write out what differs, and use fewer aliases of aliases",
            )  # fmt: skip


class _NotJson(Exception):
    """A scalar that JSON cannot say."""

    def __init__(self, problem: str, hint: str = "put it in quotes if text is meant") -> None:
        super().__init__(problem)
        self.hint = hint


class _Reading:
    """The way through one document's nodes."""

    def __init__(self, budget: _Budget) -> None:
        self.budget = budget
        self.problems: list[Problem] = []

    def value(self, node: Node, place: Place) -> JsonValue:
        if len(place) > DEPTH_LIMIT:  # aliases reach deeper than the text is nested
            raise _too_deep(_line(node), place)
        self.budget.spend(node)
        if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
            return self.mapping(node, place)
        if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.value(entry, (*place, index)) for index, entry in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            try:
                return _scalar(node)
            except _NotJson as error:
                self.refuse(node, place, str(error), error.hint)
                return None
        self.refuse(node, place, f"the tag {shown(node.tag)} is not known", _UNTAGGED)
        return None

    def mapping(self, node: MappingNode, place: Place) -> dict[str, JsonValue]:
        read: dict[str, JsonValue] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            self.budget.spend(key_node)
            key = self.key(key_node, place)
            if key is None:
                continue
            if key in read:
                problem = f"stands here twice, first at line {lines[key]}"
                self.refuse(key_node, (*place, key), problem, "remove one of the two")
            read[key] = self.value(value_node, (*place, key))
            lines.setdefault(key, _line(key_node))
        return read

    def key(self, node: Node, place: Place) -> str | None:
        if node.tag == f"{_TAG}merge":
            self.refuse(node, place, "merges with <<, which is not read here", "write the fields out")
            return None
        try:
            key = _scalar(node) if isinstance(node, ScalarNode) else None
        except _NotJson:
            key = None
        if isinstance(key, str):
            return key
        written = shown(node.value) if isinstance(node, ScalarNode) else "a list or mapping"
        self.refuse(node, place, f"has the key {written}, which is not text", "put the key in quotes")
        return None

    def refuse(self, node: Node, place: Place, problem: str, hint: str) -> None:
        self.problems.append(Problem(_line(node), field_path(place), problem, hint))


def _scalar(node: ScalarNode) -> JsonValue:
    text = node.value
    match node.tag.removeprefix(_TAG):
        case "str" | "timestamp" | "value" | "merge":
            return str(text)
        case "null":
            return None
        case "bool" if text.lower() in _TRUTH:
            return _TRUTH[text.lower()]
        case "int" | "float" if ":" in text:  # YAML 1.1 reads 1:30 as ninety, which nobody expects
            return str(text)
        case "int" | "float" as kind:
            return _number(text, kind)
        case tag:
            raise _NotJson(f"{shown(text)} cannot be read as {shown(tag)}", _UNTAGGED)


def _number(text: str, kind: str) -> int | float:
    digits = text.replace("_", "").lower()
    unsigned = digits.lstrip("+-")
    try:
        if kind == "int":
            octal = unsigned.startswith("0") and unsigned.isdigit()
            return int(digits, 8 if octal else 0)
        number = float(digits.replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        raise _NotJson(f"{shown(text)} is no number that can be read") from None
    if not math.isfinite(number):
        raise _NotJson(f"{text} is a number that JSON cannot carry")
    return number


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
