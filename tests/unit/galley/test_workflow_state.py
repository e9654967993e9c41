"""What is known of a workflow does not change when a message is repeated: the first word counts."""

from datetime import UTC, datetime

from galley.record import Outcome
from galley.workflow.state import Mark, Root, Slot, ended, with_mark, with_slot

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_a_step_keeps_its_first_mark() -> None:
    marks = with_mark("..", 1, Mark.SUCCEEDED)
    assert marks == ".s"
    assert with_mark(marks, 1, Mark.FAILED) == ".s"


def test_a_source_arrives_at_a_join_once() -> None:
    slots = with_slot((None, None), 0, Slot(task="first"))
    assert with_slot(slots, 0, Slot(task="second")) == (Slot(task="first"), None)


def test_a_workflow_ends_once() -> None:
    root = Root("one", 1, 1, (0,), 0, 0, NOW, NOW)
    cancelled = ended(root, Outcome.CANCELLED, NOW)
    assert ended(cancelled, Outcome.FAILED, NOW, "step") is cancelled
