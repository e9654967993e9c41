"""What a task carries of its past."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from galley.history import (
    KEPT_ATTEMPTS,
    MESSAGE_LIMIT,
    NO_HISTORY,
    TRACEBACK_LIMIT,
    EndedBy,
    History,
    PastAttempt,
)  # fmt: skip

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def _past(number: int, ended_by: EndedBy = EndedBy.ERROR, message: str = "no such picture") -> PastAttempt:
    return PastAttempt(number, ended_by, "ValueError", message, "w-1", NOON)


@pytest.mark.parametrize(
    ("ended_by", "counted"),
    [
        (EndedBy.ERROR, (1, 0, 0)),
        (EndedBy.CRASH, (0, 1, 0)),
        (EndedBy.PREEMPTION, (0, 0, 1)),
    ],
)
def test_errors_crashes_and_preemptions_are_counted_apart(
    ended_by: EndedBy, counted: tuple[int, int, int]
) -> None:
    history = NO_HISTORY.with_attempt(_past(1, ended_by))
    assert (history.errors, history.crashes, history.preemptions) == counted


@given(st.lists(st.sampled_from(EndedBy), max_size=40))
def test_counts_are_whole_however_many_attempts_are_kept_in_words(endings: list[EndedBy]) -> None:
    history = NO_HISTORY
    for number, ended_by in enumerate(endings, 1):
        history = history.with_attempt(_past(number, ended_by))
    assert history.errors == endings.count(EndedBy.ERROR)
    assert history.crashes == endings.count(EndedBy.CRASH)
    assert history.preemptions == endings.count(EndedBy.PREEMPTION)
    kept = [past.number for past in history.attempts]
    assert kept == list(range(1, len(endings) + 1))[-KEPT_ATTEMPTS:]


def test_a_long_message_is_cut_so_that_a_task_stays_small() -> None:
    history = NO_HISTORY.with_attempt(_past(1, message="x" * (MESSAGE_LIMIT + 1)))
    assert history.attempts[0].message == "x" * MESSAGE_LIMIT


def test_adding_an_attempt_leaves_the_history_before_it_alone() -> None:
    before = History(errors=1)
    before.with_attempt(_past(2))
    assert before == History(errors=1)


@given(st.text("ab\n", max_size=3 * TRACEBACK_LIMIT))
def test_each_attempt_keeps_the_end_of_its_traceback_in_whole_lines(traceback: str) -> None:
    history = NO_HISTORY
    for number in range(3):
        history = history.with_attempt(replace(_past(number + 1), traceback=traceback))
    for past in history.attempts:
        assert len(past.traceback) <= TRACEBACK_LIMIT
        if len(traceback) <= TRACEBACK_LIMIT:
            assert past.traceback == traceback
        else:
            head, _, kept = past.traceback.partition("\n")
            assert head == "..."
            assert traceback.endswith(kept)
            before = traceback[: len(traceback) - len(kept)]
            assert before.endswith("\n") or "\n" not in traceback[4 - TRACEBACK_LIMIT :]
