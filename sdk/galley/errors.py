"""Everything that can go wrong for a producer, as one tree.

    GalleyError
    ├── Invalid            what was passed in can never work
    │   ├── ManifestInvalid    a manifest, with its line and field
    │   ├── InputInvalid       not JSON, or too large
    │   ├── SubmissionInvalid  a task's id, times or retries
    │   ├── LabelInvalid       a label of a task
    │   ├── SelectorInvalid    an expression that selects by labels
    │   ├── ScheduleInvalid    a cron line, time zone or rule of a schedule
    │   ├── EventInvalid       an event, or a rule of a topic or a subscription
    │   │   └── FilterInvalid      the filter of a subscription
    │   ├── ProgressInvalid    not a fraction from 0 to 1
    │   ├── CheckpointInvalid  not JSON, or too large
    │   ├── HandlerUnusable    `@task` on something a worker cannot run
    │   ├── HandlerNameInvalid
    │   ├── HandlerExists      two functions with one handler name
    │   ├── HandlersMissing    a queue without handlers
    │   ├── QueueNameInvalid
    │   ├── EnvelopeInvalid    bytes from the broker that Galley cannot read
    │   ├── ServerInvalid      not the address of a broker
    │   ├── CredentialsInvalid the credentials file cannot be used
    │   └── TlsInvalid         a file with certificates or a key cannot be used
    ├── Refused            the queue did not accept the task; nothing was stored
    │   ├── QueueNotFound
    │   ├── LaneNotEnabled
    │   ├── QueueFull
    │   ├── TopicFull
    │   ├── ScheduleTaken      the name is that of a schedule that is declared elsewhere
    │   └── TaskConflict       the id is in use for another handler or input
    ├── SubmitIncomplete   (in galley.batch) `submit_many` did not store every task
    │   ├── SomeRefused        (a Refused, too)
    │   └── SubmitInterrupted
    ├── ClientUnusable     the client cannot be used here
    │   ├── ClientClosed
    │   └── ClientElsewhere    it belongs to another event loop, thread or process
    ├── AttemptOver        progress or a checkpoint of a task that does not run here any more
    ├── WaitsForOwnQueue   a handler waits for a task of its own queue
    ├── WaitsInCircle      a handler waits for a task of a queue it descends from
    ├── TaskEnded          what `result()` raises when there is no result
    │   ├── TaskFailed
    │   └── TaskCancelled
    ├── TaskNotFound
    ├── DeadLetterNotFound
    ├── ScheduleNotFound
    ├── TopicNotFound
    ├── HopLimit           a handler publishes, for an event that came of too many others
    ├── ScheduleChanged    others changed a schedule at the same moment, again and again
    ├── NotRedrivable      a dead letter that cannot run again as it is
    ├── RedriveIncomplete  some of many dead letters were not redriven
    ├── CancelIncomplete   some of many tasks were not cancelled
    ├── DrainTimeout       tasks of a drained queue still run
    ├── ResultTimeout
    ├── ResultMismatch     the result is not of the annotated type
    └── BrokerError            (in galley.broker.errors) the broker could not do what was asked

Each error carries `reason`, a constant for metrics and conditions; `hint`, what to do about it; and the
values it is about as typed attributes, which its constructor takes. All errors can be pickled. A traceback
shows the hint as a note.
"""

from typing import Any, ClassVar


