"""Filters of subscriptions: a part of CEL, the Common Expression Language. Pure.

`type == "reading" && attributes.region in ["eu", "us"] && !(attributes.test == "yes")`. What is accepted here
means the same in CEL. There are no loops, functions of one's own or regular expressions, so that the time of
a match is bounded by the length of the filter and of the event's attributes.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from galley.errors import FilterInvalid

FILTER_LENGTH: Final = 2_000
"""Characters a filter may have."""

_DEPTH: Final = 32
"""Brackets and negations that may be nested."""

NAMES: Final = ("id", "source", "type", "subject", "key", "topic")
"""Of an event, beside `attributes`: each is a text, empty if the event has none."""

Value = str | int | float | bool
Event = Mapping[str, Any]
_Evaluate = Callable[[Event], Any]

_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<text>"(?:[^"\\\n]|\\["\\nt])*"|'(?:[^'\\\n]|\\['\\nt])*')
    | (?P<number>-?\d+(?:\.\d+)?)(?![\w.])
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<sign>&&|\|\||==|!=|<=|>=|[<>!()\[\],.])
    )""",
    re.VERBOSE,
)
_ESCAPED: Final = re.compile(r"\\(.)")
_ESCAPES: Final = {"n": "\n", "t": "\t"}
_METHODS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": str.__contains__,
}
_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


class FilterFailed(Exception):
    """A filter cannot be applied to an event, since an attribute is missing or of another type."""


class Filter:
    """A filter that was parsed; made by `parse`."""

    def __init__(self, text: str, evaluate: _Evaluate) -> None:
        self.text = text
        self._evaluate = evaluate

    def matches(self, event: Event) -> bool:
        """Return whether an event passes.

        Args:
            event: a value for each of `NAMES`, and `attributes`, a mapping.

        Raises:
            FilterFailed: if it cannot be told.
        """
        found = self._evaluate(event)
        if not isinstance(found, bool):
            raise FilterFailed(f"it gives {_shown(found)}, it must give true or false")
        return found


@lru_cache(maxsize=4096)
def parse(text: str) -> Filter:
    """Return the filter in a text; an empty one passes all events.

    Raises:
        FilterInvalid: if it is no filter, or is too long.
    """
    if len(text) > FILTER_LENGTH:
        raise FilterInvalid(text, f"has {len(text)} characters, the limit is {FILTER_LENGTH}")
    if not text.strip():
        return Filter(text, lambda _: True)
    return Filter(text, _Parser(text).all())


