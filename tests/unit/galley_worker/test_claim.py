"""Each line of the slow path's decision, then what holds whatever record is found."""

import itertools
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from galley.broker.pull import Delivery
from galley.envelope import Flags
from galley.history import History
from galley.record import Claim, Outcome, Record, State, Stored
from galley_worker.claim import (
    AskHolder,
    ClaimAt,
    DropIt,
    Ended,
    HeldElsewhere,
    Holder,
    LeaveIt,
    LookAgain,
    ScheduleAgain,
    Who,
    claim_of,
    claiming_record,
    first_claim,
    must_claim,
    take_over,
    what_next,
)
from tests.support.builders import an_envelope
from tests.unit.galley_worker.deliveries import LATER, NOON, WORK, a_claim, a_delivery, a_past, stored

MINE = a_claim(sequence=7, holder="mine")
SECOND = Flags(attempt=2, fence=30)
TASK = an_envelope(submitted_at=NOON, history=a_past(errors=1))


def test_a_first_delivery_that_cannot_have_been_published_twice_begins_at_once() -> None:
    assert not must_claim(a_delivery(), Flags(), LATER)


@pytest.mark.parametrize(
    ("delivery", "flags"),
    [
        (a_delivery(delivered=2), Flags()),
        (a_delivery(), Flags(republished=True)),
        (a_delivery(old=True), Flags()),
        (a_delivery(stream=LATER), Flags()),
        (a_delivery(stream=LATER), SECOND),
    ],
    ids=["delivered before", "flagged", "older than the connection", "from a schedule", "a retry"],
)
def test_whatever_may_have_begun_elsewhere_asks_the_record_first(delivery: Delivery, flags: Flags) -> None:
    assert must_claim(delivery, flags, LATER)


def test_a_message_claims_in_place_of_the_record_it_names_and_brings_its_history() -> None:
    assert first_claim(TASK, SECOND) == ClaimAt(30, TASK.history)
    assert first_claim(an_envelope(), Flags(republished=True)) == ClaimAt(0, History())


def test_where_the_record_has_expired_the_claim_starts_a_new_chain() -> None:
    assert what_next(MINE, SECOND, TASK, None) == ClaimAt(0, TASK.history)


@pytest.mark.parametrize("attempt", [1, 2, 3])
@pytest.mark.parametrize("outcome", Outcome)
def test_a_task_that_has_ended_is_not_run_whichever_attempt_ended_it(outcome: Outcome, attempt: int) -> None:
    found = stored(State.DONE, attempt, outcome=outcome)
    assert what_next(MINE, SECOND, TASK, found) == Ended(found.record)


def test_a_retry_of_this_attempt_is_claimed_in_place_of_its_record() -> None:
    found = stored(State.RETRY, 2, sequence=41, due_at=NOON, history=a_past(errors=1))
    assert what_next(MINE, SECOND, TASK, found) == ClaimAt(41, TASK.history)


@pytest.mark.parametrize("attempt", [3, 4, 9])
def test_a_later_attempt_that_may_not_have_been_scheduled_is_scheduled_as_its_record_says(
    attempt: int,
) -> None:
    found = stored(State.RETRY, attempt, sequence=41, due_at=NOON, history=a_past(errors=attempt - 1))
    step = what_next(MINE, SECOND, TASK, found)
    assert step == ScheduleAgain(replace(TASK, history=found.record.history), Flags(attempt, 41), NOON)


def test_a_scheduled_attempt_claims_over_the_record_that_scheduled_it() -> None:
    found = stored(State.RETRY, 3, sequence=41, due_at=NOON, history=a_past(errors=2))
    again = what_next(MINE, SECOND, TASK, found)
    assert isinstance(again, ScheduleAgain)
    assert first_claim(again.envelope, again.flags) == ClaimAt(41, found.record.history)


def test_a_process_that_claimed_the_message_is_asked_before_anything_is_taken_over() -> None:
    past = a_past(errors=1, crashes=1)
    found = stored(State.RUN, 2, claim=a_claim(7, "another"), worker="w9", history=past)
    assert what_next(MINE, SECOND, TASK, found) == AskHolder(40, past, "w9", a_claim(7, "another"))


ASKED = AskHolder(40, a_past(errors=1), "w9", a_claim(7, "another"))


@pytest.mark.parametrize(
    ("holder", "after"),
    [
        (Holder.RUNNING, HeldElsewhere("worker w9 runs it")),
        (Holder.AWAITED, LookAgain("worker w9 may still be reconnecting")),
        (Holder.IDLE, ClaimAt(40, a_past(errors=1), "w9")),
        (Holder.SILENT, ClaimAt(40, a_past(errors=1), "w9")),
        (Holder.GONE, ClaimAt(40, a_past(errors=1), "w9", crashed=True)),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Holder) else "",
)
def test_a_crash_is_counted_only_of_a_process_that_is_gone(holder: Holder, after: object) -> None:
    assert take_over(ASKED, holder) == after


def test_taking_over_what_was_handed_back_counts_no_crash() -> None:
    past = a_past(errors=1, preemptions=1)
    found = stored(State.RUN, 2, claim=a_claim(7, "another"), handed_back=True, history=past)
    assert what_next(MINE, SECOND, TASK, found) == ClaimAt(40, past)


def test_a_process_that_finds_its_own_claim_has_not_vanished() -> None:
    found = stored(State.RUN, 2, claim=MINE, history=a_past(errors=1))
    assert what_next(MINE, SECOND, TASK, found) == ClaimAt(40, found.record.history)


def test_a_worker_started_again_under_the_same_name_is_another_one() -> None:
    found = stored(State.RUN, 2, claim=a_claim(7, "before"), worker="w1")
    step = what_next(a_claim(7, "after"), SECOND, TASK, found)
    assert step == AskHolder(40, History(), "w1", a_claim(7, "before"))