class GalleyError(Exception):
    """Base of all errors Galley raises.

    The message says what happened and to what; `hint` says what to do.
    """

    reason: ClassVar[str] = "GalleyError"
    hint: str = ""

    def __init__(self, message: str, hint: str | None = None) -> None:
        """Set the message, and the hint unless the class has one."""
        super().__init__(message)
        if hint is not None:
            self.hint = hint
        if self.hint:
            self.add_note(f"hint: {self.hint}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Constructors differ and may compute what they store, so the attributes travel instead.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[GalleyError], args: tuple[Any, ...], attributes: dict[str, Any]) -> GalleyError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class Invalid(GalleyError):
    """What was passed in can never work, however often it is tried."""

    reason = "Invalid"


class ManifestInvalid(Invalid):
    """A manifest does not follow the schema of its kind."""

    reason = "ManifestInvalid"

    def __init__(self, source: str, line: int, field: str, problem: str, hint: str = "") -> None:
        self.source, self.line, self.field, self.problem = source, line, field, problem
        place = f"{source}:{line}" if line else source
        super().__init__(f"{place}: {field}: {problem}" if field else f"{place}: {problem}", hint)


class InputInvalid(Invalid):
    """A task's input cannot be encoded as JSON, or exceeds the size limit."""

    reason = "InputInvalid"

    def __init__(self, handler: str, problem: str, hint: str) -> None:
        self.handler, self.problem = handler, problem
        super().__init__(f"input of handler {handler!r}: {problem}", hint)


class SubmissionInvalid(Invalid):
    """A task's id, queue, times or retry policy is not valid."""

    reason = "SubmissionInvalid"

    def __init__(self, field: str, problem: str, hint: str) -> None:
        self.field, self.problem = field, problem
        super().__init__(f"{field}: {problem}", hint)


class LabelInvalid(Invalid):
    """A label has not the syntax of Kubernetes, or a task has too many."""

    reason = "LabelInvalid"

    def __init__(self, key: str, problem: str, hint: str) -> None:
        self.key, self.problem = key, problem
        super().__init__(f"label {key}: {problem}", hint)


class SelectorInvalid(Invalid):
    """An expression that selects tasks by their labels cannot be read."""

    reason = "SelectorInvalid"
    hint = "write it as for kubectl -l: 'team=billing,tier!=low', 'team', '!team' or 'team in (a, b)'"

    def __init__(self, text: str, problem: str) -> None:
        self.text, self.problem = text, problem
        super().__init__(f"selector {text[:200]!r}: {problem}")


class ScheduleInvalid(Invalid):
    """A schedule can never fire, or contradicts itself: its cron line, time zone, start, end or rules."""

    reason = "ScheduleInvalid"

    def __init__(self, field: str, problem: str, hint: str) -> None:
        """Args: field: which part of it; problem: what is wrong with it; hint: what to do."""
        super().__init__(f"{field}: {problem}", hint)
        self.field, self.problem = field, problem


class EventInvalid(Invalid):
    """An event, or a rule of a topic or a subscription, can never work."""

    reason = "EventInvalid"

    def __init__(self, field: str, problem: str, hint: str) -> None:
        """Args: field: which part of it; problem: what is wrong with it; hint: what to do."""
        super().__init__(f"{field}: {problem}", hint)
        self.field, self.problem = field, problem


class FilterInvalid(EventInvalid):
    """The filter of a subscription cannot be used."""

    reason = "FilterInvalid"

    def __init__(self, text: str, problem: str) -> None:
        """Args: text: the filter; problem: what is wrong with it, and where."""
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        super().__init__(
            "filter", f"{shown!r}: {problem}",
            'write it as: type == "reading" && attributes.region in ["eu", "us"]',
        )  # fmt: skip
        self.text = text


class ProgressInvalid(Invalid):
    """A progress is not a fraction from 0 to 1 with a text."""

    reason = "ProgressInvalid"
    hint = 'pass a fraction from 0 to 1, a text, or both: progress(0.4, "page 40 of 100")'

    def __init__(self, value: str) -> None:
        self.value = value
        super().__init__(f"progress {value[:80]} is not a fraction from 0 to 1 and a text")


class CheckpointInvalid(Invalid):
    """A checkpoint cannot be encoded as JSON, or exceeds the size limit. The one before it stays."""

    reason = "CheckpointInvalid"

    def __init__(self, task_id: str, problem: str, hint: str) -> None:
        self.task_id, self.problem = task_id, problem
        super().__init__(f"checkpoint of task {task_id}: {problem}", hint)


class HandlerUnusable(Invalid):
    """`@task` was used on something that a worker cannot run as a handler."""

    reason = "HandlerUnusable"

    def __init__(self, what: str, problem: str, hint: str) -> None:
        self.what, self.problem = what, problem
        super().__init__(f"{what} cannot be a handler: {problem}", hint)


class HandlerNameInvalid(Invalid):
    """A handler's name has characters or a length that a task may not carry."""

    reason = "HandlerNameInvalid"
    hint = (
        "use 1 to 63 ASCII letters, digits, '_', '-' and '.', starting and ending with a letter or digit; "
        "@task(name=...) sets the name"
    )

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"handler name {name[:80]!r} is not allowed")


