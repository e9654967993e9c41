"""YAML documents as JSON values that remember their lines.

Unquoted scalars are resolved as kubectl resolves them (go-yaml v2, which is YAML 1.1 with exceptions):
`y` and `off` are booleans, `0778` is 778, a date is its text. Refused, although kubectl reads them: a
key that occurs twice, a key that is not text, a merge (`<<`) of a key that stands before it, and tags other
than the JSON types.
"""

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, ClassVar, Final

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
_PLAIN: Final = "galley:plain"
"""Tag given to scalars that are neither quoted nor tagged: their text decides what they are."""

_MERGE: Final = "<<"

_UNPRINTABLE: Final = yaml.reader.Reader.NON_PRINTABLE

_UNTAGGED: Final = "write it without the tag (the word that begins with !)"

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where libyaml was built in


class _Loader(_Base):  # type: ignore[misc] # either of the two
    """The safe loader, asked only for nodes; it marks plain scalars instead of resolving them."""

    yaml_implicit_resolvers: ClassVar[dict[None, list[tuple[str, re.Pattern[str]]]]] = {
        None: [(_PLAIN, re.compile(""))]
    }


class NotYaml(Exception):
    """The text cannot be parsed, so further problems in it are not known."""

    def __init__(self, line: int, problem: str, hint: str, field: str = "") -> None:
        super().__init__(problem)
        self.problem = Problem(line, field, problem, hint)


class Document:
    """One YAML document: its value and its nodes.

    Attributes:
        value: the document as JSON.
        problems: what in it is not JSON; the value is null there.
    """

    def __init__(self, root: Node, value: JsonValue, problems: list[Problem]) -> None:
        self.value = value
        self.problems = problems
        self._root = root
        self._children: dict[int, dict[str | int, tuple[int, Node]]] = {}

    def line_of(self, place: Place) -> int:
        """Return the line of a field, or of the nearest mapping around it that exists."""
        node, line = self._root, _line(self._root)
        for step in place:
            found = self._children_of(node).get(step)
            if found is None:
                break
            line, node = found
        return line

    def _children_of(self, node: Node) -> dict[str | int, tuple[int, Node]]:
        """Return each child with its line; cached, since a long mapping may be searched often."""
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
        NotYaml: if it is not YAML, is nested too deeply, or is too large with its aliases.
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
            if isinstance(root, ScalarNode) and root.tag == _PLAIN and plain_value(root.value) is None:
                continue
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
        "use fewer levels, or store such data in a file and pass its path",
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
    """How much of a file may still be read, aliases written out."""

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
    """A scalar that JSON cannot represent."""

    def __init__(self, problem: str, hint: str = "put it in quotes if text is meant") -> None:
        super().__init__(problem)
        self.hint = hint


class _Reading:
    """Converts the nodes of one document."""

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
            if _is_merge(key_node):
                self.merge(value_node, (*place, _MERGE), read, lines)
                continue
            key = self.key(key_node, place)
            if key is None:
                continue
            if key in lines:
                problem = f"is set twice, first at line {lines[key]}"
                self.refuse(key_node, (*place, key), problem, "remove one of the two")
            read[key] = self.value(value_node, (*place, key))
            lines.setdefault(key, _line(key_node))
        return read

    def merge(self, node: Node, place: Place, read: dict[str, JsonValue], lines: dict[str, int]) -> None:
        """Add the fields of a mapping, or of several of which the first counts most."""
        several = node.value if isinstance(node, SequenceNode) else [node]
        for each in reversed(several):
            merged = self.value(each, place)
            if not isinstance(merged, dict):
                self.refuse(
                    each,
                    place,
                    "merges what is not a mapping",
                    "merge mappings: <<: *NAME, where &NAME is one",
                )
                continue
            if twice := [key for key in merged if key in lines]:
                # YAML lets the field win, kubectl the merge.
                problem = f"merges {shown(twice[0])}, which is set before it, at line {lines[twice[0]]}"
                self.refuse(node, place, problem, "put << before the fields that differ from it")
            read |= merged

    def key(self, node: Node, place: Place) -> str | None:
        try:
            key = _scalar(node) if isinstance(node, ScalarNode) else None
        except _NotJson:
            key = None
        if isinstance(key, str):
            return key
        if not isinstance(node, ScalarNode):
            self.refuse(node, place, "has a key that is a list or mapping, not text", "use a text as the key")
        else:
            meaning = f", which without quotes means {shown(key)}" if node.tag == _PLAIN else ""
            hint = f"put the key in quotes: {json.dumps(node.value, ensure_ascii=False)}"
            self.refuse(node, place, f"has the key {shown(node.value)}{meaning}, not text", hint)
        return None

    def refuse(self, node: Node, place: Place, problem: str, hint: str) -> None:
        self.problems.append(Problem(_line(node), field_path(place), problem, hint))


