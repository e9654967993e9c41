"""The status of a TaskSchedule object: when it fires next, and the outcome of its latest ticks."""

from typing import Annotated, Final

from pydantic import AwareDatetime, Field

from galley.resources.condition import Condition
from galley.resources.meta import Part, Whole
from galley.resources.rule import keyed_by
from galley.schedule import Action

_MOST: Final = 2**53 - 1

READY: Final = "Ready"
"""The type of the condition that is True while it fires at its ticks."""


class TickStatus(Part):
    """One tick, or several that were missed together."""

    time: AwareDatetime
    """When it was due; of several, the last one."""

    action: Action
    """Outcome: `Fired`, `Skipped` (the previous task had not ended), `Missed` or `Refused`."""

    task: str | None = Field(None, max_length=64)
    """Id of its task; `galley show QUEUE/ID` shows it."""

    count: Annotated[Whole, Field(ge=1, le=_MOST)] = 1
    """How many ticks."""

    message: str = Field("", max_length=256)
    """Why it did not fire."""


class TaskScheduleStatus(Part):
    """State of a schedule, up to a few seconds old."""

    observed_generation: Whole | None = Field(None, ge=0, le=_MOST)
    """Generation of the schedule that was looked at last."""

    conditions: tuple[Condition, ...] = Field((), max_length=8, json_schema_extra=keyed_by("type"))
    """`Ready` is True while it fires. Its reason is `Active`, `Suspended`, `Ended`, or why it cannot fire."""

    next_time: AwareDatetime | None = None
    """When it fires next."""

    last_time: AwareDatetime | None = None
    """The last tick that fired."""

    last_task: str | None = Field(None, max_length=64)
    """Id of its task."""

    fired: Whole | None = Field(None, ge=0, le=_MOST)
    """Ticks that fired so far."""

    skipped: Whole | None = Field(None, ge=0, le=_MOST)
    """Ticks that did not, whether they were missed or overlapped."""

    run_now: str | None = Field(None, max_length=256)
    """The value of the annotation `galley.dev/run-now` that was carried out last."""

    recent: tuple[TickStatus, ...] = Field((), max_length=100)
    """The latest ticks, newest first."""
