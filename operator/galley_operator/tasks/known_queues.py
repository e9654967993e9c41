"""The TaskQueues there are: as kopf's watch and the periodic listing last saw them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from msgspec import Struct
from pydantic import ValidationError

from galley.broker.topology import DECLARED_KEPT_SECONDS
from galley.lanes import Lane
from galley.resources import TaskQueue, TaskQueueStatus
from galley.resources.problem import explain, field_path
from galley_operator.cluster.reflector import Key
from galley_operator.errors import QueueInvalid

_METADATA: Final = ("name", "namespace")
"""All that is read of it: labels and annotations are for others, and follow other rules."""


@dataclass(frozen=True, slots=True)
class QueueObject:
    """A TaskQueue with its identity and what was last found of it."""

    namespace: str
    name: str
    uid: str
    generation: int
    queue: TaskQueue | None
    """None if it cannot be understood."""
    problem: QueueInvalid | None = None
    """Why not."""
    status: TaskQueueStatus = field(default_factory=TaskQueueStatus)
    going: bool = False
    """Whether it was deleted, and only waits for what it owns to go before it."""
    version: str = field(default="", compare=False)
    """Its `resourceVersion`."""
    metadata: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """As the API server wrote it, for the audit log."""

    @property
    def key(self) -> Key:
        """Its namespace and name."""
        return self.namespace, self.name


class KnownQueue(Struct, frozen=True):
    """One queue, as far as its tasks are concerned."""

    name: str
    lanes: tuple[Lane, ...]
    handlers: frozenset[str] | None
    """The names of all its handlers; None if only its workers know, who import its modules."""
    keep_seconds: int = DECLARED_KEPT_SECONDS
    """How long the record of a cancelled task is kept."""
    problem: str = ""
    """Why no task can be admitted to it; empty if they can."""


class QueueListener(Protocol):
    """Is called when a queue is new, differs, or is gone."""

    def __call__(self, queue: Key, *, appeared: bool) -> None:
        """Take in which one; `appeared` if it was not there before, or is gone now."""


class KnownQueues:
    """What the operator knows of TaskQueues; the one place that changes it."""

    def __init__(self) -> None:
        self._found: dict[Key, QueueObject] = {}
        self._listeners: list[QueueListener] = []

    @contextmanager
    def told_to(self, listener: QueueListener) -> Iterator[None]:
        """Tell a listener of each change for as long as the block."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def found(self, queue: Key) -> QueueObject | None:
        """Return a TaskQueue as it was last seen."""
        return self._found.get(queue)

    def get(self, queue: Key) -> KnownQueue | None:
        """Return what matters to the tasks of a queue."""
        found = self._found.get(queue)
        return known_of(found) if found is not None else None

    def __contains__(self, queue: Key) -> bool:
        return queue in self._found

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._found))

    def __len__(self) -> int:
        return len(self._found)

    def seen(self, body: dict[str, Any]) -> None:
        """Take in a TaskQueue; an older state than the one known changes nothing."""
        metadata = body["metadata"]
        before = self._found.get((metadata.get("namespace", ""), metadata["name"]))
        version = metadata.get("resourceVersion")
        if before is not None and version is not None and before.version == version:
            return
        now = read_queue(body)
        if before is not None and before.uid == now.uid and before.generation > now.generation:
            return
        self._found[now.key] = now
        same = before is not None and (before.uid, before.generation, before.going) == (
            now.uid,
            now.generation,
            now.going,
        )
        if not same:
            self._tell(now.key, appeared=before is None)

    def gone(self, body: dict[str, Any]) -> None:
        """Take in that a TaskQueue was deleted, unless there is another of its name."""
        metadata = body["metadata"]
        key = metadata.get("namespace", ""), metadata["name"]
        known = self._found.get(key)
        if known is not None and known.uid == metadata.get("uid", known.uid):
            del self._found[key]
            self._tell(key, appeared=True)

    def listed(self, bodies: Iterable[dict[str, Any]]) -> None:
        """Take in all TaskQueues there are: what is not among them was deleted."""
        there: set[Key] = set()
        for body in bodies:
            self.seen(body)
            metadata = body["metadata"]
            there.add((metadata.get("namespace", ""), metadata["name"]))
        for key in self._found.keys() - there:
            del self._found[key]
            self._tell(key, appeared=True)

    def _tell(self, queue: Key, *, appeared: bool) -> None:
        for listener in list(self._listeners):
            listener(queue, appeared=appeared)


def read_queue(body: dict[str, Any]) -> QueueObject:
    """Return a TaskQueue from its object; one that cannot be understood says why."""
    metadata = body["metadata"]
    queue, problem = None, None
    try:
        queue = TaskQueue.model_validate(
            {
                "metadata": {key: metadata[key] for key in _METADATA},
                "spec": body.get("spec") or {},
            },
            by_alias=True,
            by_name=False,
        )
    except ValidationError as invalid:
        problem = QueueInvalid(metadata["name"], _in_words(invalid))
    return QueueObject(
        metadata["namespace"],
        metadata["name"],
        metadata["uid"],
        metadata.get("generation", 0),
        queue,
        problem,
        _status(body.get("status") or {}),
        going="deletionTimestamp" in metadata,
        version=metadata.get("resourceVersion", ""),
        metadata={key: metadata[key] for key in ("annotations", "managedFields") if key in metadata},
    )


def known_of(found: QueueObject) -> KnownQueue:
    """Return what matters to the tasks of a TaskQueue."""
    if found.queue is None:
        return KnownQueue(found.name, (), None, problem=str(found.problem))
    spec = found.queue.spec
    return KnownQueue(
        found.name,
        tuple(spec.lanes),
        None if spec.worker.modules else spec.handlers.names,
        max(DECLARED_KEPT_SECONDS, spec.retention.results_seconds),
    )


def _status(found: dict[str, Any]) -> TaskQueueStatus:
    try:
        return TaskQueueStatus.model_validate(found, by_alias=True, by_name=False)
    except ValidationError:
        # Written by another version; what we find replaces it.
        return TaskQueueStatus()


def _in_words(invalid: ValidationError) -> str:
    problems = (explain(TaskQueue, error) for error in invalid.errors(include_url=False))
    return "; ".join(f"{field_path(place)}: {problem} ({hint})" for place, problem, hint in problems)
