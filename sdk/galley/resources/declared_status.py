"""The status of a Task object: how far it has come, and its outcome."""

from typing import Annotated, Final

from pydantic import AwareDatetime, Field, JsonValue

from galley.note import TEXT_LIMIT
from galley.resources.condition import Condition
from galley.resources.meta import Number, Part, Whole
from galley.resources.rule import keyed_by
from galley.task_status import Phase

INLINE_RESULT_LIMIT: Final = 16 * 1024
"""Bytes of JSON a result may have to stand in the object itself: it is kept by etcd."""

TRACEBACK_LIMIT: Final = 4096
"""Characters of a traceback kept in the object, its end; `galley show` prints all of it."""

FINISHED: Final = "Finished"
"""The type of the condition that is True once the Task has ended, however it ended."""

SUCCEEDED: Final = "Succeeded"
"""The type of the condition that is Unknown until the Task has ended, then True or False for good."""

_MOST = 2**53 - 1


class DeclaredFailure(Part):
    """Why a task, or its last attempt, did not succeed."""

    reason: str = Field(max_length=64)
    """Why, as one word in CamelCase; the page on errors explains each."""

    message: str = Field("", max_length=4096)
    """What happened, in words."""

    traceback: str = Field("", max_length=TRACEBACK_LIMIT)
    """End of the handler's traceback; `galley show` prints all of it, and those of earlier attempts."""


class DeclaredProgress(Part):
    """How far the present or last attempt is, as its handler says."""

    fraction: Annotated[Number, Field(ge=0, le=1)] | None = None
    """From 0 to 1; left out if the handler gave only a text."""

    note: str = Field("", max_length=4 * TEXT_LIMIT)
    """Text from the handler."""


class DeclaredStatus(Part):
    """How far a declared task has come.

    Written when it is queued and when it has ended; between the two it may be behind `galley show`.
    """

    observed_generation: Whole | None = Field(None, ge=0, le=_MOST)
    """Generation of the task that was looked at last."""

    phase: Phase | None = None
    """Where the task is in its life, in one word; made from the rest, for columns and selectors."""

    conditions: tuple[Condition, ...] = Field((), max_length=8, json_schema_extra=keyed_by("type"))
    """`Succeeded` is Unknown until the task has ended, then True or False until it is redriven. `Finished`
    is False until the task has ended, then True, whether it succeeded, failed or was cancelled."""

    attempts: Whole | None = Field(None, ge=0, le=_MOST)
    """Number of the present or last attempt."""

    progress: DeclaredProgress | None = None
    """How far the present or last attempt is; written at most once a second, and only if the handler reports
    progress. Left out for encrypted queues: `galley show` with their keys prints it."""

    queued_time: AwareDatetime | None = None
    """Time at which the broker had taken the task in."""

    start_time: AwareDatetime | None = None
    """Time at which the last attempt began."""

    completion_time: AwareDatetime | None = None
    """Time at which the task ended."""

    worker: str | None = Field(None, max_length=253)
    """Pod that ran the last attempt."""

    result: JsonValue = None
    """What the handler returned, where that takes at most 16 KiB as JSON; left out where it is null."""

    result_bytes: Annotated[Whole, Field(ge=0, le=_MOST)] | None = None
    """Size of a result that is too large to stand here; `galley show QUEUE/NAME -o json` prints it."""

    error: DeclaredFailure | None = None
    """Why the task, or its last attempt, did not succeed."""
