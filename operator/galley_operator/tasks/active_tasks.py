"""All Tasks that have not ended, found by name, by uid and by queue."""

from collections.abc import Callable, Iterator
from typing import Final

from galley_operator.cluster.reflector import Key
from galley_operator.tasks.active_task import ActiveTask, Keeper

QueueKey = tuple[str, str]
"""Namespace and name of a queue."""

_IGNORE: Final[Callable[..., None]] = lambda *_: None  # noqa: E731


class ActiveTasks:
    """Listens to the reflector of Tasks, and tells whoever leads; a standby only keeps it warm."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.by_uid: dict[str, ActiveTask] = {}
        self.by_queue: dict[QueueKey, dict[str, ActiveTask]] = {}
        self.on_new: Callable[[ActiveTask, bool], None] = _IGNORE
        """Called with each Task that was not known before, and whether it stood in a listing."""
        self.on_gone: Callable[[ActiveTask], None] = _IGNORE
        """Called with each Task that is no more, or no longer unfinished."""

    def changed(self, _key: Key, now: ActiveTask, *, listed: bool) -> None:
        """Take in a Task (see `Listener`)."""
        if now.uid in self.by_uid:
            return
        self.by_uid[now.uid] = now
        self.by_queue.setdefault((now.namespace, now.queue), {})[now.uid] = now
        self.on_new(now, listed)

    def gone(self, _key: Key, last: ActiveTask) -> None:
        """Take in that a Task is gone or has ended (see `Listener`)."""
        self.keeper.drop_spec(last)
        if self.by_uid.pop(last.uid, None) is None:
            return
        queue = last.namespace, last.queue
        siblings = self.by_queue[queue]
        del siblings[last.uid]
        if not siblings:
            del self.by_queue[queue]
        self.on_gone(last)

    def of_queue(self, queue: QueueKey) -> Iterator[ActiveTask]:
        """Yield the Tasks of a queue, oldest first as far as known, safe against changes meanwhile."""
        yield from list(self.by_queue.get(queue, {}).values())

    def namespaces(self) -> set[str]:
        """Return the namespaces that have Tasks."""
        return {namespace for namespace, _ in self.by_queue}

    def __contains__(self, uid: str) -> bool:
        return uid in self.by_uid

    def __len__(self) -> int:
        return len(self.by_uid)
