"""The status of a TaskSchedule, from what the broker has of it. Pure: the time is an argument."""

from datetime import datetime
from typing import Any

from galley.errors import GalleyError
from galley.resources.condition import Condition, Truth, with_condition
from galley.resources.schedule_status import READY, TaskScheduleStatus, TickStatus
from galley.schedule import Schedule

_MESSAGE_LENGTH = 1000


def status_of(  # noqa: PLR0917 - what it follows from
    before: TaskScheduleStatus,
    generation: int,
    found: Schedule | None,
    problem: GalleyError | None,
    run_now: str,
    now: datetime,
) -> TaskScheduleStatus:
    """Return the status of a schedule.

    Args:
        before: as it stands.
        generation: of the object.
        found: what the broker has of it; None if nothing.
        problem: why it is not what the object says; None if it is.
        run_now: the value of the annotation that was carried out last.
        now: the time.
    """
    truth, reason, message = _ready(found, problem)
    fresh = Condition(
        type=READY, status=truth, reason=reason, message=message[:_MESSAGE_LENGTH],
        last_transition_time=now, observed_generation=generation,
    )  # fmt: skip
    progress = found.progress if found is not None else None
    return TaskScheduleStatus(
        observed_generation=generation,
        conditions=with_condition(before.conditions, fresh),
        next_time=found.next_at if found is not None else None,
        last_time=progress.last_at if progress else None,
        last_task=(progress.last_id or None) if progress else None,
        fired=progress.fired if progress else None,
        skipped=progress.skipped if progress else None,
        run_now=run_now[:256] or None,
        recent=tuple(
            TickStatus(
                time=tick.at,
                action=tick.action,
                task=tick.id or None,
                count=tick.count,
                message=tick.why[:256],
            )
            for tick in (progress.recent if progress else ())
        ),
    )


def written(status: TaskScheduleStatus) -> dict[str, Any]:
    """Return a status as the API server has it."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def _ready(found: Schedule | None, problem: GalleyError | None) -> tuple[Truth, str, str]:
    if problem is not None:
        return Truth.FALSE, problem.reason, f"{problem}; {problem.hint}" if problem.hint else str(problem)
    if found is None:
        return Truth.UNKNOWN, "Pending", "it has not been looked at yet"
    if found.suspended:
        return Truth.FALSE, "Suspended", "spec.suspend, or galley schedule suspend"
    if found.next_at is None:
        return Truth.FALSE, "Ended", "it has no further tick"
    return Truth.TRUE, "Active", f"next at {found.next_at.isoformat()}"
