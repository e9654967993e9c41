"""Nothing out of range gets on the wire or is read from it, whatever value or byte it is."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from galley import record as records
from galley.bounds import ATTEMPTS, BACKOFF_SECONDS, COUNT, CRASHES, SEQUENCE, Range
from galley.envelope import Envelope, Flags, decode, digest_of, encode, in_range
from galley.errors import EnvelopeInvalid, SubmissionInvalid
from galley.history import EndedBy, History, PastAttempt
from galley.lanes import Lane
from galley.record import Claim, Failure, Outcome, Record, State
from galley.resources.task_queue import Retry
from galley.retry import RetryPolicy
from galley.when import When

AT: Final = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
PAST: Final = PastAttempt(1, EndedBy.ERROR, "HandlerRaised", "boom", "w1", AT, AT)
ENVELOPE: Final = json.loads(encode(Envelope(
    "resize", AT, input=Raw(b'{"a":1}'), not_before=AT, deadline=AT, timeout_seconds=2.5,
    retry=RetryPolicy(), history=History(1, 1, 1, (PAST,)), uid="u", digest=digest_of("resize", Raw(b"{}")),
)))  # fmt: skip
ENVELOPE["retry"] = {"attempts": 3, "backoffSeconds": 1.0, "maxBackoffSeconds": 300.0, "crashes": 3}
RECORD: Final = json.loads(records.encode(Record(
    State.DONE, 2, "w1", "resize", Lane.LOW, AT, AT, AT, AT, Claim("GW_a_b", 7, "w1"), True,
    History(1, 1, 1, (PAST,)), Outcome.FAILED, Raw(b"1"), Failure("Reason", "message", "trace"),
    "u", "d", True,
)))  # fmt: skip

WILD: Final = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=80),
    st.sampled_from([
        -1, 0, 2**31, 2**63, 10**30, 1e15, 1e308, -0.0, "", "2026-03-01T08:30:00", "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59-12:00", "1969-12-31T23:59:59Z", "run", [], {}, [[]], "x" * 5000,
    ]),
    st.lists(st.integers(), max_size=3),
)  # fmt: skip


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to each value inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(place for key, each in inside for place in places(each, (*above, key)))]


def changed(value: Any, place: tuple[Any, ...], to: Any) -> bytes:
    copy = json.loads(json.dumps(value))
    if not place:
        return json.dumps(to).encode()
    inner = copy
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = to
    return json.dumps(copy).encode()


def check_policy(policy: RetryPolicy | None) -> None:
    if policy is not None:
        assert ATTEMPTS.holds(policy.attempts)
        assert CRASHES.holds(policy.crashes)
        assert BACKOFF_SECONDS.holds(policy.backoff_seconds)
        assert BACKOFF_SECONDS.holds(policy.max_backoff_seconds)


def check_history(history: History) -> None:
    counts = (
        history.errors,
        history.crashes,
        history.preemptions,
        *(past.number for past in history.attempts),
    )
    assert all(COUNT.holds(count) for count in counts)
    assert len(history.attempts) <= 10
    assert all(in_range(past.ended_at) for past in history.attempts)


def check_envelope(envelope: Envelope) -> None:
    """Everything a worker does with the values of an envelope works."""
    check_policy(envelope.retry)
    check_history(envelope.history)
    for moment in (envelope.submitted_at, envelope.not_before, envelope.deadline):
        if moment is not None:
            assert abs((moment - AT).total_seconds()) < 1e12
            moment.astimezone(UTC).isoformat()
    assert envelope.timeout_seconds is None or 0 < envelope.timeout_seconds <= 86_400
    policy = envelope.retry or RetryPolicy()
    assert policy.next_at(History(), AT, lambda: 0.999) is not None
    assert decode(encode(envelope)) == envelope


@given(st.sampled_from(places(ENVELOPE)), WILD)
@settings(max_examples=400)
def test_an_envelope_with_a_wild_value_is_refused_or_harmless(place: tuple[Any, ...], value: Any) -> None:
    try:
        envelope = decode(changed(ENVELOPE, place, value))
    except EnvelopeInvalid:
        return
    check_envelope(envelope)


@given(st.sampled_from(places(RECORD)), WILD)
@settings(max_examples=400)
def test_a_record_with_a_wild_value_is_refused_or_harmless(place: tuple[Any, ...], value: Any) -> None:
    try:
        record = records.decode(changed(RECORD, place, value))
    except EnvelopeInvalid:
        return
    check_history(record.history)
    assert COUNT.holds(record.attempt)
    for moment in (record.submitted_at, record.started_at, record.ended_at, record.due_at):
        assert moment is None or in_range(moment)
    assert record.claim is None or SEQUENCE.holds(record.claim.sequence)
    assert records.decode(records.encode(record)) == record


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=300)
def test_wild_bytes_are_refused_or_harmless(wild: bytes, start: int, length: int) -> None:
    readers: list[tuple[dict[str, Any], Callable[[bytes], object]]] = [
        (ENVELOPE, decode), (RECORD, records.decode),
    ]  # fmt: skip
    for value, read in readers:
        whole = json.dumps(value).encode()
        try:
            read(whole[:start] + wild + whole[start + length :])
        except EnvelopeInvalid:
            continue


@given(st.one_of(st.text(max_size=60), st.from_regex(r"v=1;a=[-+0-9_ e.]{0,400};f=[-+0-9_ e.]{0,400}(;r)?")))
@settings(max_examples=300)
def test_a_wild_header_is_refused_or_harmless(text: str) -> None:
    try:
        flags = Flags.decode(text)
    except EnvelopeInvalid:
        return
    assert 1 <= flags.attempt <= COUNT.most
    assert SEQUENCE.holds(flags.fence)
    assert Flags.decode(flags.encode()) == flags


WILD_POLICIES: Final = st.builds(
    RetryPolicy,
    attempts=st.one_of(st.integers(), st.floats(), st.booleans(), st.text(max_size=3)),
    backoff_seconds=st.one_of(st.floats(), st.integers(), st.none()),
    max_backoff_seconds=st.one_of(st.floats(), st.integers()),
    crashes=st.one_of(st.integers(-5, 30), st.floats()),
)
WILD_WHENS: Final[st.SearchStrategy[dict[str, Any]]] = st.builds(
    dict,
    lane=st.one_of(st.sampled_from(list(Lane)), st.just("urgent"), st.just("a.b")),
    not_before=st.one_of(st.none(), st.datetimes(), st.datetimes(timezones=st.just(UTC))),
    deadline=st.one_of(
        st.none(), st.datetimes(timezones=st.just(UTC)),
        st.datetimes(timezones=st.just(timezone(timedelta(hours=-12)))),
    ),
    timeout_seconds=st.one_of(st.none(), st.floats(), st.integers(), st.just("1")),
    retry=st.one_of(st.none(), st.just(RetryPolicy()), WILD_POLICIES),
)  # fmt: skip


@given(WILD_WHENS)
@settings(max_examples=400)
def test_what_the_client_accepts_is_what_a_worker_reads(rules: dict[str, Any]) -> None:
    try:
        when = When(**rules)
    except SubmissionInvalid:
        return
    envelope = Envelope(
        "resize", AT, not_before=when.not_before, deadline=when.deadline,
        timeout_seconds=when.timeout_seconds, retry=when.retry,
    )  # fmt: skip
    check_envelope(decode(encode(envelope)))


@pytest.mark.parametrize("field", ["attempts", "backoffSeconds", "maxBackoffSeconds", "crashes"])
@pytest.mark.parametrize("value", [-1, 0, 1, 20, 21, 100, 101, 86_400, 86_401, 1e15])
def test_a_manifest_and_the_wire_have_the_same_ranges(field: str, value: float) -> None:
    spec: dict[str, Any] = {"maxBackoffSeconds": 86_400, "backoffSeconds": 0, field: value}
    try:
        Retry.model_validate(spec)
    except ValueError:
        accepted = False
    else:
        accepted = True
    try:
        msgspec.json.decode(json.dumps({field: value}), type=RetryPolicy)
    except msgspec.ValidationError:
        assert not accepted
    else:
        assert accepted


@pytest.mark.parametrize("value", [True, None, "1", float("nan"), float("inf"), -1, 11, 10.5])
def test_a_range_holds_numbers_in_it_alone(value: object) -> None:
    assert not Range(0, 10).holds(value)
    assert Range(0, 10).holds(10)
    assert Range(0, 10).holds(0.5)
