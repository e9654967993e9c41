"""Whether a declared task is let in: rules in order, each of which may say no, and why.

Pure: what is known is gathered beforehand, and the present time is handed in.
"""

from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Final

from msgspec import Struct

from galley.declared import DeclaredSpec
from galley.envelope import INPUT_LIMIT
from galley_operator.tasks.known_queues import KnownQueue


class Until(Enum):
    """What has to happen before a task that was not let in is looked at again."""

    QUEUE_CHANGES = "its TaskQueue is made or changed"
    ROOM = "its queue takes tasks again"
    LATER = "a few seconds have passed"
    NEVER = "nothing can help; the task has failed"


class Refusal(Struct, frozen=True):
    """Why a task is not let in now."""

    reason: str
    """A constant in CamelCase: the reason of the task's condition."""
    message: str
    until: Until


class Situation(Struct, frozen=True):
    """All that is known when it is decided about a task."""

    spec: DeclaredSpec
    namespace: str
    queue: KnownQueue | None
    """None if there is no TaskQueue of that name."""
    now: datetime


Rule = Callable[[Situation], Refusal | None]


def deadline_ahead(situation: Situation) -> Refusal | None:
    """A task whose deadline has come is worth nothing any more."""
    deadline = situation.spec.deadline
    if deadline is None or deadline > situation.now:
        return None
    message = f"its deadline {deadline.isoformat()} came before it was submitted; set a later one"
    return Refusal("DeadlineExceeded", message, Until.NEVER)


def input_fits(situation: Situation) -> Refusal | None:
    """A task's input has to fit into the broker."""
    size = memoryview(situation.spec.input).nbytes
    if size <= INPUT_LIMIT:
        return None
    message = (
        f"its input has {size} bytes of JSON, the limit is {INPUT_LIMIT}; "
        "store the data where workers can read it, and pass its place"
    )
    return Refusal("InputInvalid", message, Until.NEVER)


def queue_exists(situation: Situation) -> Refusal | None:
    """A task waits for its TaskQueue, however they were applied."""
    if situation.queue is not None:
        return None
    message = (
        f"there is no TaskQueue {situation.spec.queue_name!r} in namespace {situation.namespace!r}; "
        "apply it, and the task runs, or check the name"
    )
    return Refusal("QueueNotFound", message, Until.QUEUE_CHANGES)


def lane_enabled(situation: Situation) -> Refusal | None:
    """A task's priority has to be a lane of its queue."""
    queue, lane = situation.queue, situation.spec.priority
    if queue is None or lane in queue.lanes:
        return None
    message = (
        f"TaskQueue {queue.name!r} has no lane {str(lane)!r}, but {', '.join(queue.lanes)}; "
        "add it to spec.lanes of the TaskQueue, or apply the task with another priority"
    )
    return Refusal("LaneNotEnabled", message, Until.QUEUE_CHANGES)


def handler_known(situation: Situation) -> Refusal | None:
    """Where all handlers of a queue are commands, one of them has to be meant."""
    queue, handler = situation.queue, situation.spec.handler
    if queue is None or queue.handlers is None or handler in queue.handlers:
        return None
    there_are = f"but {', '.join(sorted(queue.handlers))}" if queue.handlers else "and no others"
    message = (
        f"TaskQueue {queue.name!r} has no handler {handler!r}, {there_are}; "
        "add it to spec.handlers or spec.worker.modules of the TaskQueue, or correct the name"
    )
    return Refusal("HandlerNotFound", message, Until.QUEUE_CHANGES)


ADMISSION: Final[tuple[Rule, ...]] = (deadline_ahead, input_fits, queue_exists, lane_enabled, handler_known)
"""What a task has to pass, in this order: what can never work is told first."""


def refusal(situation: Situation) -> Refusal | None:
    """Return why a task is not let in, or None if it is."""
    return next((no for rule in ADMISSION if (no := rule(situation)) is not None), None)
