"""Whether a declared task is admitted: whose its name is in the broker, then rules in order.

Pure: what is known is gathered beforehand, and the present time is handed in.
"""

from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Final, TypeAlias

from msgspec import Struct

from galley.bounds import LABELS
from galley.declared import DeclaredSpec, envelope_of, input_key, key_of
from galley.envelope import INPUT_LIMIT, Envelope, conflicts
from galley.errors import ManifestInvalid, SubmissionInvalid
from galley.unique import Wanted
from galley_operator.intake.broker_tasks import Trace
from galley_operator.tasks.active_tasks import ActiveTask
from galley_operator.tasks.known_queues import KnownQueue
from galley_operator.tasks.report import (
    Admitted,
    AlreadyRan,
    Gone,
    Pending,
    Recorded,
    Rejected,
    Report,
    Until,
)


class Facts(Struct, frozen=True):
    """All that is known when it is decided about a Task."""

    task: ActiveTask
    trace: Trace
    """What the broker has under its name."""
    spec: DeclaredSpec | ManifestInvalid | None
    """What it asks for; None if that is not needed, or the object is gone."""
    queue: KnownQueue | None
    """None if there is no TaskQueue of that name."""
    now: datetime
    labels: dict[str, str] | None = None
    """Of the object."""


class Publish(Struct, frozen=True):
    """Put the task into the broker."""

    envelope: Envelope
    earlier: Trace | None = None
    """The work of an earlier Task of this name, which has to go first."""
    unique: Wanted | None = None
    """Its unique key, if it asks for one."""


Step: TypeAlias = Publish | Report


class Claim(Enum):
    """Whose the task is that the broker has under a Task's name."""

    FREE = "there is none"
    OURS = "it is this Task's"
    EARLIER = "it was another Task's, which was deleted; this one runs after it"
    REMEMBERED = "it ran before this Task was created, and a new run was not requested"
    TAKEN = "it is other work, submitted without a Task object"


def claim_on(task: ActiveTask, trace: Trace, digest: str) -> Claim:
    """Return whose task it is that the broker has under a Task's name (docs/adr/0015-one-identity.md).

    Args:
        task: the Task.
        trace: what the broker knows.
        digest: of the Task's spec; empty if that is not known, and then it conflicts with none.
    """
    if trace.empty:
        return Claim.FREE
    if trace.uid == task.uid or task.by_uid:
        return Claim.OURS
    record = trace.stored.record if trace.stored is not None else None
    other_work = conflicts(trace.digest, digest)
    if trace.uid:
        # Its expiry marks the record; a deletion by a person does not.
        kept = record is not None and record.done and record.remembered
        return Claim.REMEMBERED if kept and not other_work else Claim.EARLIER
    if other_work:
        return Claim.TAKEN
    ended_at = record.ended_at if record is not None and record.done else None
    return Claim.REMEMBERED if ended_at is not None and ended_at < task.created else Claim.OURS


def _digest(facts: Facts) -> str:
    return facts.spec.digest if isinstance(facts.spec, DeclaredSpec) and not facts.trace.empty else ""


Rule = Callable[[DeclaredSpec, Facts], Report | None]


def deadline_ahead(spec: DeclaredSpec, facts: Facts) -> Report | None:
    """A task is not started after its deadline."""
    if spec.deadline is None or spec.deadline > facts.now:
        return None
    message = f"its deadline {spec.deadline.isoformat()} came before it was submitted; set a later one"
    return Rejected("DeadlineExceeded", message)


def input_fits(spec: DeclaredSpec, _facts: Facts) -> Report | None:
    """A task's input has to fit into the broker."""
    size = memoryview(spec.input).nbytes
    if size <= INPUT_LIMIT:
        return None
    message = (
        f"its input has {size} bytes of JSON, the limit is {INPUT_LIMIT}; "
        "store the data as a file, with `galley files put`, and refer to that"
    )
    return Rejected("InputInvalid", message)