@pytest.mark.parametrize("handed_back", [False, True])
@pytest.mark.parametrize(
    "claim",
    [a_claim(8, "mine"), a_claim(7, "mine", LATER), None],
    ids=["another sequence", "the same sequence of another stream", "no claim"],
)
def test_an_attempt_another_message_runs_is_left_to_that(claim: Claim | None, handed_back: bool) -> None:
    found = stored(State.RUN, 2, claim=claim, handed_back=handed_back)
    assert isinstance(what_next(MINE, SECOND, TASK, found), DropIt)


def test_a_message_whose_attempt_is_past_gives_way_to_the_one_that_runs() -> None:
    for claim in (a_claim(9, "another"), MINE):
        assert isinstance(what_next(MINE, SECOND, TASK, stored(State.RUN, 3, claim=claim)), DropIt)


@pytest.mark.parametrize("state", [State.RUN, State.RETRY])
def test_a_record_of_an_earlier_attempt_is_not_touched(state: State) -> None:
    found = stored(state, 1, claim=MINE, due_at=NOON)
    assert isinstance(what_next(MINE, SECOND, TASK, found), LeaveIt)


def test_a_claim_tells_of_message_process_worker_and_attempt() -> None:
    delivery = a_delivery(SECOND, TASK, stream=LATER, sequence=12)
    begun = NOON + timedelta(seconds=3)
    past = a_past(errors=1, crashes=2)
    record = claiming_record(delivery, TASK, SECOND, history=past, worker=Who("w1", "h1"), now=begun)
    assert record == Record(
        State.RUN,
        2,
        worker="w1",
        handler=TASK.handler,
        lane=delivery.address.lane,
        submitted_at=NOON,
        started_at=begun,
        claim=Claim(LATER, 12, "h1"),
        history=past,
    )
    assert not record.handed_back


def test_a_process_takes_its_own_claim_for_its_own_and_asks_about_any_other() -> None:
    delivery = a_delivery(SECOND, TASK)
    record = claiming_record(
        delivery, TASK, SECOND, history=TASK.history, worker=Who("w1", "h1"), now=NOON
    )  # fmt: skip
    again = delivery._replace(delivered=2)
    assert what_next(claim_of(again, "h1"), SECOND, TASK, Stored(record, 50)) == ClaimAt(50, TASK.history)
    asked = what_next(claim_of(again, "h2"), SECOND, TASK, Stored(record, 50))
    assert asked == AskHolder(50, TASK.history, "w1", claim_of(delivery, "h1"), NOON)


SITUATIONS = [
    Stored(
        Record(
            state, attempt, worker="w1", claim=claim, handed_back=handed_back, due_at=NOON, outcome=outcome
        ),
        sequence=40,
    )
    for state, attempt, claim, handed_back, outcome in itertools.product(
        State,
        (1, 2, 3, 4),
        (
            None,
            *(a_claim(sequence, holder, stream)
              for sequence in (7, 8) for holder in ("mine", "other") for stream in (WORK, LATER)),
        ),
        (False, True),
        Outcome,
    )
]  # fmt: skip
"""All records there can be, as far as the decision can tell them apart."""

situations = st.sampled_from(SITUATIONS)
messages = st.builds(
    Claim, st.sampled_from((WORK, LATER)), st.sampled_from((7, 8)), st.sampled_from(("mine", "h2"))
)
attempts = st.integers(1, 4)


@pytest.mark.parametrize("attempt", [1, 2, 3, 4])
def test_whatever_is_found_a_claim_is_only_for_ones_own_attempt_and_on_what_was_found(attempt: int) -> None:
    for found in SITUATIONS:
        step = what_next(MINE, Flags(attempt, 30), TASK, found)
        if isinstance(step, ClaimAt):
            assert step.fence == found.sequence
            assert found.record.attempt == attempt
            assert not found.record.done
        if isinstance(step, ScheduleAgain):
            assert step.flags.attempt == found.record.attempt > attempt
        if isinstance(step, DropIt):
            assert found.record.state is State.RUN, "only a running attempt has a message to live on"
        assert isinstance(step, Ended) == found.record.done


@pytest.mark.parametrize("attempt", [1, 2, 3, 4])
def test_whatever_is_found_another_process_is_asked_unless_it_handed_back(attempt: int) -> None:
    for found in SITUATIONS:
        step = what_next(MINE, Flags(attempt, 30), TASK, found)
        record = found.record
        if isinstance(step, AskHolder):
            assert record.claim is not None
            assert step == AskHolder(found.sequence, record.history, "w1", record.claim)
            assert record.claim.holder != "mine"
            assert not record.handed_back
        elif isinstance(step, ClaimAt):
            assert not step.lost_worker
            if record.state is State.RUN:
                assert record.handed_back or (record.claim is not None and record.claim.holder == "mine")


@given(situations, messages, messages, attempts)
def test_of_two_messages_of_an_attempt_at_most_one_may_run_what_a_record_claims(
    found: Stored, one: Claim, other: Claim, attempt: int
) -> None:
    if found.record.state is State.RUN and (one.stream, one.sequence) != (other.stream, other.sequence):
        flags = Flags(attempt, 30)
        steps = [what_next(message, flags, TASK, found) for message in (one, other)]
        assert sum(isinstance(step, ClaimAt | AskHolder) for step in steps) <= 1


@given(situations, messages, attempts, st.integers(0, 99))
def test_the_fence_a_message_came_with_does_not_matter_once_the_record_is_known(
    found: Stored, mine: Claim, attempt: int, fence: int
) -> None:
    assert what_next(mine, Flags(attempt, fence), TASK, found) == what_next(mine, Flags(attempt), TASK, found)
