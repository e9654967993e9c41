from typing import Any

import pytest

from galley.envelope import INPUT_LIMIT
from galley.lanes import Lane
from galley_operator.intake.admission import Until, refusal
from tests.unit.galley_operator.intake.tasks import a_known_queue, a_situation

NO_HANDLERS = a_known_queue(handlers=frozenset())
COMMANDS = a_known_queue(handlers=frozenset({"list", "copy"}))


@pytest.mark.parametrize(
    "situation",
    [
        a_situation(),
        a_situation(priority="low", deadline="2026-03-01T08:30:01Z", input={"a": 1}),
        a_situation(COMMANDS, handler="list"),
        a_situation(input="x" * (INPUT_LIMIT - 2)),
    ],
    ids=["plain", "low and in time", "a command of the queue", "as large as may be"],
)
def test_a_task_with_nothing_against_it_is_let_in(situation: Any) -> None:
    assert refusal(situation) is None


@pytest.mark.parametrize(
    ("situation", "reason", "words", "until"),
    [
        (a_situation(no_queue=True), "QueueNotFound", "no TaskQueue 'thumbs'", Until.QUEUE_CHANGES),
        (a_situation(priority="critical"), "LaneNotEnabled", "but high, normal, low", Until.QUEUE_CHANGES),
        (a_situation(COMMANDS), "HandlerNotFound", "but copy, list;", Until.QUEUE_CHANGES),
        (a_situation(NO_HANDLERS), "HandlerNotFound", "and no others", Until.QUEUE_CHANGES),
        (a_situation(deadline="2026-03-01T08:30:00Z"), "DeadlineExceeded", "08:30:00", Until.NEVER),
        (a_situation(input="x" * INPUT_LIMIT), "InputInvalid", f"limit is {INPUT_LIMIT}", Until.NEVER),
    ],
)
def test_a_task_that_is_not_let_in_is_told_why_and_what_has_to_happen(
    situation: Any, reason: str, words: str, until: Until
) -> None:
    no = refusal(situation)
    assert no is not None
    assert (no.reason, no.until) == (reason, until)
    assert words in no.message


def test_what_can_never_work_is_told_before_what_may_yet_change() -> None:
    no = refusal(a_situation(no_queue=True, deadline="2026-03-01T00:00:00Z"))
    assert no is not None
    assert no.until is Until.NEVER


def test_a_task_waits_for_the_lane_its_queue_has_not() -> None:
    urgent = a_situation(a_known_queue(lanes=(Lane.CRITICAL,)), priority="critical")
    assert refusal(urgent) is None