class HandlerExists(Invalid):
    """Two functions of one queue have the same handler name."""

    reason = "HandlerExists"

    def __init__(self, queue: str, name: str, first: str, second: str, hint: str = "") -> None:
        self.queue, self.name, self.first, self.second = queue, name, first, second
        super().__init__(
            f"handler {name!r} of queue {queue!r} is both {first} and {second}",
            hint or "give one of them another name: @task(name=...)",
        )


class HandlersMissing(Invalid):
    """A queue has no handlers, so none of its tasks can run."""

    reason = "HandlersMissing"

    def __init__(self, queue: str, modules: str = "") -> None:
        self.queue, self.modules = queue, modules
        if not modules:
            super().__init__(
                f"queue {queue!r} has no handlers",
                "name modules in spec.worker.modules, or add spec.handlers.commands",
            )
            return
        super().__init__(
            f"queue {queue!r} has no handlers: {modules} imported, without a @task for this queue",
            f"put @task, or @task(queue={queue!r}), on a function of a module in spec.worker.modules; "
            "a function that names another queue is a handler of that one alone",
        )


class QueueNameInvalid(Invalid):
    """A queue's name cannot be the name of a TaskQueue."""

    reason = "QueueNameInvalid"
    hint = "use 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit, as in the TaskQueue"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"queue name {name[:80]!r} is not allowed")


class EnvelopeInvalid(Invalid):
    """Bytes on a task subject are not a task of a version known here."""

    reason = "EnvelopeInvalid"
    hint = "see the dead letter for the raw bytes; publish tasks through a Galley client"

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"not a task: {problem}")


class ServerInvalid(Invalid):
    """The server's address is not a NATS URL."""

    reason = "ServerInvalid"
    hint = "write it as nats://HOST:4222 (--server, GALLEY_SERVER)"

    def __init__(self, server: str, problem: str) -> None:
        self.server, self.problem = server, problem
        super().__init__(f"{server!r} is not the address of a NATS server: {problem}")


