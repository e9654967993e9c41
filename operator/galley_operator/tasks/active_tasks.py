"""The Tasks that have not ended, found by name, by queue, and by their address in the broker.

Little is remembered of each, since there may be 20,000 of them. What is known of a Task is a frozen value,
and `ActiveTasks` alone replaces it: others read it, and report what they did or heard.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from sys import intern
from typing import Any, Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.lanes import Lane
from galley.note import Progress
from galley.task_status import Phase
from galley_operator.cluster.reflector import Key
from galley_operator.tasks.report import (
    Admitted,
    AlreadyRan,
    Pending,
    Recorded,
    Rejected,
    Report,
    Unclear,
    Until,
)
from galley_operator.tasks.task_object import SeenProgress, SeenStatus, TaskObject, route_of

UNFINISHED: Final = ",".join(f"status.phase!={phase}" for phase in Phase if phase.ended)
"""Field selector of the Tasks that have not ended, those without a phase included."""

SPECS_LIMIT: Final = 32 * 1024 * 1024
"""Bytes of specs kept of Tasks that are not in the broker yet; further ones are read again when needed."""

QueueKey = tuple[str, str]
"""Namespace and name of a queue."""


_LANES: Final = {lane.value: lane for lane in Lane}
_NO_STATUS: Final = SeenStatus()
_NOTHING_SAID: Final = SeenProgress()
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_IN_BROKER: Final = frozenset(
    phase.value for phase in (Phase.SCHEDULED, Phase.QUEUED, Phase.RUNNING, Phase.RETRYING)
)


class ActiveTask(Struct, frozen=True, gc=False, eq=False):
    """What is known of one Task that has not ended, or whose last status is being written."""

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
    labels: dict[str, str] | None = None
    """Its labels, kept as long as its spec is; they may have changed since it was put into the broker."""
    not_before: datetime | None = None
    """Its earliest start."""
    queued_at: datetime | None = None
    in_broker: bool = False
    """Whether it was put into the broker, as far as its status or we know."""
    recorded: bool = False
    """Whether a record of it was seen, which tells more than that it is in the broker."""
    ended: bool = False
    """Whether its end is known, and its last status written or about to be."""
    unsure: bool = False
    """Whether it has to be looked for in the broker: it may be there, or no longer be."""
    user: str = ""
    """Who created it, by its annotation: worth what writes that."""
    progress: Progress | None = None
    """How far its handler said an attempt is; None if it did not say."""
    by_uid: bool = False
    """Whether an operator before 0.2 put it into the broker, under its uid."""

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def address(self) -> TaskAddress:
        """Where it lives in the broker: under its name, so `galley show` and a second apply find it."""
        if self.by_uid:
            return TaskAddress(self.namespace, self.queue, self.lane, Kind.DECLARED, self.uid)
        return TaskAddress(self.namespace, self.queue, self.lane, Kind.DIRECT, self.name)


def shown_by(  # noqa: PLR0917 - what matters in a status
    phase: str, reason: str, attempts: int, worker: str, fraction: float | None = None, note: str = ""
) -> int:
    """Return a number that stands for what matters in a status; equal ones need not be written again."""
    return hash((phase, reason, attempts, worker, fraction, note))


class TaskListener(Protocol):
    """Hears of Tasks, while the API server's answer is being read; so it must be quick."""

    def new(self, task: ActiveTask, *, listed: bool) -> None:
        """Take in a Task that was not known; `listed` if it was there before we watched."""

    def gone(self, task: ActiveTask) -> None:
        """Take in that a Task was deleted, or is no longer unfinished; which of the two is not known."""


