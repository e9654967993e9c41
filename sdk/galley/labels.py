"""Labels of tasks: short words to find them by, with the syntax of Kubernetes; and selectors for them."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from galley.bounds import KEY_LENGTH, KEY_PATTERN, LABEL_VALUE_LENGTH, LABEL_VALUE_PATTERN, LABELS
from galley.errors import LabelInvalid, SelectorInvalid

Labels: TypeAlias = Mapping[str, str]

_KEY: Final = re.compile(KEY_PATTERN.strip("^$"))
_VALUE: Final = re.compile(LABEL_VALUE_PATTERN.strip("^$"))
_KEY_HINT: Final = (
    "use up to 63 letters, digits, '-', '_' and '.', after an optional domain and a slash: example.com/team"
)
_VALUE_HINT: Final = "use up to 63 letters, digits, '-', '_' and '.'; longer text belongs into the input"


def check_labels(labels: Any) -> dict[str, str]:
    """Return labels, once they are known to be what a task may carry.

    Raises:
        LabelInvalid: if there are too many, or one has not the syntax of Kubernetes.
    """
    if not isinstance(labels, Mapping):
        raise LabelInvalid(
            repr(labels)[:80], "labels are a mapping of text to text", "use {'team': 'billing'}"
        )
    if len(labels) > LABELS:
        raise LabelInvalid(
            next(iter(labels)), f"a task has {len(labels)} labels, the limit is {LABELS}", "use fewer of them"
        )
    for key, value in labels.items():
        _check_key(key)
        if not isinstance(value, str) or len(value) > LABEL_VALUE_LENGTH or _VALUE.fullmatch(value) is None:
            raise LabelInvalid(str(key), f"its value {_short(value)} is not allowed", _VALUE_HINT)
    return dict(labels)


def merged(stronger: Labels | None, weaker: Labels | None) -> dict[str, str] | None:
    """Return the labels of both; where both have a key, the stronger one's.

    Raises:
        LabelInvalid: if there are too many then.
    """
    if not stronger or not weaker:
        return dict(stronger or weaker or {}) or None
    return check_labels({**weaker, **stronger})


def _check_key(key: Any) -> None:
    if not isinstance(key, str) or len(key) > KEY_LENGTH or _KEY.fullmatch(key) is None:
        raise LabelInvalid(_short(key), "the key is not allowed", _KEY_HINT)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


Test: TypeAlias = Callable[[Labels], bool]

_REQUIREMENT: Final = re.compile(
    r"""\s*(?:
        (?P<absent>!)\s*(?P<absent_key>[^\s,!=()]+)
      | (?P<set_key>[^\s,!=()]+)\s+(?P<word>in|notin)\s*\((?P<values>[^()]*)\)
      | (?P<key>[^\s,!=()]+)\s*(?:(?P<sign>==|!=|=)\s*(?P<value>[^\s,!=()]*))?
    )\s*(?:,|$)""",
    re.VERBOSE,
)


def selector(text: str) -> Test:
    """Return what tells whether labels are meant by a selector, as `kubectl -l` has them.

    `team=billing,tier!=low`, `team`, `!team`, `team in (a, b)`, `team notin (a, b)`; each has to hold. An
    empty one holds for all.

    Raises:
        SelectorInvalid: if it is not a selector.
    """
    if not isinstance(text, str):
        raise SelectorInvalid(f"{text}", f"it is of type {type(text).__name__}, and no text")
    tests: list[Test] = []
    place = 0
    while place < len(text.rstrip()):
        found = _REQUIREMENT.match(text, place)
        if found is None:
            raise SelectorInvalid(text, f"cannot be read from {text[place : place + 40]!r} on")
        tests.append(_test(text, found))
        place = found.end()
    if text.rstrip().endswith(","):
        raise SelectorInvalid(text, "ends with a comma")
    return lambda labels: all(test(labels) for test in tests)


def _test(text: str, found: re.Match[str]) -> Test:
    key = found["absent_key"] or found["set_key"] or found["key"]
    try:
        _check_key(key)
        if found["absent"]:
            return lambda labels: key not in labels
        if found["word"]:
            values = {value.strip() for value in found["values"].split(",")}
            for value in values:
                check_labels({key: value})
            within = found["word"] == "in"
            return lambda labels: (labels.get(key) in values) is within
        if found["sign"] is None:
            return lambda labels: key in labels
        check_labels({key: found["value"]})
    except LabelInvalid as error:
        raise SelectorInvalid(text, str(error)) from None
    value, equal = found["value"], found["sign"] != "!="
    return lambda labels: (labels.get(key) == value) is equal
