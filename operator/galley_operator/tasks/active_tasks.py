"""The Tasks that have not ended, found by uid and by queue.

Little is remembered of each, since there may be 20,000 of them.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from sys import intern
from typing import Final

import msgspec
from msgspec import Raw, Struct, field

from galley.address import Kind, TaskAddress
from galley.lanes import Lane
from galley.task_status import Phase
from galley_operator.cluster.reflector import Key

QueueKey = tuple[str, str]
"""Namespace and name of a queue."""

_IGNORE: Final[Callable[..., None]] = lambda *_: None  # noqa: E731


UNFINISHED: Final = ",".join(f"status.phase!={phase}" for phase in Phase if phase.ended)
"""Field selector of the Tasks that have not ended, those without a phase included."""

SPECS_LIMIT: Final = 32 * 1024 * 1024
"""Bytes of specs kept of Tasks that are not in the broker yet; further ones are read again when needed."""


class TaskMetadata(Struct, frozen=True, gc=False):
    """What is read of a Task's metadata."""

    name: str
    uid: str
    namespace: str = ""
    resource_version: str = field(default="", name="resourceVersion")
    generation: int = 0
    created: datetime | None = field(default=None, name="creationTimestamp")


class _Condition(Struct, frozen=True, gc=False):
    type: str = ""
    reason: str = ""


class SeenStatus(Struct, frozen=True, rename="camel"):
    """What is read of a Task's status."""

    phase: str = ""
    attempts: int = 0
    worker: str = ""
    queued_time: datetime | None = None
    conditions: list[_Condition] = []


class TaskObject(Struct, frozen=True):
    """What is read of a Task."""

    metadata: TaskMetadata
    spec: Raw = Raw(b"{}")
    status: SeenStatus | None = None


class _Route(Struct, frozen=True, rename="camel", gc=False):
    queue_name: str = ""
    priority: str = Lane.NORMAL.value
    not_before: str = ""


_route = msgspec.json.Decoder(_Route).decode
_LANES: Final = {lane.value: lane for lane in Lane}
_NO_STATUS: Final = SeenStatus()
_IN_BROKER: Final = frozenset(
    phase.value for phase in (Phase.SCHEDULED, Phase.QUEUED, Phase.RUNNING, Phase.RETRYING)
)


class ActiveTask(Struct, gc=False, eq=False):
    """One Task that has not ended."""

    namespace: str
    name: str
    uid: str
    version: str
    """Its resourceVersion, which a status is written against."""
    generation: int
    created: datetime
    queue: str
    lane: Lane
    spec: bytes | None
    """Its spec as JSON while it is not in the broker, unless there are too many of them."""
    shown: int
    """Stands for the status the object shows."""
    not_before: datetime | None = None
    """Its earliest start."""
    queued_at: datetime | None = None
    in_broker: bool = False
    """Whether it was put into the broker, as far as its status or we know."""
    recorded: bool = False
    """Whether a record of it was seen, which tells more than that it is in the broker."""
    ended: bool = False
    """Whether its end is known, and its last status written or about to be."""

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def address(self) -> TaskAddress:
        """Where it lives in the broker: under its uid, so that one made again by its name is another task."""
        return TaskAddress(self.namespace, self.queue, self.lane, Kind.DECLARED, self.uid)


def shown_by(phase: str, reason: str, attempts: int, worker: str) -> int:
    """Return a number that stands for what matters in a status; equal ones need not be written again."""
    return hash((phase, reason, attempts, worker))


class Keeper:
    """Makes what is remembered from what is read, and bounds what the specs may take."""

    def __init__(self, specs_limit: int = SPECS_LIMIT) -> None:
        self.specs_bytes = 0
        self._limit = specs_limit

    def keep(self, seen: TaskObject, before: ActiveTask | None) -> ActiveTask:
        """Return what is remembered of a Task, which stays the same thing as long as its uid does."""
        status = seen.status or _NO_STATUS
        reason = next((each.reason for each in status.conditions if each.type == "Succeeded"), "")
        shown = shown_by(status.phase, reason, status.attempts, status.worker)
        if before is not None and before.uid == seen.metadata.uid:
            before.version, before.shown = seen.metadata.resource_version, shown
            before.generation = seen.metadata.generation
            before.queued_at = status.queued_time or before.queued_at
            return before
        route = _route(seen.spec)
        in_broker = status.phase in _IN_BROKER
        metadata = seen.metadata
        assert metadata.created is not None, "the API server dates every object"
        return ActiveTask(
            intern(metadata.namespace),
            metadata.name,
            metadata.uid,
            metadata.resource_version,
            metadata.generation,
            metadata.created,
            intern(route.queue_name),
            _LANES.get(route.priority, Lane.NORMAL),
            None if in_broker else self._spec(seen.spec),
            shown,
            _moment(route.not_before),
            status.queued_time,
            in_broker,
        )

    def drop_spec(self, task: ActiveTask) -> None:
        """Forget a spec that is no longer needed."""
        if task.spec is not None:
            self.specs_bytes -= len(task.spec)
            task.spec = None

    def _spec(self, spec: Raw) -> bytes | None:
        # A copy: the raw one would keep alive all that was read with it.
        size = memoryview(spec).nbytes
        if self.specs_bytes + size > self._limit:
            return None
        self.specs_bytes += size
        return bytes(spec)


def _moment(text: str) -> datetime | None:
    """Return a time of a spec; one that cannot be is told when the whole spec is read."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


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