def _is_merge(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag in (_PLAIN, f"{_TAG}merge") and node.value == _MERGE


def _scalar(node: ScalarNode) -> JsonValue:
    text, tag = str(node.value), node.tag.removeprefix(_TAG)
    if tag == "str":
        return text
    value = plain_value(text)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        _PLAIN: True,
        "null": value is None,
        "bool": isinstance(value, bool),
        "int": number and _whole(text.replace("_", "")) is not None,
        "float": number,
    }
    if not fits.get(tag, False):
        raise _NotJson(f"{shown(text)} cannot be read as {shown(tag)}", _UNTAGGED)
    if isinstance(value, float) and not math.isfinite(value):
        raise _NotJson(f"{text} is a number that JSON cannot represent")
    return value


_WORDS: Final[dict[str, bool | float | None]] = {
    written: value
    for word, value in (
        ("y", True), ("yes", True), ("true", True), ("on", True),
        ("n", False), ("no", False), ("false", False), ("off", False),
        ("~", None), ("", None), ("null", None),
    )
    for written in (word, word.capitalize(), word.upper())
} | {
    sign + written: float(f"{sign}{word}")
    for word, forms in (("inf", (".inf", ".Inf", ".INF")), ("nan", (".nan", ".NaN", ".NAN")))
    for sign in (("", "+", "-") if word == "inf" else ("",))
    for written in forms
}  # fmt: skip
"""What go-yaml v2 makes of these words; no other spelling of them, such as `yEs`, is one."""

_WHOLE: Final = re.compile(
    r"(?P<sign>[-+]?)(0[xX](?P<hex>[0-9a-fA-F]+)|0[oO]?(?P<octal>[0-7]+)|0[bB](?P<binary>[01]+)"
    r"|(?P<decimal>0|[1-9][0-9]*))"
)
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_FRACTION: Final = re.compile(r"\.[0-9]+(_[0-9]+)*([eE][-+]?[0-9]+(_[0-9]+)*)?")
_WITH_EXPONENT: Final = 1e21
_BASES: Final = {"hex": 16, "octal": 8, "binary": 2, "decimal": 10}
_DIGITS_64_BITS: Final = 64
"""Longest significant part of a number of 64 bits, in the base that needs the most digits."""


def plain_value(text: str) -> bool | float | str | None:
    """Return what kubectl makes of a scalar without quotes and tag; infinities and NaN included.

    Numbers are those of its JSON: whole ones below 1e21 are `int`, however written (`1e3` is 1000), and
    beyond 64 bits they lose digits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    digits = text.replace("_", "")
    number: float | None = _whole(digits)
    if number is None and (_FRACTION.fullmatch(text) if text[0] == "." else _FLOAT.fullmatch(digits)):
        number = float(digits)
    if number is None or math.isinf(number):
        return text
    if isinstance(number, int) and -(2**63) <= number < 2**63:
        return number
    number = float(number)
    # Go writes a float with its shortest digits, and without an exponent below 1e21: 1e3 is written as 1000.
    return int(Decimal(repr(number))) if number.is_integer() and abs(number) < _WITH_EXPONENT else number


def _whole(digits: str) -> int | None:
    """Return a whole number as Go's `ParseInt(digits, 0, 64)` and `ParseUint` read it."""
    if (found := _WHOLE.fullmatch(digits)) is None:
        # go-yaml hands what follows `0b` to ParseInt, which takes a sign there, too.
        found = re.fullmatch(r"0b(?P<sign>[-+])(?P<binary>[01]+)", digits)
    if found is None:
        return None
    base, written = next((name, part) for name, part in found.groupdict().items() if part and name in _BASES)
    if len(significant := written.lstrip("0")) > _DIGITS_64_BITS:
        return None
    value = int(f"{found['sign']}{significant or '0'}", _BASES[base])
    highest = 2**63 if found["sign"] else 2**64
    return value if -(2**63) <= value < highest else None


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
