"""Keeps the schedule of each TaskSchedule in the broker as its object says, and writes its status.

Nothing that fires needs it: workers do that. While the operator is away schedules fire on as they were.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from galley.bounds import is_queue_name
from galley.broker import schedules as stored
from galley.broker.connection import Broker
from galley.broker.errors import BrokerError, BrokerUnreachable
from galley.broker.schedules import Kept
from galley.client import AsyncClient
from galley.errors import GalleyError
from galley.resources import TaskScheduleStatus
from galley.resources.task_schedule import TaskScheduleSpec
from galley.schedule import RUN_NOW, Origin, Schedule, check_schedule_name
from galley.schedule_manifest import ScheduleMetadata, schedule_of
from galley.unreadable import UNREADABLE
from galley_operator.cluster.allowance import Allowance
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ClusterError, ObjectConflict
from galley_operator.cluster.kept_object import (
    KeptObject,
    ObjectMetadata,
    keep_looking,
    with_spec,
    without_spec,
    write_status,
)
from galley_operator.cluster.reflector import Key, Reflector, Source
from galley_operator.cluster.resource import TASKSCHEDULES
from galley_operator.errors import SpecNotRead
from galley_operator.faults import Faults
from galley_operator.schedules.status import status_of, written
from galley_operator.tasks.known_queues import KnownQueues

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
"""Time between two looks at the schedules that have objects."""

SWEEP_SECONDS: Final = 60.0
"""Time between two looks at all queues for schedules whose object is gone."""


RUN_NOW_LENGTH: Final = 256
"""Most characters of the value that the status keeps."""


class _Annotations(Struct, frozen=True):
    run_now: str = field(default="", name=RUN_NOW)


class ScheduleObjectMetadata(ObjectMetadata, frozen=True):
    """What is read of a TaskSchedule's metadata."""

    annotations: _Annotations | None = None
    labels: dict[str, str] | None = None


class ScheduleObject(KeptObject, frozen=True):
    """What is read of a TaskSchedule."""

    metadata: ScheduleObjectMetadata
    queue_name: str = ""
    """What of its spec is kept; empty if that is not the name of a queue."""

    @property
    def run_now(self) -> str:
        """The value of the annotation that runs it, or what stands for a longer one in the status."""
        value = self.metadata.annotations.run_now if self.metadata.annotations else ""
        return value if len(value) <= RUN_NOW_LENGTH else sha256(value.encode()).hexdigest()


class _Route(Struct, frozen=True, rename="camel"):
    queue_name: str = ""


def _kept(shaped: ScheduleObject, _: ScheduleObject | None) -> ScheduleObject:
    try:
        queue = msgspec.json.decode(shaped.spec, type=_Route).queue_name
    except UNREADABLE:
        queue = ""
    return replace(without_spec(shaped), queue_name=queue if is_queue_name(queue) else "")


