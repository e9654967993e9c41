"""Everything that can go wrong for a producer, as one tree.

    GalleyError
    ├── Invalid            what was handed in can never work
    │   ├── ManifestInvalid    a file, with its line and field
    │   ├── InputInvalid       not JSON, or too large
    │   ├── SubmissionInvalid  its id, times or retries
    │   ├── EnvelopeInvalid    bytes on our subjects that are not ours
    │   ├── ServerInvalid      no address of a broker
    │   └── CredentialsInvalid no file that says who we are
    ├── Refused            the queue said no; nothing was accepted
    │   ├── QueueNotFound
    │   ├── LaneNotEnabled
    │   └── QueueFull
    ├── TaskEnded          what `result()` raises when there is no result
    │   ├── TaskFailed
    │   └── TaskCancelled
    ├── TaskNotFound
    ├── ResultTimeout
    └── BrokerError
        ├── BrokerUnreachable
        ├── BrokerSilent       it is connected, and does not say that anything was stored
        ├── BrokerFull         it has no room
        ├── BrokerTooOld
        ├── BrokerRefused      an answer of the broker we did not expect
        ├── AccessRefused      it does not let us in
        ├── CredentialsExpired
        ├── NotAllowed         it lets us in, but not do that
        └── QueueConflict      streams of that name belong to somebody else

Each error carries `reason`, a constant for metrics and conditions; `hint`, what to do about it;
and the values it speaks of as attributes. All survive pickling. A traceback shows the hint, too.
"""

from typing import Any, ClassVar


class GalleyError(Exception):
    """Base of all errors Galley raises.

    The message says what happened and to what; `hint` says what to do.
    """

    reason: ClassVar[str] = "GalleyError"
    hint: str = ""

    def __init__(self, *values: Any) -> None:
        self.values = values
        super().__init__(self.describe(*values))
        if self.hint:
            self.add_note(f"hint: {self.hint}")

    def describe(self, *values: Any, **_named: Any) -> str:
        """Return the message for the values the error was raised with."""
        return " ".join(str(value) for value in values)

    def __reduce__(self) -> tuple[type["GalleyError"], tuple[Any, ...]]:
        return type(self), self.values


class Invalid(GalleyError):
    """What was handed in can never work, however often it is tried."""

    reason = "Invalid"


class ManifestInvalid(Invalid):
    """A manifest is not what its kind allows."""

    reason = "ManifestInvalid"

    def describe(self, source: str, line: int, field: str, problem: str, hint: str = "") -> str:
        self.source, self.line, self.field, self.problem, self.hint = source, line, field, problem, hint
        place = f"{source}:{line}" if line else source
        return f"{place}: {field}: {problem}" if field else f"{place}: {problem}"


class InputInvalid(Invalid):
    """A task's input is not JSON, or larger than a task may carry."""

    reason = "InputInvalid"

    def describe(self, handler: str, problem: str, hint: str) -> str:
        self.handler, self.problem, self.hint = handler, problem, hint
        return f"input of handler {handler!r}: {problem}"


class SubmissionInvalid(Invalid):
    """A task's id, times or retries cannot be."""

    reason = "SubmissionInvalid"

    def describe(self, field: str, problem: str, hint: str) -> str:
        self.field, self.problem, self.hint = field, problem, hint
        return f"{field}: {problem}"


class EnvelopeInvalid(Invalid):
    """Bytes on a task subject are not a task of a version known here."""

    reason = "EnvelopeInvalid"
    hint = "see the dead letter for the raw bytes; publish tasks through a Galley client"

    def describe(self, problem: str) -> str:
        self.problem = problem
        return f"not a task: {problem}"


class ServerInvalid(Invalid):
    """What should be the address of NATS is none."""

    reason = "ServerInvalid"

    def describe(self, server: str, problem: str) -> str:
        self.server, self.problem = server, problem
        self.hint = "write it as nats://HOST:4222 (--server, GALLEY_SERVER)"
        return f"{server!r} is not the address of a NATS server: {problem}"


class CredentialsInvalid(Invalid):
    """The file that says who we are to NATS cannot be read, or is none."""

    reason = "CredentialsInvalid"

    def describe(self, source: str, problem: str) -> str:
        self.source, self.problem = source, problem
        self.hint = (
            "on a cluster it is the key nats.creds of the Secret galley-QUEUE-producer "
            "(or -worker, -manager); name the file with --credentials or GALLEY_CREDENTIALS"
        )
        return f"no credentials in {source}: {problem}"


class Refused(GalleyError):
    """The queue did not accept the task; nothing was stored."""

    reason = "Refused"


class QueueNotFound(Refused):
    """No queue of that name takes tasks here."""

    reason = "QueueNotFound"

    def describe(self, namespace: str, queue: str) -> str:
        self.namespace, self.queue = namespace, queue
        self.hint = "check the name and the namespace, or declare a TaskQueue (`galley dev`, `kubectl apply`)"
        return f"there is no queue {queue!r} in namespace {namespace!r}"


class LaneNotEnabled(Refused):
    """The queue exists but does not serve that lane."""

    reason = "LaneNotEnabled"

    def describe(self, queue: str, lane: str, enabled: tuple[str, ...]) -> str:
        self.queue, self.lane, self.enabled = queue, lane, enabled
        self.hint = f"use one of {', '.join(enabled)}, or add {lane} to spec.lanes of the TaskQueue"
        return f"queue {queue!r} has no lane {str(lane)!r}"


class QueueFull(Refused):
    """The queue holds as many tasks as its limits allow."""

    reason = "QueueFull"

    def describe(self, queue: str, problem: str) -> str:
        self.queue, self.problem = queue, problem
        self.hint = "wait and submit again, or raise spec.limits of the TaskQueue"
        return f"queue {queue!r} is full ({problem})"


