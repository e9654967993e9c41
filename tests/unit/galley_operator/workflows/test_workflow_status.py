from datetime import UTC, datetime, timedelta

from msgspec import Raw

from galley.resources.workflow import DeclaredWorkflowStatus
from galley.workflows import WorkflowStatus
from galley_operator.workflows.status import Seen, seen

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
VIEW = WorkflowStatus("images", "one", "Succeeded", 1, 1, 0, 0, 0, NOON, NOON + timedelta(hours=1), NOON)


def test_a_result_is_shown_unless_it_is_nested_too_deeply_for_that() -> None:
    flat = seen(DeclaredWorkflowStatus(), 1, Seen(VIEW, result=Raw(b"[1]")), NOON)
    deep = seen(DeclaredWorkflowStatus(), 1, Seen(VIEW, result=Raw(b"[" * 5000 + b"]" * 5000)), NOON)
    assert flat.result == [1]
    assert deep.result is None
    assert deep.phase == flat.phase == "Succeeded"
