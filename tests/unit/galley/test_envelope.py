"""The wire format of a task: its bytes are pinned, and bytes that are not ours are refused."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from galley import envelope
from galley.envelope import FIRST, INPUT_LIMIT, Envelope, Flags, conflicts, digest_of
from galley.errors import EnvelopeInvalid, InputInvalid
from galley.history import EndedBy, History, PastAttempt
from galley.retry import RetryPolicy
from tests.unit.galley.vectors import vector

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)

LEAST = Envelope("resize", NOON)
FULL = Envelope(
    "resize",
    NOON,
    input=Raw('{"path":"hills.jpg","edge":160,"title":"Höhen"}'.encode()),
    not_before=NOON + timedelta(minutes=5),
    deadline=NOON + timedelta(hours=1),
    timeout_seconds=2.5,
    retry=RetryPolicy(attempts=5, backoff_seconds=0.5, max_backoff_seconds=60.0, crashes=2),
    history=History(
        errors=1,
        preemptions=1,
        attempts=(
            PastAttempt(
                1, EndedBy.ERROR, "ValueError", "no such picture", "w-1",
                NOON + timedelta(seconds=3), NOON + timedelta(seconds=1),
            ),
            PastAttempt(2, EndedBy.PREEMPTION, "CutOff", "it stopped", "w-2", NOON + timedelta(seconds=9)),
        ),
    ),
)  # fmt: skip


@pytest.mark.parametrize(("name", "known"), [("least", LEAST), ("full", FULL)])
def test_version_1_has_these_bytes(name: str, known: Envelope) -> None:
    assert envelope.encode(known) == vector("envelope", name)
    assert _comparable(envelope.decode(vector("envelope", name))) == _comparable(known)


def test_what_a_newer_writer_adds_is_passed_over() -> None:
    assert _comparable(envelope.decode(vector("envelope", "extra-fields"))) == _comparable(LEAST)


def test_an_unknown_version_is_refused_by_its_number() -> None:
    with pytest.raises(EnvelopeInvalid, match="its version is 2, known here is 1"):
        envelope.decode(vector("envelope", "least").replace(b"{", b'{"v":2,', 1))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"\x80\x04\x95", b"{", b"{}", b'"resize"',
        b'{"handler":"resize"}',
        b'{"submittedAt":"2026-03-01T12:00:00Z"}',
        b'{"handler":7,"submittedAt":"2026-03-01T12:00:00Z"}',
        b'{"handler":"resize","submittedAt":"yesterday"}',
        b'{"handler":"\xff","submittedAt":"2026-03-01T12:00:00Z"}',
        b'{"handler":"resize","submittedAt":"2026-03-01T12:00:00Z","retry":3}',
        b'{"handler":"resize","submittedAt":"2026-03-01T12:00:00Z","timeoutSeconds":1e999}',
        b'{"handler":"resize","submittedAt":"2026-03-01T12:00:00Z"} and more',
    ],
)  # fmt: skip
def test_bytes_that_are_no_task_are_refused(body: bytes) -> None:
    with pytest.raises(EnvelopeInvalid, match="not a task"):
        envelope.decode(body)


def test_a_body_nested_too_deep_is_refused() -> None:
    deep = b'"input":' + b"[" * 200_000 + b"]" * 200_000
    with pytest.raises(EnvelopeInvalid):
        envelope.decode(vector("envelope", "least")[:-1] + b"," + deep + b"}")


@pytest.mark.parametrize("field", ["submittedAt", "notBefore", "deadline"])
def test_a_time_without_an_offset_is_refused(field: str) -> None:
    body = b'{"handler":"resize","submittedAt":"2026-03-01T12:00:00Z","%s":"2026-03-01T12:00:00"}'
    with pytest.raises(EnvelopeInvalid):
        envelope.decode(body % field.encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_task_or_refused(body: bytes) -> None:
    try:
        decoded = envelope.decode(body)
    except EnvelopeInvalid:
        return
    assert decoded.v == envelope.VERSION


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (FIRST, "v=1;a=1;f=0"),
        (Flags(republished=True), "v=1;a=1;f=0;r"),
        (Flags(attempt=2, fence=1041), "v=1;a=2;f=1041"),
        (Flags(attempt=12, fence=2**63, republished=True), "v=1;a=12;f=9223372036854775808;r"),
    ],
)
def test_the_header_of_version_1_is_this_text(flags: Flags, text: str) -> None:
    assert flags.encode() == text
    assert Flags.decode(text) == flags


def test_words_a_newer_writer_adds_to_the_header_are_passed_over() -> None:
    assert Flags.decode("v=1;a=3;f=7;z;t=00-4bf9;r") == Flags(3, 7, republished=True)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        ";",
        "r",
        "a=1",
        "v=2;a=1;f=0",
        "v=;a=1",
        "v=1;a=0",
        "v=1;a=-1",
        "v=1;f=-1",
        "v=1;a=one",
        "v=1;f=",
    ],
)
def test_a_header_that_is_not_ours_is_refused(text: str | None) -> None:
    with pytest.raises(EnvelopeInvalid, match="not a task"):
        Flags.decode(text)


@given(st.text(max_size=60))
def test_any_header_is_flags_or_refused(text: str) -> None:
    try:
        flags = Flags.decode(text)
    except EnvelopeInvalid:
        return
    assert flags.attempt >= 1
    assert flags.fence >= 0


def test_an_input_of_just_the_limit_fits_and_one_byte_more_does_not() -> None:
    assert len(envelope.encode_input("resize", "x" * (INPUT_LIMIT - 2))) == INPUT_LIMIT
    with pytest.raises(
        InputInvalid, match=f"{INPUT_LIMIT + 1} bytes of JSON, the limit is {INPUT_LIMIT}"
    ) as refused:
        envelope.encode_input("resize", "x" * (INPUT_LIMIT - 1))
    assert "as a galley.File" in refused.value.hint


@pytest.mark.parametrize("value", [object(), {1: object()}, {"f": print}, "\ud800", {(1, 2): 3}])
def test_an_input_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(InputInvalid, match="input of handler 'resize'"):
        envelope.encode_input("resize", value)


@dataclass
class Detached:
    """As a model whose database session is closed: its fields cannot be read any more."""

    x: int

    def __getattribute__(self, name: str) -> Any:
        error = LookupError(f"{name!r} is not loaded")
        error.add_note("open a session first")
        raise error


def test_an_input_that_raises_when_it_is_read_is_refused_with_what_it_said() -> None:
    for value in (Detached(1), {"of": [Detached(1)]}, {"a": None, "of": Detached(1)}):
        with pytest.raises(InputInvalid, match=r"reading it raised LookupError: .* is not loaded"):
            envelope.encode_input("resize", value)


@dataclass
class Point:
    x: float


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"size": math.nan}, "size is NaN, which JSON cannot say"),
        ({"size": -math.inf}, "size is infinite, which JSON cannot say"),
        ({"a": None, "points": [{"x": 1.0}, {"x": math.inf}]}, "points[1].x is infinite"),
        ({"at": Point(math.nan)}, "at.x is NaN"),
        ({"raw": Raw(b"null"), "sizes": (0.5, math.nan)}, "sizes[1] is NaN"),
        (math.nan, "it is NaN"),
    ],
)
def test_a_number_that_json_would_lose_is_refused_by_its_place(value: Any, problem: str) -> None:
    with pytest.raises(InputInvalid) as refused:
        envelope.encode_input("resize", value)
    assert str(refused.value).startswith(f"input of handler 'resize': {problem}")
    assert refused.value.hint == "pass null or a text in its place"


@pytest.mark.parametrize(
    "value", [None, {"a": None, "text": "null, nan"}, [0.0, None, -1e308], {"r": Raw(b"null")}]
)
def test_a_null_that_was_meant_travels(value: Any) -> None:
    assert envelope.encode_input("resize", value) == Raw(msgspec.json.encode(value))


def test_an_input_that_contains_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(InputInvalid):
        envelope.encode_input("resize", circle)


def _comparable(value: Envelope) -> tuple[Any, ...]:
    # Raw compares by identity; the rest by value.
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    return tuple(bytes(each) if isinstance(each, Raw) else each for each in fields.values())


@pytest.mark.parametrize("value", [b"[" * 400 + b"]" * 400, b"[" * 5000 + b"]" * 5000, b"1e999", b"\xff"])
def test_whatever_the_input_is_equal_work_has_an_equal_digest(value: bytes) -> None:
    digest = digest_of("resize", Raw(value))
    assert digest == digest_of("resize", Raw(value))
    assert conflicts(digest, digest_of("crop", Raw(value)))
    assert conflicts(digest, digest_of("resize", Raw(b"[" + value + b"]")))