class TaskEnded(GalleyError):
    """The task ended without a result."""

    reason = "TaskEnded"


class TaskFailed(TaskEnded):
    """The task will not be tried again; it stands among the dead letters."""

    reason = "TaskFailed"

    def describe(self, task_id: str, why: str, message: str) -> str:
        self.task_id, self.why, self.message = task_id, why, message
        self.hint = f"galley show {task_id} tells each attempt"
        return f"task {task_id} failed ({why}): {message}"


class TaskCancelled(TaskEnded):
    """Somebody cancelled the task."""

    reason = "TaskCancelled"

    def describe(self, task_id: str) -> str:
        self.task_id = task_id
        return f"task {task_id} was cancelled"


class TaskNotFound(GalleyError):
    """Neither a waiting task nor a record has that id."""

    reason = "TaskNotFound"

    def describe(self, queue: str, task_id: str) -> str:
        self.queue, self.task_id = queue, task_id
        self.hint = "check the id and the queue; records go after spec.retention.resultsSeconds"
        return f"queue {queue!r} knows no task {task_id!r}"


class ResultTimeout(GalleyError):
    """The task had not ended when the caller stopped waiting; it goes on."""

    reason = "ResultTimeout"

    def describe(self, task_id: str, seconds: float) -> str:
        self.task_id, self.seconds = task_id, seconds
        self.hint = f"wait longer, or see how far it is: galley show {task_id}"
        return f"task {task_id} had not ended after {seconds:g} s"


class BrokerError(GalleyError):
    """The broker could not do what was asked."""

    reason = "BrokerError"


class BrokerUnreachable(BrokerError):
    """No answer from the broker within the time allowed."""

    reason = "BrokerUnreachable"

    def describe(self, server: str, problem: str) -> str:
        self.server, self.problem = server, problem
        self.hint = "is nats-server running there, and is the address (--server, GALLEY_SERVER) right?"
        return f"no answer from NATS at {server}: {problem}"


class BrokerSilent(BrokerError):
    """The broker is connected and does not say that it stored what it was sent."""

    reason = "BrokerSilent"

    def describe(self, server: str, problem: str, seconds: float) -> str:
        self.server, self.problem, self.seconds = server, problem, seconds
        self.hint = (
            "look at the log of nats-server; if its disk was full, make room and restart it. "
            "Submitting the same id again is safe"
        )
        return f"NATS at {server} is connected but stores nothing: {problem}, tried for {seconds:g} s"


class BrokerFull(BrokerError):
    """The broker has no room left for what is to be kept; nothing was stored."""

    reason = "BrokerFull"

    def describe(self, action: str, code: int, description: str) -> str:
        self.action, self.code, self.description = action, code, description
        self.hint = "give nats-server more room (its disk, max_file_store, or the account's limits)"
        return f"NATS has no room to {action}: {description} (error {code})"


class BrokerTooOld(BrokerError):
    """The server lacks what Galley's streams need."""

    reason = "BrokerTooOld"

    def describe(self, server: str, found: str, needed: str) -> str:
        self.server, self.found, self.needed = server, found, needed
        self.hint = f"run nats-server {needed} or newer with JetStream enabled (-js)"
        return f"NATS at {server} is {found}; Galley needs {needed} or newer"


class BrokerRefused(BrokerError):
    """The broker answered with an error nobody here expected."""

    reason = "BrokerRefused"

    def describe(self, action: str, code: int, description: str) -> str:
        self.action, self.code, self.description = action, code, description
        self.hint = "look at the log of nats-server; missing rights end up here, too"
        return f"NATS refused to {action}: {description}{f' (error {code})' if code else ''}"


class AccessRefused(BrokerError):
    """The broker does not let us in: with no credentials, or not with these."""

    reason = "AccessRefused"

    def describe(self, server: str, credentials: str, problem: str) -> str:
        self.server, self.credentials, self.problem = server, credentials, problem
        self.hint = (
            f"are {credentials} of this NATS? They end when its keys are made anew: fetch them again, and "
            "restart NATS if the Secret with its keys changed"
            if credentials
            else "it wants to know who we are: name a file that says so (--credentials, GALLEY_CREDENTIALS)"
        )
        return f"NATS refused to let us in at {server}: {problem}"


class CredentialsExpired(BrokerError):
    """The broker does not let us in because our credentials have ended."""

    reason = "CredentialsExpired"

    def describe(self, server: str, credentials: str, problem: str) -> str:
        self.server, self.credentials, self.problem = server, credentials, problem
        self.hint = (
            "fetch them again: the operator renews the Secret of a queue long before. If it did not, "
            "look at the operator's log, and at the clocks of both machines"
        )
        return f"NATS refused to let us in at {server}: {credentials} have ended ({problem})"


class NotAllowed(BrokerError):
    """The broker let us in, but our credentials do not allow this."""

    reason = "NotAllowed"

    def describe(self, subject: str) -> str:
        self.subject = subject
        self.hint = (
            "use credentials of that queue, and of a role that may: producers submit and look, managers "
            "cancel as well, workers settle. Only the operator may list what several queues share: name the "
            "queue (galley show QUEUE/ID)"
        )
        return f"these credentials do not allow to publish to {subject}"


class QueueConflict(BrokerError):
    """Streams with the queue's names exist and are not this installation's."""

    reason = "QueueConflict"

    def describe(self, stream: str, owner: str, problem: str) -> str:
        self.stream, self.owner, self.problem = stream, owner, problem
        self.hint = "use another namespace or another NATS account, or finish what is in the way"
        return f"stream {stream} (of {owner}): {problem}"