class ScheduleKeeper:
    """Keeps schedules for as long as `run` runs; only the leader runs it."""

    def __init__(  # noqa: PLR0917 - what it is made of
        self,
        cluster: Cluster,
        broker: Broker,
        queues: KnownQueues,
        namespaces: tuple[str | None, ...],
        faults: Faults,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster, self._broker, self._queues, self._faults = cluster, broker, queues, faults
        self._clock = clock
        self._changed = asyncio.Event()
        self._allowance = Allowance()
        self._found: dict[tuple[str, str], dict[str, Kept]] = {}
        """The schedules of the queues that were read in this look."""
        self._swept_at = float("-inf")
        self._reflector: Reflector[ScheduleObject, ScheduleObject] = Reflector(
            cluster, Source(TASKSCHEDULES, ScheduleObject, _kept, namespaces), self, faults
        )

    def changed(self, key: Key, now: ScheduleObject, *, listed: bool) -> None:  # noqa: ARG002 - of a Listener
        """Look at all schedules soon."""
        self._changed.set()

    def gone(self, key: Key, last: ScheduleObject) -> None:  # noqa: ARG002 - of a Listener
        """Look for the schedules whose object is gone soon."""
        self._swept_at = float("-inf")
        self._changed.set()

    async def run(self) -> None:
        """Keep schedules until cancelled."""
        await keep_looking(self._reflector, self._changed, self.once, LOOK_SECONDS)

    async def once(self) -> None:
        """Look at each schedule, and now and then at all queues."""
        self._found.clear()
        for thing in self._allowance.in_turn(self._reflector.things.values()):
            name = f"{thing.metadata.namespace}/{thing.metadata.name}"
            try:
                await self._look_at(thing)
            except ObjectConflict:
                continue  # it has changed meanwhile, and is looked at again
            except (BrokerError, ClusterError) as error:
                log.warning("schedule not looked at", extra={"schedule": name, "error": str(error)})
            except Exception as error:  # whatever it is costs this schedule alone
                self._faults.caught("schedule", error, name)
        loop = asyncio.get_running_loop()
        if loop.time() - self._swept_at >= SWEEP_SECONDS:
            try:
                await self._sweep()
                self._swept_at = loop.time()
            except BrokerError as error:
                log.warning("schedules not swept", extra={"error": str(error)})

    async def _look_at(self, thing: ScheduleObject) -> None:
        before = thing.status_as(TaskScheduleStatus)
        ran = before.run_now or ""
        found: Schedule | None = None
        problem: GalleyError | None = None
        try:
            kept = await self._keep(thing)
            found = kept.schedule
            if thing.run_now and thing.run_now != ran:
                client = AsyncClient.over(self._broker, thing.metadata.namespace)
                handle = await client.schedules.run(kept, f"{thing.uid} {thing.run_now}")
                log.info("schedule run now", extra={"schedule": thing.metadata.name, "task": handle.id})
                ran = thing.run_now
        except (BrokerError, ClusterError):
            raise
        except SpecNotRead as error:
            if before.observed_generation == thing.metadata.generation:
                return
            problem = error
        except GalleyError as error:
            problem = error
        status = status_of(before, thing.metadata.generation, found, problem, ran, self._clock())
        if status != before:
            await write_status(self._cluster, TASKSCHEDULES, thing, written(status))

    async def _keep(self, thing: ScheduleObject) -> Kept:
        """Return the schedule of an object after making it what the object says."""
        metadata = thing.metadata
        place = metadata.namespace, thing.queue_name
        check_schedule_name(metadata.name)
        if thing.queue_name and place not in self._found:
            found = stored.schedules_of(self._broker, *place)
            self._found[place] = {kept.schedule.name: kept async for kept in found}
        present = self._found.get(place, {}).get(metadata.name)
        if present is not None and (present.schedule.uid, present.schedule.generation) == (
            metadata.uid, metadata.generation,
        ):  # fmt: skip
            return present
        if not await self._allowance.take(thing):
            raise SpecNotRead("TaskSchedule", metadata.name, metadata.namespace)
        spec = (await with_spec(self._cluster, TASKSCHEDULES, thing)).spec_as(
            TaskScheduleSpec, "TaskSchedule"
        )
        client = AsyncClient.over(self._broker, metadata.namespace)
        declared = ScheduleMetadata(metadata.name, metadata.uid, metadata.generation, metadata.labels)
        wanted = await schedule_of(client, declared, spec)
        kept = await client.schedules.put(spec.queue_name, wanted, spec.suspend)
        log.info("schedule kept", extra={"schedule": metadata.name, "queue": spec.queue_name})
        return kept

    async def _sweep(self) -> None:
        """Remove schedules whose object is gone, or is now for another queue."""
        for namespace, queue in self._queues:
            try:
                await self._sweep_queue(namespace, queue)
            except BrokerUnreachable:
                raise
            except BrokerError as error:  # it costs this queue alone
                extra = {"queue": f"{namespace}/{queue}", "error": str(error)}
                log.warning("schedules of a queue not swept", extra=extra)

    async def _sweep_queue(self, namespace: str, queue: str) -> None:
        async for kept in stored.schedules_of(self._broker, namespace, queue):
            schedule = kept.schedule
            if schedule.origin is not Origin.OBJECT or not schedule.uid:
                continue
            thing = self._reflector.things.get((namespace, schedule.name))
            if thing is None or thing.uid != schedule.uid or thing.queue_name not in (queue, ""):
                await stored.remove(self._broker, namespace, queue, schedule.name)
                log.info("schedule removed", extra={"schedule": schedule.name, "queue": queue})
