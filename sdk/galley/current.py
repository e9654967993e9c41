"""The task that the present code runs for, as its handler sees it."""

from collections.abc import Callable
from datetime import datetime

from msgspec import Struct


class CurrentTask(Struct, frozen=True):
    """The task a handler runs for, and which attempt of it this is."""

    id: str
    queue: str
    lane: str
    handler: str
    attempt: int
    """Number of this attempt, counted from 1."""
    submitted_at: datetime
    deadline: datetime | None
    """Time at which this attempt is stopped and the task given up; None if there is none."""
    last_error: str
    """Reason and message of the attempt before; empty if there was none."""
    ancestors: tuple[str, ...] = ()
    """Queues (`NAMESPACE/QUEUE`) of the handlers it descends from: the one that submitted it is the last."""


def _nothing() -> CurrentTask | None:
    return None


_find: Callable[[], CurrentTask | None] = _nothing


def current_task() -> CurrentTask | None:
    """Return the task that this code runs for; None outside of a worker.

    Threads and asyncio tasks that a handler starts see the handler's task. `id` and `attempt` make a key for
    calls that must not be repeated; `id` alone is the same for all attempts.
    """
    return _find()


def find_by(find: Callable[[], CurrentTask | None]) -> None:
    """Set how `current_task` finds it; a worker does, in each process of handlers."""
    global _find  # noqa: PLW0603 - one per process, as handlers are
    _find = find