class _Parser:
    """One recursive descent through one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str, int]] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                start = at + len(text[at:]) - len(text[at:].lstrip())
                raise self._wrong(f"cannot read {text[start : start + 10]!r}", start)
            kind = str(found.lastgroup)
            self._tokens.append((kind, found[kind], found.start(kind)))
            at = found.end()
        self._at = 0
        self._depth = 0

    def all(self) -> _Evaluate:
        """Return what the whole text means."""
        found = self._either()
        if self._at < len(self._tokens):
            _, word, place = self._tokens[self._at]
            raise self._wrong(f"{word!r} is not expected", place)
        return found

    def _wrong(self, problem: str, place: int) -> FilterInvalid:
        return FilterInvalid(self._text, f"{problem}, at character {place + 1}")

    def _peek(self) -> str:
        if self._at < len(self._tokens) and self._tokens[self._at][0] != "text":
            return self._tokens[self._at][1]
        return ""

    def _next(self, expected: str = "") -> tuple[str, str, int]:
        if self._at >= len(self._tokens):
            raise self._wrong(f"it ends, {expected or 'a value'} is missing", len(self._text))
        token = self._tokens[self._at]
        if expected and (token[1] != expected or token[0] == "text"):
            raise self._wrong(f"{token[1]!r} stands where {expected!r} is expected", token[2])
        self._at += 1
        return token

    def _either(self) -> _Evaluate:
        parts = [self._both()]
        while self._peek() == "||":
            self._next()
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else _joined(parts, decisive=True)

    def _both(self) -> _Evaluate:
        parts = [self._relation()]
        while self._peek() == "&&":
            self._next()
            parts.append(self._relation())
        return parts[0] if len(parts) == 1 else _joined(parts, decisive=False)

    def _relation(self) -> _Evaluate:
        left = self._unary()
        sign = self._peek()
        if sign in ("==", "!="):
            self._next()
            right = self._unary()
            wanted = sign == "=="
            return lambda event: _equal(left(event), right(event)) is wanted
        if sign in _COMPARISONS:
            self._next()
            return _compared(left, self._unary(), sign)
        if sign == "in":
            self._next()
            values = self._list()
            return lambda event: any(_equal(left(event), each) for each in values)
        return left

    def _unary(self) -> _Evaluate:
        if self._peek() != "!":
            return self._primary()
        self._next()
        inner = self._nested(self._unary)

        def negated(event: Event) -> bool:
            return not _truth(inner(event))

        return negated

    def _nested(self, rule: Callable[[], _Evaluate]) -> _Evaluate:
        self._depth += 1
        if self._depth > _DEPTH:
            raise self._wrong(f"it is nested deeper than {_DEPTH}", self._tokens[self._at - 1][2])
        found = rule()
        self._depth -= 1
        return found

    def _primary(self) -> _Evaluate:
        kind, word, place = self._next()
        if kind in ("text", "number") or word in ("true", "false"):
            value = _literal(kind, word)
            return lambda _: value
        if word == "(":
            inner = self._nested(self._either)
            self._next(")")
            return inner
        if kind == "name" and word == "has":
            return self._has()
        if kind != "name":
            raise self._wrong(f"{word!r} is not expected", place)
        return self._method(self._variable(word, place))

    def _has(self) -> _Evaluate:
        self._next("(")
        self._next("attributes")
        self._next(".")
        _, name, _ = self._next()
        self._next(")")
        return lambda event: name in event["attributes"]

    def _variable(self, word: str, place: int) -> _Evaluate:
        if word == "attributes":
            name = self._attribute()

            def attribute(event: Event) -> Any:
                try:
                    return event["attributes"][name]
                except KeyError:
                    raise FilterFailed(f"the event has no attribute {name!r}") from None

            return attribute
        if word not in NAMES:
            known = ", ".join((*NAMES, "attributes.NAME"))
            raise self._wrong(f"there is no {word!r} in an event (known: {known})", place)
        return lambda event: event[word]

    def _attribute(self) -> str:
        if self._peek() == "[":
            self._next()
            kind, word, place = self._next()
            if kind != "text":
                raise self._wrong('the name of an attribute is expected, as attributes["region"]', place)
            self._next("]")
            return str(_literal(kind, word))
        self._next(".")
        kind, word, place = self._next()
        if kind != "name":
            raise self._wrong("the name of an attribute is expected, as attributes.region", place)
        return word

    def _method(self, value: _Evaluate) -> _Evaluate:
        if self._peek() != ".":
            return value
        self._next()
        _, word, place = self._next()
        method = _METHODS.get(word)
        if method is None:
            raise self._wrong(f"there is no function {word!r} (known: {', '.join(_METHODS)})", place)
        self._next("(")
        kind, text, place = self._next()
        if kind != "text":
            raise self._wrong(f"{word} takes a text in quotes", place)
        argument = str(_literal(kind, text))
        self._next(")")

        def applied(event: Event) -> bool:
            found = value(event)
            if not isinstance(found, str):
                raise FilterFailed(f"{word} needs a text, it is {_shown(found)}")
            return method(found, argument)

        return applied

    def _list(self) -> list[Value]:
        self._next("[")
        values: list[Value] = []
        while self._peek() != "]":
            kind, word, place = self._next()
            if kind not in ("text", "number") and word not in ("true", "false"):
                raise self._wrong("a list has texts, numbers, true and false", place)
            values.append(_literal(kind, word))
            if self._peek() != "]":
                self._next(",")
        self._next("]")
        return values


def _literal(kind: str, word: str) -> Value:
    if kind == "text":
        return _ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), word[1:-1])
    if kind == "number":
        return float(word) if "." in word else int(word)
    return word == "true"


def _joined(parts: list[_Evaluate], *, decisive: bool) -> _Evaluate:
    """Return `||` (decisive: true) or `&&`: as in CEL, a decisive part counts though another one fails."""

    def joined(event: Event) -> bool:
        failed: FilterFailed | None = None
        for part in parts:
            try:
                if _truth(part(event)) is decisive:
                    return decisive
            except FilterFailed as problem:
                failed = problem
        if failed is not None:
            raise failed
        return not decisive

    return joined


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise FilterFailed(f"true or false is needed, it is {_shown(value)}")
    return value


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, bool) is not isinstance(other, bool):
        return False
    return bool(one == other)


def _compared(left: _Evaluate, right: _Evaluate, sign: str) -> _Evaluate:
    compare = _COMPARISONS[sign]

    def compared(event: Event) -> bool:
        one, other = left(event), right(event)
        if (
            isinstance(one, str) is not isinstance(other, str)
            or isinstance(one, bool)
            or isinstance(other, bool)
        ):
            raise FilterFailed(f"{_shown(one)} {sign} {_shown(other)} cannot be compared")
        return compare(one, other)

    return compared


def _shown(value: Any) -> str:
    return repr(value)[:80]
