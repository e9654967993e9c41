"""Fields of log records: whatever `extra` has, the line comes through with its fields."""

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galley_worker.runners.child.streams import LogLines
from galley_worker.runners.execution import Account
from galley_worker.runners.log_fields import FIELDS_LIMIT, fields_of, read_fields
from galley_worker.runners.output import Output
from galley_worker.runners.settings import Line, RunnerSettings
from tests.unit.galley_worker.runners.test_marks import pipes, streams

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(-1e6, 1e6) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
_TAKEN = logging.makeLogRecord({}).__dict__.keys() | {"message", "asctime", "taskName"}
NAMES = st.text(min_size=1).filter(lambda name: name not in _TAKEN)


def a_record(extra: dict[str, Any], text: str = "packed") -> logging.LogRecord:
    return logging.getLogger("shop").makeRecord("shop", 30, "a.py", 1, text, (), None, extra=extra)


def forwarded(record: logging.LogRecord) -> list[Line]:
    """What the supervisor makes of what a child writes of a record."""
    lines: list[Line] = []
    settings = RunnerSettings("q", on_line=lines.append)
    with streams() as (child, written), pipes() as (loop, read_end):
        LogLines(child).emit(record)
        supervisor = Output(loop, read_end, "stderr", settings, lambda _order: Account(None))
        supervisor.feed(written())
        supervisor.close()
    return lines


@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_fields_that_are_json_come_through_as_they_are(extra: dict[str, Any]) -> None:
    told = read_fields(fields_of(a_record(extra)).encode())
    assert told == json.loads(json.dumps(extra))


def test_the_first_line_of_a_record_has_its_fields() -> None:
    lines = forwarded(a_record({"order": 7, "note": "a\x1d\x1e1\x1f\nb"}, "packed\nand sent"))
    assert [(line.stream, line.level, line.logger, line.text) for line in lines] == [
        ("log", 30, "shop", "packed"), ("log", 30, "shop", "and sent"),
    ]  # fmt: skip
    assert [line.fields or {} for line in lines] == [{"order": 7, "note": "a\x1d\x1e1\x1f\nb"}, {}]


class _Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (_Broken(), "left out: _Broken is no JSON"),
        ("\ud800", "left out: str is no JSON"),
        ({1, 2}, [1, 2]),
        (float("nan"), None),
        ("x" * FIELDS_LIMIT, f"left out: {FIELDS_LIMIT + 2} bytes"),
    ],
)
def test_a_value_that_cannot_be_told_does_not_cost_the_line(value: object, told: object) -> None:
    (line,) = forwarded(a_record({"before": 1, "value": value, "after": 2}))
    assert (line.text, line.fields) == ("packed", {"before": 1, "value": told, "after": 2})


def test_a_value_that_contains_itself_does_not_cost_the_line() -> None:
    endless: list[object] = []
    endless.append(endless)
    (line,) = forwarded(a_record({"value": endless}))
    assert (line.text, line.fields) == ("packed", {"value": "left out: list is no JSON"})


@pytest.mark.parametrize("depth", [34, 700, 980])
def test_what_is_nested_too_deeply_is_named_and_costs_nothing_else(depth: int) -> None:
    deep: object = 1
    for _ in range(depth):
        deep = {"a": [deep]}
    (line,) = forwarded(a_record({"deep": deep, "order": 7}))
    assert line.fields is not None
    assert line.fields["order"] == 7
    assert line.fields["deep"].startswith("left out: ")


def test_a_record_that_a_limit_cuts_in_its_fields_is_no_line() -> None:
    lines: list[Line] = []
    account = Account(None)
    settings = RunnerSettings("q", output_limit=30, on_line=lines.append)
    with pipes() as (loop, read_end):
        supervisor = Output(loop, read_end, "stderr", settings, lambda _order: account)
        supervisor.feed(b'first\n\x1d30 shop\x1c{"order":7,"boxes":3}\x1dpacked\n')
        supervisor.close()
    assert [line.text for line in lines if line.stream != "galley"] == ["first"]
    assert any("bytes of output dropped" in line.text for line in lines)


def test_fields_have_little_room() -> None:
    text = fields_of(a_record({f"name{number}": "x" * 50 for number in range(10_000)}))
    assert FIELDS_LIMIT / 2 < len(text) < FIELDS_LIMIT * 1.5
    assert all(told == "x" * 50 for told in list(read_fields(text.encode()).values())[:-1])


@pytest.mark.parametrize("written", [b"{", b"[1]", b'"a"', b"\xff", b"[" * 6000, b'{"a":' * 3000, b""])
def test_what_is_no_fields_is_none(written: bytes) -> None:
    assert read_fields(written) == {}
    lines: list[Line] = []
    settings = RunnerSettings("q", on_line=lines.append)
    with pipes() as (loop, read_end):
        supervisor = Output(loop, read_end, "stderr", settings, lambda _order: Account(None))
        supervisor.feed(b"\x1d30 shop\x1c" + written + b"\x1dtext\n")
        supervisor.close()
    assert lines[-1].text.endswith("text")
    assert not any(line.fields for line in lines)


def test_a_plain_record_has_none() -> None:
    assert not fields_of(a_record({}))
