"""The TaskQueues there are, as far as letting tasks in depends on them."""

from collections.abc import Callable

from msgspec import Struct, field

from galley.broker.topology import DECLARED_KEPT_SECONDS
from galley.lanes import DEFAULT_LANES, Lane
from galley_operator.cluster.reflector import Key


class QueueMetadata(Struct, frozen=True):
    """What is read of a TaskQueue's metadata."""

    name: str
    uid: str
    namespace: str = ""
    resource_version: str = field(default="", name="resourceVersion")


class _Worker(Struct, frozen=True):
    modules: tuple[str, ...] = ()


class _Command(Struct, frozen=True):
    name: str


class _Handlers(Struct, frozen=True):
    commands: tuple[_Command, ...] = ()


class _Retention(Struct, frozen=True, rename="camel"):
    results_seconds: int = DECLARED_KEPT_SECONDS


class _QueueSpec(Struct, frozen=True):
    lanes: tuple[Lane, ...] = DEFAULT_LANES
    worker: _Worker = _Worker()
    handlers: _Handlers = _Handlers()
    retention: _Retention = _Retention()


class QueueObject(Struct, frozen=True):
    """What is read of a TaskQueue."""

    metadata: QueueMetadata
    spec: _QueueSpec = _QueueSpec()


class KnownQueue(Struct, frozen=True):
    """One queue, as far as its tasks are concerned."""

    namespace: str
    name: str
    uid: str
    lanes: tuple[Lane, ...]
    handlers: frozenset[str] | None
    """The names of all its handlers; None if only its workers know, who import its modules."""
    keep_seconds: int = DECLARED_KEPT_SECONDS
    """How long the record of a cancelled task is kept."""


def keep_queue(seen: QueueObject, _before: KnownQueue | None) -> KnownQueue:
    """Return what is remembered of a TaskQueue."""
    spec = seen.spec
    commands = frozenset(command.name for command in spec.handlers.commands)
    return KnownQueue(
        seen.metadata.namespace,
        seen.metadata.name,
        seen.metadata.uid,
        spec.lanes,
        None if spec.worker.modules else commands,
        max(DECLARED_KEPT_SECONDS, spec.retention.results_seconds),
    )


class KnownQueues:
    """Listens to the reflector of TaskQueues."""

    def __init__(self) -> None:
        self.queues: dict[Key, KnownQueue] = {}
        self.on_change: Callable[[Key], None] = lambda _: None
        """Called when a queue is new, differs, or is gone."""

    def changed(self, key: Key, now: KnownQueue, *, listed: bool) -> None:
        """Take in a queue (see `Listener`)."""
        del listed
        if self.queues.get(key) != now:
            self.queues[key] = now
            self.on_change(key)

    def gone(self, key: Key, last: KnownQueue) -> None:
        """Take in that a queue is gone (see `Listener`)."""
        del last
        if self.queues.pop(key, None) is not None:
            self.on_change(key)

    def namespaces(self) -> set[str]:
        """Return the namespaces that have queues."""
        return {namespace for namespace, _ in self.queues}
