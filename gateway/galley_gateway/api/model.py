"""What operations take and answer, as types.

Requests are read into them, and the OpenAPI document shows them.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from galley.bounds import HANDLER_PATTERN, NAME_PATTERN
from galley.envelope import encode_input
from galley.event import DEFAULT_TYPE
from galley.handler import Call, check_handler_name
from galley.json_value import encode_value
from galley.lanes import Lane
from galley.note import LogLine
from galley.reference import INLINE_LIMIT, LARGEST
from galley.repeat import Repeat
from galley.retry import RetryPolicy
from galley.task_status import Phase
from galley.unique import Unique
from galley.when import When


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

    handler: Annotated[str, Meta(pattern=HANDLER_PATTERN, max_length=63, description="What runs.")]
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
    """What became of one of many tasks."""

    task: Submitted | UnsetType = UNSET
    problem: Problem | UnsetType = UNSET


class SubmittedMany(Struct, frozen=True, rename="camel"):
    """What became of many tasks, in their order."""

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
    input: Annotated[Any, Meta(description="Left out of a task that has ended.")] = None
    encrypted_with: Annotated[
        str, Meta(description="The key needed to read it; the gateway does not have it.")
    ] = ""
    failure: Failed | None = None
    errors: int = 0
    crashes: int = 0
    preemptions: int = 0
    past_attempts: list[Attempt] = []
    result: Annotated[Any, Meta(description="What the handler returned, if it succeeded.")] = UNSET
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


class LaneView(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A lane of a queue."""

    lane: Lane
    waiting: int
    running: int
    oldest_at: datetime | None = None


class WorkersView(Struct, frozen=True, rename="camel", omit_defaults=True):
    """The workers of a queue."""

    counts: dict[str, int] = {}
    reason: Annotated[str, Meta(description="Why there are as many as there are.")] = ""
    problem: Annotated[str, Meta(description="Why none takes tasks.")] = ""


