"""The Deployments and pods of all queues, as last seen from the API server."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeAlias, TypeVar

from msgspec import Struct

from galley_operator.cluster.client import Cluster
from galley_operator.cluster.reflector import Key, Reflector, Source
from galley_operator.cluster.resource import CONFIGMAPS, DEPLOYMENTS, PODS, Resource
from galley_operator.errors import FleetUnknown
from galley_operator.faults import Faults
from galley_operator.fleet.deployment import Deployment
from galley_operator.fleet.names import OURS, QUEUE_LABEL, child_name
from galley_operator.fleet.pods import Metadata, Pod
from galley_operator.fleet.trouble import end_of

log = logging.getLogger(__name__)

ENDS_KEPT: Final = 1000
"""Workers whose end is remembered after their pod is gone."""
STALE_SECONDS: Final = 240.0
"""A watch without a word for so long is not believed any more: bookmarks come sooner."""

Thing = TypeVar("Thing", "Deployment", "Owned")

Queue: TypeAlias = tuple[str, str]
"""Namespace and name."""


class Owned(Struct, frozen=True):
    """An object of a queue whose content only its writer reads."""

    metadata: Metadata

    @property
    def uid(self) -> str:
        """Its identity."""
        return self.metadata.uid


class Workloads:
    """A copy of what the queues are made of. `run` keeps it true.

    Args:
        touched: called with a queue one of whose objects, pods apart, was changed or deleted.
        ends: called with a queue and a pod of it that was changed or is gone.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespaces: Sequence[str | None],
        touched: Callable[[Queue], None],
        faults: Faults,
        clock: Callable[[], float] = time.monotonic,
        *,
        ends: "Callable[[Queue, Pod], None]" = lambda _queue, _pod: None,
    ) -> None:
        self._clock = clock
        self._listeners: dict[Queue, Callable[[], None]] = {}

        def changed(queue: Queue) -> None:
            touched(queue)
            self._tell(queue)

        self._pods_of: dict[Queue, dict[Key, Pod]] = {}
        self._ended: dict[Key, str] = {}
        where = tuple(namespaces)
        self._pods = Reflector(
            cluster,
            Source(PODS, Pod, lambda pod, _: pod, where, labels=OURS),
            _PodIndex(self._pods_of, self._tell, self._remember_end, ends),
            faults,
            clock=clock,
        )
        self._deployments = Reflector(
            cluster,
            Source(DEPLOYMENTS, Deployment, lambda deployment, _: deployment, where, labels=OURS),
            _Touch[Deployment](changed),
            faults,
            clock=clock,
        )
        self._config_maps = Reflector(
            cluster,
            Source(CONFIGMAPS, Owned, lambda owned, _: owned, where, labels=OURS),
            _Touch[Owned](touched),
            faults,
            clock=clock,
        )

    @contextmanager
    def told_to(self, queue: Queue, listener: Callable[[], None]) -> Iterator[None]:
        """Call a listener at each change of a queue's pods or Deployment, for as long as the block."""
        self._listeners[queue] = listener
        try:
            yield
        finally:
            del self._listeners[queue]

    def _tell(self, queue: Queue) -> None:
        if (listener := self._listeners.get(queue)) is not None:
            listener()

    @property
    def synced(self) -> bool:
        """Whether all there is in one of the namespaces has been taken in."""
        return all(each.began for each in (self._pods, self._deployments, self._config_maps))

    @property
    def heard_at(self) -> float:
        """When the API server was last heard of, by a monotonic clock."""
        return min(each.heard_at for each in (self._pods, self._deployments, self._config_maps))

    async def run(self) -> None:
        """Keep it true until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pods.run(), name="reflect pods")
            group.create_task(self._deployments.run(), name="reflect deployments")
            group.create_task(self._config_maps.run(), name="reflect config maps")

    def sight_of(self, queue: Queue) -> "SightOfQueue":
        """Return what a fleet sees of one queue."""
        return SightOfQueue(self, queue)

    def deployment_of(self, queue: Queue) -> Deployment | None:
        """Return a queue's Deployment; None if there is none.

        Raises:
            FleetUnknown: if that is not known.
        """
        self._check(self._deployments, DEPLOYMENTS, queue)
        return self._deployments.things.get((queue[0], child_name(queue[1])))

    def pods_of(self, queue: Queue) -> Sequence[Pod]:
        """Return a queue's pods.

        Raises:
            FleetUnknown: if they are not known.
        """
        self._check(self._pods, PODS, queue)
        return tuple(self._pods_of.get(queue, {}).values())

    def queues_in(self, namespace: str | None) -> set[Queue]:
        """Return the queues that have pods in a namespace, also those of which that is all there is.

        Raises:
            FleetUnknown: if that is not known.
        """
        self._check(self._pods, PODS, (namespace or "", ""))
        return {queue for queue in self._pods_of if namespace in (None, queue[0])}

    def end_of(self, namespace: str, worker: str) -> str:
        """Return, as a sentence, how a worker ended; empty if that is not known."""
        pod = self._pods.things.get((namespace, worker))
        if pod is None:
            return self._ended.get((namespace, worker), "")
        end = end_of(pod)
        return end.message if end is not None else ""

    def _remember_end(self, key: Key, last: Pod) -> None:
        """Keep how the worker of a pod that is gone ended: its tasks are missed a lease later."""
        if (end := end_of(last)) is not None:
            self._ended[key] = end.message
            if len(self._ended) > ENDS_KEPT:
                del self._ended[next(iter(self._ended))]

    def _check(self, reflector: Reflector[Any, Any], resource: Resource, queue: Queue) -> None:
        if not reflector.listed_in(queue[0]):
            raise FleetUnknown(queue[1], f"the {resource.plural} have not been listed yet")
        silent = self._clock() - reflector.heard_in(queue[0])
        if silent > STALE_SECONDS:
            raise FleetUnknown(queue[1], f"nothing was heard of {resource.plural} for {silent:.0f} s")


class SightOfQueue:
    """What a fleet sees of one queue."""

    def __init__(self, workloads: Workloads, queue: Queue) -> None:
        self._workloads, self._queue = workloads, queue

    def deployment(self) -> Deployment | None:
        """Return the Deployment; None if there is none."""
        return self._workloads.deployment_of(self._queue)

    def pods(self) -> Sequence[Pod]:
        """Return all pods of the queue."""
        return self._workloads.pods_of(self._queue)


def _queue_of(metadata: Metadata) -> Queue:
    return metadata.namespace, metadata.labels.get(QUEUE_LABEL, "")


class _PodIndex:
    """Pods by queue."""

    def __init__(
        self,
        pods_of: dict[Queue, dict[Key, Pod]],
        tell: Callable[[Queue], None],
        ended: Callable[[Key, Pod], None],
        ends: Callable[[Queue, Pod], None],
    ) -> None:
        self._pods_of, self._tell, self._ended, self._ends = pods_of, tell, ended, ends

    def changed(self, key: Key, now: Pod, *, listed: bool) -> None:  # noqa: ARG002
        queue = _queue_of(now.metadata)
        self._pods_of.setdefault(queue, {})[key] = now
        self._ends(queue, now)
        self._tell(queue)

    def gone(self, key: Key, last: Pod) -> None:
        self._ended(key, last)
        queue = _queue_of(last.metadata)
        self._ends(queue, last)
        pods = self._pods_of.get(queue, {})
        pods.pop(key, None)
        if not pods:
            self._pods_of.pop(queue, None)
        self._tell(queue)


class _Touch(Generic[Thing]):
    """Says which queue's objects were touched. What was there at the first listing is no touch."""

    def __init__(self, touched: Callable[[Queue], None]) -> None:
        self._touched = touched
        self._generations: dict[Key, tuple[str, int, str]] = {}

    def changed(self, key: Key, now: Thing, *, listed: bool) -> None:
        metadata = now.metadata
        # A Deployment's status changes often and its generation with its spec; a ConfigMap has none.
        state = (metadata.uid, metadata.generation, "" if metadata.generation else metadata.resource_version)
        known = self._generations.get(key)
        self._generations[key] = state
        if known != state and not (listed and known is None):
            self._touched(_queue_of(metadata))

    def gone(self, key: Key, last: Thing) -> None:
        self._generations.pop(key, None)
        self._touched(_queue_of(last.metadata))
