"""The status of a Workflow, from what the broker has of it. Pure: the time is an argument."""

from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from galley.errors import GalleyError
from galley.resources.condition import Condition, Truth, with_condition
from galley.resources.declared_status import FINISHED, SUCCEEDED, DeclaredFailure
from galley.resources.workflow import DeclaredWorkflowStatus
from galley.unreadable import UNREADABLE
from galley.workflows import WorkflowStatus

PENDING, RUNNING, FAILED, CANCELLED = "Pending", "Running", "Failed", "Cancelled"

_MESSAGE_LENGTH: Final = 1000


class Seen(Struct, frozen=True):
    """What was found of a workflow."""

    view: WorkflowStatus
    reason: str = ""
    """Why it failed, as one word."""
    result: Raw | UnsetType = UNSET
    """What it came to, if that can be shown."""


def seen(
    before: DeclaredWorkflowStatus, generation: int, found: Seen, now: datetime
) -> DeclaredWorkflowStatus:
    """Return the status of a workflow that the broker has."""
    view = found.view
    reason = found.reason or view.phase
    message = view.message or f"{view.progress} steps have ended"
    fields: dict[str, Any] = {
        "phase": view.phase, "queue": view.queue, "workflow": view.id, "progress": view.progress,
        "steps": view.steps, "succeeded": view.succeeded, "failed": view.failed + view.cancelled,
        "skipped": view.skipped, "failed_step": view.failed_step or None, "start_time": view.created_at,
        "deadline": view.deadline, "completion_time": view.ended_at,
    }  # fmt: skip
    if view.phase == FAILED:
        fields["error"] = DeclaredFailure(reason=reason, message=view.message[:4096])
    if found.result is not UNSET:
        # Handlers return what they like; one that is nested too deeply is left where it is.
        with suppress(*UNREADABLE):
            fields["result"] = msgspec.json.decode(found.result)
    return _status(before, generation, fields, reason, message, now)


def waits(
    before: DeclaredWorkflowStatus, generation: int, problem: GalleyError, now: datetime
) -> DeclaredWorkflowStatus:
    """Return the status of a workflow that cannot be submitted now, or is not found now."""
    fields = {"phase": before.phase or PENDING}
    return _status(before, generation, fields, problem.reason, _said(problem), now)


def failed(
    before: DeclaredWorkflowStatus, generation: int, problem: GalleyError, now: datetime
) -> DeclaredWorkflowStatus:
    """Return the status of a workflow that does not run, now or later."""
    error = DeclaredFailure(reason=problem.reason, message=_said(problem)[:4096])
    fields = {"phase": FAILED, "error": error, "completion_time": now}
    return _status(before, generation, fields, problem.reason, _said(problem), now)


def written(status: DeclaredWorkflowStatus) -> dict[str, Any]:
    """Return a status as the API server has it."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def _said(problem: GalleyError) -> str:
    return f"{problem}; {problem.hint}" if problem.hint else str(problem)


def _status(  # noqa: PLR0917 - what it follows from
    before: DeclaredWorkflowStatus,
    generation: int,
    fields: dict[str, Any],
    reason: str,
    message: str,
    now: datetime,
) -> DeclaredWorkflowStatus:
    phase = fields["phase"]
    over = phase in {"Succeeded", FAILED, CANCELLED}
    succeeded = Truth.UNKNOWN if not over else Truth.TRUE if phase == "Succeeded" else Truth.FALSE
    conditions = before.conditions
    for kind, truth in ((SUCCEEDED, succeeded), (FINISHED, Truth.TRUE if over else Truth.FALSE)):
        fresh = Condition(
            type=kind, status=truth, reason=reason, message=message[:_MESSAGE_LENGTH],
            last_transition_time=now, observed_generation=generation,
        )  # fmt: skip
        conditions = with_condition(conditions, fresh)
    return before.model_copy(update={"observed_generation": generation, "conditions": conditions, **fields})