class CredentialsInvalid(Invalid):
    """The credentials file for NATS cannot be read or is malformed."""

    reason = "CredentialsInvalid"
    hint = (
        "on a cluster it is the key nats.creds of the Secret galley-QUEUE-producer "
        "(or -worker, -manager); name the file with --credentials or GALLEY_CREDENTIALS"
    )

    def __init__(self, source: str, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(f"no credentials in {source}: {problem}")


class TlsInvalid(Invalid):
    """A file with certificates or a key for TLS cannot be used."""

    reason = "TlsInvalid"
    hint = (
        "name files in PEM: --tls-ca, --tls-certificate, --tls-key, or GALLEY_TLS_CA, "
        "GALLEY_TLS_CERTIFICATE, GALLEY_TLS_KEY"
    )

    def __init__(self, source: str, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(f"no TLS with {source}: {problem}")


class Refused(GalleyError):
    """The queue did not accept the task; nothing was stored."""

    reason = "Refused"


class QueueNotFound(Refused):
    """There is no queue of that name in the namespace."""

    reason = "QueueNotFound"
    hint = "check the name and the namespace, or declare a TaskQueue (`galley dev`, `kubectl apply`)"

    def __init__(self, namespace: str, queue: str) -> None:
        self.namespace, self.queue = namespace, queue
        super().__init__(f"there is no queue {queue!r} in namespace {namespace!r}")


class LaneNotEnabled(Refused):
    """The queue exists but does not serve that lane."""

    reason = "LaneNotEnabled"

    def __init__(self, queue: str, lane: str, enabled: tuple[str, ...]) -> None:
        self.queue, self.lane, self.enabled = queue, lane, enabled
        super().__init__(
            f"queue {queue!r} has no lane {str(lane)!r}",
            f"use one of {', '.join(enabled)}, or add {lane} to spec.lanes of the TaskQueue",
        )


class QueueFull(Refused):
    """The queue holds as much as its limits allow; nothing was stored.

    `quota` is the field of `spec.limits` that is used up; `current` and `limit` are None if not known.
    """

    reason = "QueueFull"

    def __init__(self, queue: str, quota: str, current: int | None = None, limit: int | None = None) -> None:
        self.queue, self.quota, self.current, self.limit = queue, quota, current, limit
        what = "tasks" if quota == "backlog" else "bytes"
        figures = "" if limit is None else f": {current} of {limit} {what}"
        super().__init__(
            f"queue {queue!r} is full{figures} (spec.limits.{quota})",
            f"wait and submit again, or raise spec.limits.{quota} of the TaskQueue",
        )


class TaskConflict(Refused):
    """The id belongs to another task: one with another handler or another input."""

    reason = "TaskConflict"
    hint = "use another id for other work; the same handler and input under the same id is the same task"

    def __init__(self, queue: str, task_id: str, differs: str) -> None:
        self.queue, self.task_id, self.differs = queue, task_id, differs
        super().__init__(f"queue {queue!r} has a task {task_id!r} already, with another {differs}")


class TopicFull(Refused):
    """The topics of the namespace have no room; the event was not stored."""

    reason = "TopicFull"
    hint = "publish again later: events make room as their retention passes; or raise spec.retention.bytes"

    def __init__(self, topic: str, problem: str = "") -> None:
        """Args: topic: name of the topic; problem: what the server says."""
        super().__init__(f"topic {topic!r} has no room{f': {problem}' if problem else ''}")
        self.topic, self.problem = topic, problem


class ScheduleTaken(Refused):
    """The queue has a schedule of that name that is declared elsewhere, and nothing was changed."""

    reason = "ScheduleTaken"

    def __init__(self, queue: str, name: str, origin: str) -> None:
        """Args: queue: name of the queue; name: of the schedule; origin: `client`, `code` or `object`."""
        where = {
            "code": "by @task(cron=...)", "object": "as a TaskSchedule", "client": "by a client"
        }  # fmt: skip
        super().__init__(
            f"schedule {name!r} of queue {queue!r} is declared {where.get(origin, origin)}",
            "change it there, or use another name",
        )
        self.queue, self.name, self.origin = queue, name, origin


class UniqueConflict(Refused):
    """Another task has the unique key; nothing was stored.

    `task_id` names that task, and `state` says whether it `waits` or `has begun`.
    """

    reason = "UniqueConflict"

    def __init__(self, queue: str, key: str, task_id: str, state: str) -> None:
        self.queue, self.key, self.task_id, self.state = queue, key, task_id, state
        super().__init__(
            f"queue {queue!r} has a task of the unique key {key[:80]!r}: {task_id}, which {state}",
            "wait for it (`client.handle(queue, task_id)`), or submit with on_conflict='existing', or "
            "'replace' if it has not begun",
        )


class ClientUnusable(GalleyError):
    """A client or a handle was used where it cannot work."""

    reason = "ClientUnusable"


class ClientClosed(ClientUnusable):
    """A client, or a handle it returned, was used outside the `async with` block of the client."""

    reason = "ClientClosed"
    hint = "use it inside its `with` block; afterwards make another: galley.Client() or galley.AsyncClient()"

    def __init__(self, server: str) -> None:
        self.server = server
        super().__init__(f"the client for NATS at {server} is closed")


class ClientElsewhere(ClientUnusable):
    """A client, or a handle it returned, was used in another event loop, thread or process."""

    reason = "ClientElsewhere"
    hint = (
        "open it where it is used: `async with galley.AsyncClient() as client:`; or use galley.Client(), "
        "which works in every thread and after a fork"
    )

    def __init__(self, server: str, place: str) -> None:
        self.server, self.place = server, place
        super().__init__(f"the client for NATS at {server} was opened in {place}")


class NonRetryable(Exception):
    """Raised by a handler, itself or a subclass: another attempt cannot end differently.

    The task becomes a dead letter at once, with this exception's name, message and traceback.
    """


class RetryAfter(Exception):
    """Raised by a handler: this attempt failed, and the next one begins after so many seconds.

    It takes the place of the backoff of the retry policy, whose number of attempts still holds. For what says
    when to come back, such as a server that answers with `Retry-After`.
    """

    def __init__(self, seconds: float, message: str = "") -> None:
        """Set the pause.

        Args:
            seconds: 0 to 86,400; a value out of range is taken to its end.
            message: what happened, for the task's history.
        """
        self.seconds = float(seconds)
        super().__init__(message or f"try again in {self.seconds:g} s")


class Snooze(Exception):
    """Raised by a handler: not yet; run this attempt again after so many seconds.

    It is not an error and costs no attempt. A task that has a deadline fails if it would begin after it.
    """

    def __init__(self, seconds: float, message: str = "") -> None:
        """Set the pause.

        Args:
            seconds: 0 to 86,400; a value out of range is taken to its end.
            message: what it waits for, for people who look at the task.
        """
        self.seconds = float(seconds)
        super().__init__(message or f"snoozed for {self.seconds:g} s")


class AttemptOver(GalleyError):
    """Progress or a checkpoint was reported for an attempt that does not run here."""

    reason = "AttemptOver"
    hint = "report from the process of the handler, and before the handler returns"

    def __init__(self, task_id: str, attempt: int) -> None:
        self.task_id, self.attempt = task_id, attempt
        super().__init__(f"attempt {attempt} of task {task_id} does not run in this process")


class WaitsForOwnQueue(GalleyError, NonRetryable):
    """A handler waits for a task of its own queue, and holds a slot that task may need."""

    reason = "WaitsForOwnQueue"
    hint = (
        "let the last subtask submit the next step, or give the subtasks a queue of their own. If the queue "
        "always has more slots than tasks that wait, use result(hold_slot=True)"
    )

    def __init__(self, queue: str, task_id: str) -> None:
        self.queue, self.task_id = queue, task_id
        super().__init__(
            f"a handler of queue {queue!r} waits for task {task_id} of the same queue: when all slots wait "
            "like this, none of these tasks can start"
        )


class WaitsInCircle(GalleyError, NonRetryable):
    """A handler waits for a task of a queue whose handlers it descends from, and which may wait for it."""

    reason = "WaitsInCircle"
    hint = (
        "let the last subtask submit the next step, instead of waiting for it. If no handler of that queue "
        "waits for this task, use result(hold_slot=True)"
    )

    def __init__(self, queue: str, task_id: str, circle: tuple[str, ...]) -> None:
        self.queue, self.task_id, self.circle = queue, task_id, circle
        super().__init__(
            f"a handler of {circle[-1]} waits for task {task_id} of queue {queue!r}, from which its own task "
            f"descends ({' > '.join((*circle, circle[0]))}): when all slots wait like this, none of these "
            "tasks can end"
        )


class TaskEnded(GalleyError):
    """The task ended without a result."""

    reason = "TaskEnded"


class TaskFailed(TaskEnded):
    """The task failed and will not be retried; it is kept as a dead letter."""

    reason = "TaskFailed"

    def __init__(self, task_id: str, why: str, message: str) -> None:
        self.task_id, self.why, self.message = task_id, why, message
        super().__init__(
            f"task {task_id} failed ({why}): {message}", f"galley show {task_id} shows each attempt"
        )


class TaskCancelled(TaskEnded):
    """The task was cancelled, or another one took its place."""

    reason = "TaskCancelled"

    def __init__(self, task_id: str, why: str = "") -> None:
        self.task_id, self.why = task_id, why
        super().__init__(f"task {task_id} was cancelled{': ' if why else ''}{why}")


class TaskNotFound(GalleyError):
    """Neither a waiting task nor a record has that id."""

    reason = "TaskNotFound"
    hint = "check the id and the queue; records expire after spec.retention.resultsSeconds"

    def __init__(self, queue: str, task_id: str) -> None:
        self.queue, self.task_id = queue, task_id
        super().__init__(f"there is no task {task_id!r} in queue {queue!r}")


class DeadLetterNotFound(GalleyError):
    """A queue keeps no dead letter of that id."""

    reason = "DeadLetterNotFound"
    hint = (
        "it was redriven or dropped, has expired, or its task did not fail: `galley show QUEUE/ID` shows the "
        "task, `galley dead list QUEUE` the dead letters there are"
    )

    def __init__(self, queue: str, task_id: str) -> None:
        self.queue, self.task_id = queue, task_id
        super().__init__(f"queue {queue!r} keeps no dead letter of a task {task_id!r}")


class ScheduleNotFound(GalleyError):
    """The queue has no schedule of that name."""

    reason = "ScheduleNotFound"
    hint = "list them: galley get schedules; is it the right queue and namespace?"

    def __init__(self, queue: str, name: str) -> None:
        """Args: queue: name of the queue; name: name of the schedule."""
        super().__init__(f"queue {queue!r} has no schedule {name!r}")
        self.queue, self.name = queue, name


class TopicNotFound(GalleyError):
    """The namespace has no topic of that name."""

    reason = "TopicNotFound"
    hint = "list them: galley get topics; declare it as a Topic; is it the right namespace?"

    def __init__(self, namespace: str, topic: str) -> None:
        """Args: namespace: of the topic; topic: its name."""
        super().__init__(f"namespace {namespace!r} has no topic {topic!r}")
        self.namespace, self.topic = namespace, topic


class HopLimit(GalleyError):
    """A handler publishes an event, and its own task came of too many events, one after the other."""

    reason = "HopLimit"
    hint = "a handler may not publish what leads to its own task again without an end"

    def __init__(self, topic: str, hops: int) -> None:
        """Args: topic: name of the topic; hops: how many events led to the task."""
        super().__init__(f"nothing was published to topic {topic!r}: {hops} events led to this task already")
        self.topic, self.hops = topic, hops


class ScheduleChanged(GalleyError):
    """A schedule was changed by others each time it was to be changed; nothing was done."""

    reason = "ScheduleChanged"
    hint = "is something else changing it all the time? Try again"

    def __init__(self, queue: str, name: str) -> None:
        """Args: queue: name of the queue; name: name of the schedule."""
        super().__init__(f"schedule {name!r} of queue {queue!r} changed at the same moment, several times")
        self.queue, self.name = queue, name


class NotRedrivable(GalleyError):
    """A dead letter cannot run again as it is; it stays where it is."""

    reason = "NotRedrivable"

    def __init__(self, queue: str, task_id: str, problem: str, advice: str) -> None:
        self.queue, self.task_id, self.problem, self.advice = queue, task_id, problem, advice
        super().__init__(f"the dead letter {queue}/{task_id} cannot be redriven: {problem}", advice)


class RedriveIncomplete(GalleyError):
    """Not all of many dead letters were redriven; `__cause__` says why. The rest stay as they are."""

    reason = "RedriveIncomplete"
    hint = "solve the cause and redrive again: those that were redriven are not run twice"

    def __init__(self, queue: str, redriven: list[str], left: int, problem: str) -> None:
        self.queue, self.redriven, self.left, self.problem = queue, redriven, left, problem
        super().__init__(
            f"{len(redriven)} dead letters of queue {queue!r} were redriven, {left} were not: {problem}"
        )


class ResultMismatch(GalleyError):
    """A task succeeded, and what its handler returned is not of the type in its annotation."""

    reason = "ResultMismatch"
    hint = (
        "do the producer and the worker have the same version of the handler, and does it return what its "
        "annotation says? `galley show ID` prints the result"
    )

    def __init__(self, task_id: str, problem: str) -> None:
        self.task_id, self.problem = task_id, problem
        super().__init__(f"the result of task {task_id} is not what its handler's annotation says: {problem}")


class CancelIncomplete(GalleyError):
    """Of many tasks that were to be cancelled, not all were."""

    reason = "CancelIncomplete"
    hint = "do it again: it goes on with those that are left"

    def __init__(self, queue: str, cancelled: list[str], left: int, problem: str) -> None:
        self.queue, self.cancelled, self.left, self.problem = queue, cancelled, left, problem
        super().__init__(
            f"{len(cancelled)} tasks of queue {queue!r} were cancelled, {left} were not; the first: {problem}"
        )


class DrainTimeout(GalleyError):
    """Tasks of a queue that is drained still run; the queue is paused."""

    reason = "DrainTimeout"
    hint = "wait for them with `galley drain`, cancel them, or start tasks again with `galley resume`"

    def __init__(self, queue: str, seconds: float, held: int) -> None:
        self.queue, self.seconds, self.held = queue, seconds, held
        super().__init__(f"queue {queue!r} is paused, and {held} of its tasks still ran after {seconds:g} s")


class ResultTimeout(GalleyError):
    """The task had not ended when the caller stopped waiting; the task continues."""

    reason = "ResultTimeout"

    def __init__(self, task_id: str, seconds: float, worker_problem: str = "") -> None:
        self.task_id, self.seconds, self.worker_problem = task_id, seconds, worker_problem
        why = f"; {worker_problem}" if worker_problem else ""
        super().__init__(
            f"task {task_id} had not ended after {seconds:g} s{why}",
            f"wait longer, or check its progress: galley show {task_id}",
        )