def labels_fit(_spec: DeclaredSpec, facts: Facts) -> Report | None:
    """A task carries the labels of its object, and there is a limit to those."""
    if not facts.labels or len(facts.labels) <= LABELS:
        return None
    message = f"it has {len(facts.labels)} labels, the limit is {LABELS}; turn some into annotations"
    return Rejected("LabelInvalid", message)


def key_valid(spec: DeclaredSpec, _facts: Facts) -> Report | None:
    """A task's unique key has to be one, which the CRD sees to, and so has what its input has as its key."""
    try:
        key_of(spec)
        input_key(spec)
    except SubmissionInvalid as error:
        return Rejected(error.reason, f"{error}; {error.hint}")
    return None


def queue_exists(spec: DeclaredSpec, facts: Facts) -> Report | None:
    """A task waits for its TaskQueue, however they were applied."""
    if facts.queue is not None:
        return None
    message = (
        f"there is no TaskQueue {spec.queue_name!r} in namespace {facts.task.namespace!r}; "
        "apply it, and the task runs, or check the name"
    )
    return Pending("QueueNotFound", message, Until.QUEUE_CHANGES)


def queue_readable(_spec: DeclaredSpec, facts: Facts) -> Report | None:
    """A task waits for a TaskQueue that this version does not understand to be corrected."""
    if facts.queue is None or not facts.queue.problem:
        return None
    return Pending("QueueInvalid", f"{facts.queue.problem}; correct the TaskQueue", Until.QUEUE_CHANGES)


def lane_enabled(spec: DeclaredSpec, facts: Facts) -> Report | None:
    """A task's priority has to be a lane of its queue."""
    queue, lane = facts.queue, spec.priority
    if queue is None or lane in queue.lanes:
        return None
    message = (
        f"TaskQueue {queue.name!r} has no lane {str(lane)!r}, but {', '.join(queue.lanes)}; "
        "add it to spec.lanes of the TaskQueue, or apply the task with another priority"
    )
    return Pending("LaneNotEnabled", message, Until.QUEUE_CHANGES)


def handler_known(spec: DeclaredSpec, facts: Facts) -> Report | None:
    """Where all handlers of a queue are commands, one of them has to be meant."""
    queue, handler = facts.queue, spec.handler
    if queue is None or queue.handlers is None or handler in queue.handlers:
        return None
    there_are = f"but {', '.join(sorted(queue.handlers))}" if queue.handlers else "and no others"
    message = (
        f"TaskQueue {queue.name!r} has no handler {handler!r}, {there_are}; "
        "add it to spec.handlers or spec.worker.modules of the TaskQueue, or correct the name"
    )
    return Pending("HandlerNotFound", message, Until.QUEUE_CHANGES)


ADMISSION: Final[tuple[Rule, ...]] = (
    deadline_ahead, input_fits, labels_fit, key_valid, queue_exists, queue_readable, lane_enabled,
    handler_known,
)  # fmt: skip
"""What a task has to pass, in this order: what can never work is told first."""


def decide(facts: Facts) -> Step:
    """Return what is to be done about a Task."""
    stored = facts.trace.stored
    claim = claim_on(facts.task, facts.trace, _digest(facts))
    if claim is Claim.OURS or (stored is not None and claim is Claim.REMEMBERED):
        if stored is None:
            return Admitted()
        return Recorded(stored) if claim is Claim.OURS else AlreadyRan(stored)
    if claim is Claim.TAKEN:
        message = (
            f"queue {facts.task.queue!r} has other work under the id {facts.task.name!r}, submitted without "
            "a Task; apply this one under another name"
        )
        return Rejected("NameTaken", message)
    if not isinstance(facts.spec, DeclaredSpec):
        error = facts.spec
        return Gone() if error is None else Rejected(error.reason, f"{error}; {error.hint}")
    for rule in ADMISSION:
        if (no := rule(facts.spec, facts)) is not None:
            return no
    envelope = envelope_of(facts.spec, facts.task.created, facts.now, facts.task.uid, facts.labels)
    return Publish(envelope, facts.trace if claim is Claim.EARLIER else None, key_of(facts.spec))
