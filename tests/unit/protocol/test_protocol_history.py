"""What the oracle for recorded histories lets pass, and what it names."""

from typing import Any

import pytest

from tests.support.protocol_history import (
    LATER,
    WORK,
    Acked,
    DeadLettered,
    Ended,
    Event,
    LeaseLost,
    Published,
    RecordWritten,
    Started,
    history_allowed,
    redriven_history_allowed,
)


def started(at: float, worker: str = "w1", **changes: Any) -> Started:
    defaults: dict[str, Any] = {"stream": WORK, "sequence": 1, "delivered": 1, "attempt": 1}
    return Started(at=at, worker=worker, **{**defaults, **changes})


def ended(at: float, worker: str = "w1", attempt: int = 1, ending: str = "returned") -> Ended:
    return Ended(at=at, worker=worker, attempt=attempt, ending=ending)


def run(at: float, sequence: int, *, attempt: int = 1, claim: tuple[str, int] = (WORK, 1)) -> RecordWritten:
    return RecordWritten(at=at, sequence=sequence, state="run", attempt=attempt, claim=claim)


def retry(at: float, sequence: int, *, attempt: int = 2) -> RecordWritten:
    return RecordWritten(at=at, sequence=sequence, state="retry", attempt=attempt)


def done(at: float, sequence: int, *, attempt: int = 1, outcome: str = "succeeded") -> RecordWritten:
    return RecordWritten(at=at, sequence=sequence, state="done", attempt=attempt, outcome=outcome)


FAST: list[Event] = [Published(at=0), started(1), ended(2), done(3, 1), Acked(at=4, stream=WORK, sequence=1)]

RETRIED: list[Event] = [
    started(1), ended(2, ending="raised"), retry(3, 1), Acked(at=4, stream=WORK, sequence=1),
    run(5, 2, attempt=2, claim=(LATER, 7)), started(6, stream=LATER, sequence=7, attempt=2),
    ended(7, attempt=2), done(8, 3, attempt=2), Acked(at=9, stream=LATER, sequence=7),
]  # fmt: skip

KILLED: list[Event] = [
    started(1), LeaseLost(at=2, worker="w1"),
    run(32, 1), started(33, "w2", delivered=2), ended(34, "w2"), done(35, 2),
]  # fmt: skip

BURIED: list[Event] = [
    started(1),
    ended(2, ending="raised"),
    done(3, 1, outcome="failed"),
    DeadLettered(at=4),
]

CROSSED: list[Event] = [done(1, 1, outcome="cancelled"), started(1.1), ended(1.2, ending="cancelled")]


@pytest.mark.parametrize(
    "events",
    [FAST, RETRIED, KILLED, BURIED, CROSSED],
    ids=["fast path", "retried", "worker killed", "buried", "cancel crosses a first delivery"],
)
def test_a_history_of_the_protocol_is_allowed_in_whatever_order_it_is_told(events: list[Event]) -> None:
    assert history_allowed(events) is None
    assert history_allowed(events[::-1]) is None


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([*FAST, done(5, 2)], "(succeeded) #2 was written after record done 1 (succeeded) #1"),
        ([*FAST, run(5, 2)], "record run 1 #2 was written after record done"),
        ([*FAST, started(5, "w2")], "start of attempt 1 by w2 at 5 came after record done"),
        ([done(1, 1, outcome="cancelled"), started(2, flagged=True)], "came after record done 1 (cancelled)"),
        ([retry(1, 1), retry(2, 2)], "the retry chain forked: record retry 2 #2 follows retry 2"),
        ([retry(1, 1), run(2, 2)], "record run 1 #2 goes back behind attempt 2"),
        ([started(1), started(3, attempt=3)], "attempt 3 started, attempt 2 never did"),
        ([started(1), ended(2), started(3, attempt=2)], "no record says retry 2"),
        ([started(1, delivered=2), ended(2), done(3, 1)], "has no run record of its own before it"),
        (
            [run(1, 1, claim=(WORK, 9)), started(2, flagged=True), ended(3), done(4, 2)],
            "has no run record of its own before it",
        ),
        (
            [run(1, 1), started(2, delivered=2), ended(3), started(4, "w2", delivered=2), done(6, 2)],
            "start of attempt 1 by w2 at 4 has no run record",
        ),
        ([event for event in KILLED if not isinstance(event, LeaseLost)], "whose worker had its lease"),
        ([started(1), ended(2), Acked(at=3, stream=WORK, sequence=1), done(4, 1)], "was acked at 3, before"),
        ([*FAST, DeadLettered(at=9)], "there is a dead letter, but the record says done (succeeded)"),
        (BURIED[:-1], "the record says done (failed), but there is no dead letter"),
        ([started(1), ended(2)], "no record was ever written: the task is lost"),
        (RETRIED[:3], "record retry 2 #1 is the last record: the task is lost"),
    ],
)  # fmt: skip
def test_a_history_that_breaks_the_protocol_is_told_apart(events: list[Event], said: str) -> None:
    found = history_allowed(events)
    assert found is not None
    assert said in found


def test_a_task_that_is_still_on_its_way_needs_no_end_yet() -> None:
    assert history_allowed(RETRIED[:3], complete=False) is None


def test_a_killed_broker_excuses_every_overlap() -> None:
    events: list[Event] = [
        LeaseLost(at=2, worker="*"),
        *(event for event in KILLED if not isinstance(event, LeaseLost)),
    ]
    assert history_allowed(events) is None


def test_clocks_that_differ_a_little_are_allowed_for() -> None:
    events: list[Event] = [started(1, delivered=2), run(1.004, 1), ended(2), done(3, 2)]
    assert history_allowed(events) is not None
    assert history_allowed(events, skew=0.01) is None


REDRIVEN: list[Event] = [
    started(1), ended(2, ending="raised"), done(3, 1, outcome="failed"),
    retry(5, 2), run(6, 3, attempt=2, claim=(WORK, 8)),
    started(7, sequence=8, attempt=2, flagged=True), ended(8, attempt=2), done(9, 4, attempt=2),
]  # fmt: skip


CANCELLED: list[Event] = [
    started(1), done(2, 1, attempt=0, outcome="cancelled"), ended(2.1, ending="cancelled"),
]  # fmt: skip


@pytest.mark.parametrize(
    "events", [FAST, RETRIED, KILLED, BURIED, CANCELLED, REDRIVEN, [*REDRIVEN[:3], *REDRIVEN[4:]]]
)
def test_a_redrive_begins_a_history_of_its_own(events: list[Event]) -> None:
    assert redriven_history_allowed(events) is None


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([*REDRIVEN, done(10, 5, attempt=2)], "after 1 redrives: record done 1 (succeeded) #5 was written"),
        ([*REDRIVEN[:3], started(2.5, "w2", attempt=2), *REDRIVEN[4:]], "came before the failure at 3"),
        ([*REDRIVEN[:5], started(7, sequence=9, attempt=2, flagged=True), *REDRIVEN[6:]], "no run record"),
        ([*REDRIVEN, started(11, "w2")], "after 0 redrives: the start of attempt 1 by w2 at 11 came after"),
        (REDRIVEN[:4], "after 1 redrives: record retry 1 #2 is the last record: the task is lost"),
        ([*REDRIVEN, DeadLettered(at=12)], "there is a dead letter, but the record says done (succeeded)"),
        ([*FAST, run(5, 2, attempt=2)], "was written after record done"),
    ],
)  # fmt: skip
def test_what_a_redrive_does_not_excuse_is_named(events: list[Event], said: str) -> None:
    found = redriven_history_allowed(events)
    assert found is not None
    assert said in found