class QueueDocument(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A queue."""

    name: str
    namespace: str
    lanes: list[Lane]
    held: Annotated[int, Meta(description="Tasks that are ready or running.")]
    later: Annotated[int, Meta(description="Tasks that are not due yet.")]
    backlog_limit: int
    paused: bool
    workers: WorkersView | None = None
    backlog: list[LaneView] | None = None


class QueueList(Struct, frozen=True):
    """The queues of a namespace, by name."""

    queues: list[QueueDocument]


class DeadLetterView(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A task that is not tried again."""

    id: str
    queue: str
    reason: str
    message: str
    died_at: datetime
    attempt: int
    lane: str
    handler: str = ""
    worker: str = ""
    submitted_at: datetime | None = None
    traceback: str = ""
    labels: dict[str, str] = {}
    input: Any = UNSET


class DeadLetterList(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Dead letters of a queue, oldest first."""

    dead_letters: list[DeadLetterView]
    total: int
    next: str = ""


class Which(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Which dead letters are meant; what is left out admits all."""

    handler: str | None = None
    reason: str | None = None
    labels: str | None = None


class Redrivens(Struct, frozen=True):
    """The ids of dead letters that run again."""

    redriven: list[str]


class NewSchedule(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A schedule to make, or to change."""

    task: NewTask
    repeat: Repeat
    suspended: bool | None = None


class ScheduleDocument(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A schedule, and how far it is."""

    name: str
    queue: str
    handler: str
    lane: Lane
    repeat: Repeat
    suspended: bool
    origin: str
    next_at: datetime | None = None
    last_at: datetime | None = None
    last_id: str = ""
    fired: int = 0
    skipped: int = 0
    problem: str = ""
    input: Any = UNSET


class ScheduleList(Struct, frozen=True):
    """The schedules of a queue, by name."""

    schedules: list[ScheduleDocument]


class AuditDocument(Struct, frozen=True):
    """One thing that was done."""

    time: datetime
    queue: str
    action: str
    task: str
    count: int | None
    user: str
    attested: bool
    writer: str
    origin: str
    detail: str


class AuditList(Struct, frozen=True, omit_defaults=True):
    """A page of what was done, newest first."""

    lines: list[AuditDocument]
    total: int
    next: str = ""


class NewEvent(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """An event to publish."""

    data: Annotated[Any, Meta(description="What handlers get as their input; any JSON up to 256 KiB.")] = None
    attributes: Annotated[
        dict[str, str | int | bool], Meta(description="What filters of subscriptions look at.")
    ] = {}
    id: Annotated[str | None, Meta(description="An id of your own, so that a repetition is safe.")] = None
    type: str = DEFAULT_TYPE
    source: str = "http"
    subject: str = ""
    key: Annotated[str, Meta(description="Events of one key keep their order where it is asked for.")] = ""


class PublishedView(Struct, frozen=True):
    """Where an event is."""

    topic: str
    id: str
    sequence: int


class SubscriptionView(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a queue does with the events of a topic."""

    name: str
    handler: str
    filter: str = ""
    lane: Lane = Lane.NORMAL
    input: Any = "data"
    ordered: bool = False


class SubscribedView(Struct, frozen=True, rename="camel"):
    """A queue that subscribes to a topic."""

    queue: str
    pending: Annotated[int, Meta(description="Events that are not copied into the queue yet.")]
    subscriptions: list[SubscriptionView]


class TopicDocument(Struct, frozen=True, rename="camel"):
    """A topic."""

    name: str
    events: Annotated[int, Meta(description="Events that are kept.")]
    retention_seconds: int
    retention_bytes: int
    origin: str
    queues: list[SubscribedView]


class TopicList(Struct, frozen=True):
    """The topics of a namespace, by name."""

    topics: list[TopicDocument]


class StepView(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A step of a workflow."""

    name: str
    state: Annotated[
        str, Meta(description="`Waiting` (or running), `Succeeded`, `Failed`, `Cancelled` or `Skipped`.")
    ]
    queue: str
    task_id: Annotated[str, Meta(description="Its task, once all before it have succeeded.")]
    after: Annotated[
        list[str], Meta(description="What it depends on; of a wide group the first and the last.")
    ] = []


class WorkflowDocument(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A workflow, and how far it is."""

    id: str
    queue: str
    phase: Annotated[str, Meta(description="`Running`, `Succeeded`, `Failed` or `Cancelled`.")]
    steps: int
    succeeded: int
    failed: int
    skipped: int
    cancelled: int
    created_at: datetime
    deadline: datetime
    ended_at: datetime | None = None
    failed_step: str = ""
    message: str = ""
    continues: str = ""
    continued_by: str = ""
    labels: dict[str, str] = {}
    graph: list[StepView] | None = None


class NewStep(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A step of a workflow."""

    name: Annotated[str, Meta(pattern=NAME_PATTERN, max_length=63)]
    handler: Annotated[str, Meta(pattern=HANDLER_PATTERN, max_length=63)]
    queue_name: Annotated[str, Meta(description="Its queue; that of the path if left out.")] = ""
    input: Annotated[
        Any,
        Meta(description="An argument `${steps.NAME.result}` is the result of that step, or a part of it."),
    ] = {}
    depends_on: Annotated[list[str], Meta(description="Further steps that have to succeed first.")] = []
    priority: Lane = Lane.NORMAL
    timeout_seconds: int | None = None
    retry: Annotated[dict[str, Any] | None, Meta(description="As `spec.retry` of a Task.")] = None


class NewWorkflow(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A workflow to submit: the steps of a Workflow manifest."""

    steps: Annotated[list[NewStep], Meta(min_length=1, max_length=1000)]
    id: Annotated[str | None, Meta(description="An id of your own, so that a repetition is safe.")] = None
    labels: dict[str, str] | None = None
    on_failure: Literal["stop", "continue", "collect"] = "stop"
    timeout_seconds: int = 86_400

    def spec(self, queue: str) -> dict[str, Any]:
        """Return it as the `spec` of a manifest.

        Args:
            queue: that of steps that name none.
        """
        steps = [
            {
                name: value
                for name, value in msgspec.to_builtins(each).items()
                if value is not None and name != "queueName"
            }
            | {"queueName": each.queue_name or queue}
            for each in self.steps
        ]
        return {"steps": steps, "onFailure": self.on_failure, "timeoutSeconds": self.timeout_seconds}


class WorkflowList(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A page of the workflows of a queue, newest first."""

    workflows: list[WorkflowDocument]
    total: int
    next: str = ""


def as_json(value: object) -> Raw:
    """Return a result as it travels."""
    return Raw(encode_value(value))


def shaped(document: dict[str, Any], shape: type[Any]) -> Any:
    """Return a document as a value of one of the types here."""
    return msgspec.convert(document, shape)
