"""The record of a task: its bytes are pinned, and bytes that are not ours are refused."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import Raw

from galley import record
from galley.errors import EnvelopeInvalid
from galley.history import EndedBy, History, PastAttempt
from galley.lanes import Lane
from galley.record import Claim, Failure, Outcome, Record, State
from tests.unit.galley.vectors import vector

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
LATER = NOON + timedelta(seconds=2)

RUN = Record(
    State.RUN, 1, worker="w-1", handler="resize", submitted_at=NOON, started_at=LATER,
    claim=Claim("GW_default_images", 1041, "w-1.01M7Y2R8NG"),
)  # fmt: skip
HANDED_BACK = Record(
    State.RUN, 1, worker="w-1", handler="resize", lane=Lane.HIGH, submitted_at=NOON, started_at=LATER,
    claim=Claim("GS_default_images", 7), handed_back=True, history=History(preemptions=1),
)  # fmt: skip
RETRY = Record(
    State.RETRY, 2, worker="w-1", handler="resize", lane=Lane.LOW, submitted_at=NOON, started_at=LATER,
    due_at=LATER + timedelta(seconds=1.5),
    failure=Failure("ValueError", "no such picture", "Traceback ..."),
    history=History(
        errors=1, attempts=(PastAttempt(1, EndedBy.ERROR, "ValueError", "no such picture", "w-1", LATER),)
    ),
)  # fmt: skip
SUCCEEDED = Record(
    State.DONE, 1, worker="w-1", handler="resize", submitted_at=NOON, started_at=LATER, ended_at=LATER,
    outcome=Outcome.SUCCEEDED, result=Raw(b'{"bytes":2683}'),
)  # fmt: skip
FAILED = Record(
    State.DONE, 3, worker="w-2", handler="resize", submitted_at=NOON, started_at=LATER, ended_at=LATER,
    outcome=Outcome.FAILED, failure=Failure("AttemptsExhausted", "3 of 3 attempts failed"),
    history=History(errors=3),
)  # fmt: skip
CANCELLED = Record(
    State.DONE, 0, handler="resize", submitted_at=NOON, ended_at=LATER, outcome=Outcome.CANCELLED
)

VECTORS = {
    "run": RUN, "run-handed-back": HANDED_BACK, "retry": RETRY,
    "done-succeeded": SUCCEEDED, "done-failed": FAILED, "done-cancelled": CANCELLED,
}  # fmt: skip


@pytest.mark.parametrize("name", VECTORS)
def test_version_1_has_these_bytes(name: str) -> None:
    assert record.encode(VECTORS[name]) == vector("record", name)
    assert _comparable(record.decode(vector("record", name))) == _comparable(VECTORS[name])


def test_what_a_newer_writer_adds_is_passed_over() -> None:
    assert _comparable(record.decode(vector("record", "extra-fields"))) == _comparable(SUCCEEDED)


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(EnvelopeInvalid):
        record.decode(vector("record", "run").replace(b"{", b'{"v":2,', 1))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"{}", b"\x80\x04", b'{"state":"run"}', b'{"state":"paused","attempt":1}',
        b'{"state":"run","attempt":"first"}', b'{"state":"run","attempt":1,"claim":{"stream":"x"}}',
        b'{"state":"done","attempt":1,"outcome":"fine"}', b'{"state":"run","attempt":1,"worker":"\xff"}',
    ],
)  # fmt: skip
def test_bytes_that_are_no_record_are_refused(body: bytes) -> None:
    with pytest.raises(EnvelopeInvalid, match="a record that cannot be read"):
        record.decode(body)


@pytest.mark.parametrize("known", VECTORS.values(), ids=VECTORS.keys())
def test_only_done_is_done(known: Record) -> None:
    assert known.done == (known.outcome is not None)


def _comparable(value: Record) -> tuple[Any, ...]:
    # Raw compares by identity; the rest by value.
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    return tuple(bytes(each) if isinstance(each, Raw) else each for each in fields.values())


PAST_ATTEMPT = (
    b'{"number":1,"endedBy":"error","reason":"R","message":"m","worker":"w","endedAt":"9999-12-31T23:59:59Z"}'
)


@pytest.mark.parametrize(
    "times",
    [
        b'"startedAt":"2026-03-01T12:00:00"',
        b'"endedAt":"0001-01-01T00:00:00+14:00"',
        b'"dueAt":"9999-12-31T23:59:59-12:00"',
        b'"submittedAt":"soon"',
        b'"attempt":-1',
        b'"attempt":4294967296',
        b'"history":{"attempts":[' + PAST_ATTEMPT + b"]}",
    ],
)
def test_a_time_or_a_count_that_cannot_be_used_is_refused(times: bytes) -> None:
    body = b'{"state":"run","attempt":1,' + times + b',"v":1}'
    with pytest.raises(EnvelopeInvalid):
        record.decode(body.replace(b'"attempt":1,"attempt"', b'"attempt"'))


def test_the_task_object_and_the_digest_survive() -> None:
    one = Record(State.DONE, 1, outcome=Outcome.SUCCEEDED, uid="u1", digest="a.b", remembered=True)
    again = record.decode(record.encode(one))
    assert (again.uid, again.digest, again.remembered) == ("u1", "a.b", True)