class ActiveTasks:
    """Listens to the reflector of Tasks in every replica; only the leader has a listener to tell."""

    def __init__(self, specs_limit: int = SPECS_LIMIT) -> None:
        self.specs_bytes = 0
        """Size of all specs kept."""
        self._specs_limit = specs_limit
        self._tasks: dict[Key, ActiveTask] = {}
        self._by_queue: dict[QueueKey, dict[Key, None]] = {}
        self._by_uid: dict[str, Key] = {}
        self._listener: TaskListener | None = None

    @contextmanager
    def told_to(self, listener: TaskListener) -> Iterator[None]:
        """Tell a listener of all Tasks there are, and of each change for as long as the block."""
        self._listener = listener
        try:
            for task in list(self._tasks.values()):
                listener.new(task, listed=True)
            yield
        finally:
            self._listener = None

    def get(self, key: Key) -> ActiveTask | None:
        """Return what is known of a Task."""
        return self._tasks.get(key)

    def find(self, address: TaskAddress) -> ActiveTask | None:
        """Return the Task of a task in the broker."""
        key = address.namespace, address.id
        task = self._tasks.get(self._by_uid.get(address.id, key))
        if task is None or (task.address.namespace, task.address.queue) != (address.namespace, address.queue):
            return None
        return task

    def knows(self, namespace: str, task_id: str) -> bool:
        """Return whether a task of that id may be a Task's."""
        return (namespace, task_id) in self._tasks or task_id in self._by_uid

    def of_queue(self, queue: QueueKey) -> list[ActiveTask]:
        """Return the Tasks of a queue, oldest first as far as known."""
        return [self._tasks[key] for key in self._by_queue.get(queue, ())]

    def name(self, queue: QueueKey) -> bool:
        """Return whether any of them is of a queue, whether or not that exists."""
        return queue in self._by_queue

    def queues(self) -> set[QueueKey]:
        """Return the queues that Tasks name, whether or not these exist."""
        return set(self._by_queue)

    def __iter__(self) -> Iterator[ActiveTask]:
        return iter(list(self._tasks.values()))

    def __len__(self) -> int:
        return len(self._tasks)

    # What the reflector tells.

    def keep(self, seen: TaskObject, _before: ActiveTask | None) -> ActiveTask:
        """Return what is known of a Task now that it was seen like this (see `Source.keep`)."""
        metadata, status = seen.metadata, seen.status or _NO_STATUS
        reason = next((each.reason for each in status.conditions if each.type == "Succeeded"), "")
        said = status.progress or _NOTHING_SAID
        shown = shown_by(status.phase, reason, status.attempts, status.worker, said.fraction, said.note)
        known = self._tasks.get((metadata.namespace, metadata.name))
        if known is not None and known.uid == metadata.uid:
            return replace(
                known,
                version=metadata.resource_version,
                shown=shown,
                labels=None if known.spec is None else metadata.labels,
                generation=metadata.generation,
                queued_at=status.queued_time or known.queued_at,
            )
        route = route_of(seen.spec)
        in_broker = status.phase in _IN_BROKER
        return ActiveTask(
            intern(metadata.namespace),
            metadata.name,
            metadata.uid,
            metadata.resource_version,
            metadata.generation,
            metadata.created or datetime.now(UTC),
            intern(route.queue_name),
            _LANES.get(route.priority, Lane.NORMAL),
            # A copy: the raw one would keep alive all that was read with it.
            None if in_broker else bytes(seen.spec),
            shown,
            None if in_broker else metadata.labels,
            _moment(route.not_before),
            status.queued_time,
            in_broker,
            user=intern(metadata.annotations.user) if metadata.annotations is not None else "",
            progress=(
                Progress(_LONG_AGO, status.attempts, said.fraction, said.note) if status.progress else None
            ),
        )

    def changed(self, key: Key, now: ActiveTask, *, listed: bool) -> None:
        """Take in a Task (see `Listener`)."""
        known = self._tasks.get(key)
        if known is not None and known.uid == now.uid:
            self.specs_bytes += _size(now) - _size(known)
            self._tasks[key] = now
            return
        size = _size(now)
        if self.specs_bytes + size > self._specs_limit:
            now, size = replace(now, spec=None, labels=None), 0
        self.specs_bytes += size
        self._tasks[key] = now
        self._by_queue.setdefault((now.namespace, now.queue), {})[key] = None
        if self._listener is not None:
            self._listener.new(now, listed=listed)

    def gone(self, key: Key, last: ActiveTask) -> None:
        """Take in that a Task is gone or has ended (see `Listener`)."""
        task = self._tasks.get(key)
        if task is None or task.uid != last.uid:
            return
        self._forget_spec(task)
        del self._tasks[key]
        self._by_uid.pop(task.uid, None)
        queue = task.namespace, task.queue
        del self._by_queue[queue][key]
        if not self._by_queue[queue]:
            del self._by_queue[queue]
        if self._listener is not None:
            self._listener.gone(task)

    # What others did or heard. Each returns what is known now, or None if there is nothing new to say.

    def take(self, task: ActiveTask, report: Report, now: datetime) -> ActiveTask | None:
        """Take in what a look at a Task, or a record, came to."""
        known = self._tasks.get(task.key)
        if known is None or known.uid != task.uid or known.ended:
            return None
        changes: dict[str, Any] | None = None
        match report:
            case Admitted():
                changes = {
                    "in_broker": True,
                    "spec": None,
                    "labels": None,
                    "queued_at": known.queued_at or now,
                }
            case Recorded(stored) if stored.record.uid in ("", task.uid):
                ended = stored.record.done
                changes = {"in_broker": True, "spec": None, "labels": None, "recorded": True, "ended": ended}
            case Rejected() | AlreadyRan():
                changes = {"spec": None, "labels": None, "ended": True}
            case Pending(until=Until.PAUSE):
                return None if known.in_broker else known  # an error says nothing about what is in the broker
            case Pending():
                changes = {"in_broker": False, "recorded": False, "by_uid": False}
            case Unclear():
                self.doubted(task)
        return None if changes is None else self._replace(task, unsure=False, **changes)

    def progressed(self, address: TaskAddress, progress: Progress) -> ActiveTask | None:
        """Take in how far a task is; None if it is no Task, has ended, or said so later before."""
        task = self.find(address)
        if task is None or task.ended or (task.progress is not None and task.progress.at >= progress.at):
            return None
        return self._replace(task, progress=progress)

    def doubted(self, task: ActiveTask) -> ActiveTask | None:
        """Take in that it is not known whether the broker has a Task."""
        return self._replace(task, unsure=True)

    def written(self, task: ActiveTask, version: str, shown: int | None = None) -> ActiveTask | None:
        """Take in the version a Task has now, and what its status shows if that was written."""
        return self._replace(task, version=version, **({} if shown is None else {"shown": shown}))

    def _replace(self, task: ActiveTask, **changes: Any) -> ActiveTask | None:
        known = self._tasks.get(task.key)
        if known is None or known.uid != task.uid:
            return None
        if task.by_uid:
            self._by_uid[task.uid] = task.key
        if changes.get("spec", known.spec) is None:
            self._forget_spec(known)
        now = self._tasks[task.key] = replace(known, **{"by_uid": task.by_uid, **changes})
        return now

    def _forget_spec(self, task: ActiveTask) -> None:
        self.specs_bytes -= _size(task)


def _size(task: ActiveTask) -> int:
    """Return the bytes of a Task's spec, if it is kept, and labels."""
    return len(task.spec or b"") + sum(len(key) + len(value) for key, value in (task.labels or {}).items())


def _moment(text: str) -> datetime | None:
    """Return a time of a spec; one that cannot be is told when the whole spec is read."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo is not None else None
