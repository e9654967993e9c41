"""A task, as operations take and answer it, and problems.

Requests are read into them, and the OpenAPI document shows them.
"""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from galley.bounds import HANDLER_PATTERN, strict
from galley.calls import Call, check_handler_name
from galley.envelope import encode_input
from galley.json_value import encode_value
from galley.lanes import Lane
from galley.note import LogLine
from galley.reference import INLINE_LIMIT, LARGEST
from galley.retry import RetryPolicy
from galley.task_status import Phase
from galley.unique import Unique
from galley.when import When

LISTED_BYTES: Final = 4096
"""Bytes of an input that a list of tasks has as well."""
SHOWN_BYTES: Final = 1024**2
"""Bytes of a result that is answered: decoded it takes many times that, and is one of all tenants."""


class NewUnique(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """At most one task of the queue has a key at a time."""

    key: Annotated[str, Meta(description="The key; left out, one is made of handler and input.")] | None = (
        None
    )
    until: Annotated[
        Literal["started", "finished"] | float,
        Meta(description="Until the task has started or finished, or for so many seconds."),
    ] = "finished"
    on_conflict: Annotated[
        Literal["reject", "existing", "replace"],
        Meta(description="What happens if another task has the key."),
    ] = "reject"


class NewTask(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A task to submit."""

    handler: Annotated[str, Meta(pattern=strict(HANDLER_PATTERN), max_length=63, description="What runs.")]
    input: Annotated[
        Any,
        Meta(description="For a Python function an object with its arguments by name; else any JSON."),
    ] = {}
    id: Annotated[
        str | None,
        Meta(description="An id of your own: the same handler and input under the same id is one task."),
    ] = None
    lane: Lane | None = None
    not_before: Annotated[datetime, Meta(tz=True)] | None = None
    deadline: Annotated[datetime, Meta(tz=True)] | None = None
    timeout_seconds: Annotated[float, Meta(description="Time one attempt may take.")] | None = None
    retry: RetryPolicy | None = None
    labels: dict[str, str] | None = None
    unique: NewUnique | None = None
    key: Annotated[
        str | None,
        Meta(description="Tasks of one key take turns with those of others; the queue may limit them."),
    ] = None

    def call(self, queue: str, task_id: str | None) -> Call[Any]:
        """Return it as the client takes it.

        Args:
            queue: its queue.
            task_id: an id from elsewhere, if it has none of its own.

        Raises:
            Invalid: if there can be no such task.
        """
        check_handler_name(self.handler)
        data = encode_input(self.handler, self.input, LARGEST)
        unique = self.unique
        when = When(
            self.lane, self.not_before, self.deadline, self.timeout_seconds, self.retry, self.labels,
            None if unique is None else Unique(
                key=unique.key, until=unique.until, on_conflict=unique.on_conflict
            ),
            self.key,
        )  # fmt: skip
        chosen = self.id or task_id
        call = Call[Any](queue, self.handler, data, large=len(data) > INLINE_LIMIT, rules=when)
        return call if chosen is None else call.options(task_id=chosen)


class NewTasks(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Tasks to submit together."""

    tasks: Annotated[list[NewTask], Meta(min_length=1, max_length=1000)]


class Submitted(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Where a submitted task is."""

    id: str
    namespace: str
    queue: str
    existed: Annotated[
        bool, Meta(description="Whether the task was there before; then nothing was added.")
    ] = False


class Problem(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    reason: Annotated[str, Meta(description="A constant in CamelCase, for programs.")]
    hint: Annotated[str, Meta(description="What to do about it.")] = ""
    instance: str = ""


class SubmittedOrProblem(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Outcome of the submission of one of many tasks."""

    task: Submitted | UnsetType = UNSET
    problem: Problem | UnsetType = UNSET


class SubmittedMany(Struct, frozen=True, rename="camel"):
    """Outcomes of the submission of many tasks, in order."""

    submitted: int
    refused: int
    tasks: list[SubmittedOrProblem]


class Failed(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Why a task failed."""

    reason: str
    message: str


class Progressed(Struct, frozen=True, rename="camel", omit_defaults=True):
    """How far a task is, as its handler says."""

    at: datetime
    fraction: float | None = None
    text: str = ""


class Attempt(Struct, frozen=True, rename="camel", omit_defaults=True):
    """An earlier attempt."""

    number: int
    ended_by: str
    reason: str = ""
    message: str = ""
    worker: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    traceback: str = ""


class TaskView(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A task as it stood when it was asked about."""

    id: str
    namespace: str
    queue: str
    lane: Lane
    phase: Phase
    handler: str = ""
    labels: dict[str, str] = {}
    attempt: int = 0
    worker: str = ""
    progress: Progressed | None = None
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    due_at: datetime | None = None
    deadline: datetime | None = None
    input: Annotated[
        Any,
        Meta(
            description="Left out of a task that has ended, and in a list if it is longer than "
            f"{LISTED_BYTES} bytes."
        ),
    ] = None
    encrypted_with: Annotated[
        str, Meta(description="The key needed to read it; the gateway does not have it.")
    ] = ""
    failure: Failed | None = None
    errors: int = 0
    crashes: int = 0
    preemptions: int = 0
    past_attempts: list[Attempt] = []
    result: Annotated[
        Any,
        Meta(
            description="What the handler returned, if it succeeded. Left out if it is longer than "
            f"{SHOWN_BYTES} bytes; `note` says so."
        ),
    ] = UNSET
    note: Annotated[str, Meta(description="Why nothing happens, as far as known.")] = ""


class TaskList(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A page of the tasks of a queue, newest first."""

    tasks: list[TaskView]
    total: Annotated[int, Meta(description="Tasks that fit, on all pages.")]
    next: Annotated[
        str, Meta(description="The parameter `continue` of the next page; empty on the last.")
    ] = ""


class Lines(Struct, frozen=True):
    """What a task's handler wrote, oldest first."""

    lines: list[LogLine]


class CancelView(Struct, frozen=True):
    """What a request to cancel came to."""

    outcome: str


class RedriveView(Struct, frozen=True):
    """What a request to run a task again came to."""

    outcome: str


def as_json(value: object) -> Raw:
    """Return a result as it travels."""
    return Raw(encode_value(value))


def shaped(document: dict[str, Any], shape: type[Any]) -> Any:
    """Return a document as a value of one of the types here."""
    return msgspec.convert(document, shape)
