"""Submits the workflow of each Workflow object once, writes its status, and cancels it when the object goes.

No step needs it: workers carry workflows on. While the operator is away they go on, and only their status is
behind.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from msgspec import Raw, Struct, field
from msgspec.structs import replace

from galley.broker.connection import Broker
from galley.broker.errors import BrokerError, BrokerUnreachable
from galley.broker.records import Records
from galley.client import AsyncClient
from galley.errors import GalleyError, ManifestInvalid, QueueNotFound
from galley.record import NULL, Record
from galley.resources.declared_status import INLINE_RESULT_LIMIT
from galley.resources.workflow import DAY, DeclaredWorkflowStatus, WorkflowSpec
from galley.unreadable import UNREADABLE
from galley.workflow.errors import WorkflowConflict
from galley.workflow.state import WORKFLOW, outcome_address, workflow_id
from galley.workflow_manifest import submit_workflow
from galley.workflows import WorkflowStatus
from galley_operator.cluster.allowance import Allowance
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ClusterError, ObjectConflict, ObjectNotFound
from galley_operator.cluster.kept_object import (
    KeptObject,
    ObjectMetadata,
    keep_looking,
    with_spec,
    without_spec,
    write_status,
)
from galley_operator.cluster.reflector import Key, Reflector, Source
from galley_operator.cluster.resource import WORKFLOWS
from galley_operator.errors import SpecNotRead, WorkflowAcrossQueues, WorkflowNotBegun
from galley_operator.faults import Faults
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.workflows.status import Seen, failed, seen, waits, written

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
"""Time between two looks at the workflows that have not ended."""

SWEEP_SECONDS: Final = 60.0
"""Time between two looks at all queues for workflows whose object is gone."""


class _Annotations(Struct, frozen=True):
    workflow: str = field(default="", name=WORKFLOW)


class WorkflowObjectMetadata(ObjectMetadata, frozen=True):
    """What is read of a Workflow's metadata."""

    annotations: _Annotations | None = None
    labels: dict[str, str] | None = None
    created: datetime = field(default=datetime.max.replace(tzinfo=UTC), name="creationTimestamp")


class _Times(Struct, frozen=True, rename="camel"):
    """What is kept of a spec."""

    timeout_seconds: int = DAY
    ttl_seconds_after_finished: int | None = None


class WorkflowObject(KeptObject, frozen=True):
    """What is read of a Workflow."""

    metadata: WorkflowObjectMetadata
    times: _Times = _Times()
    over_at: datetime | None = None
    """When it ended, if it has."""

    @property
    def flow(self) -> str:
        """The id of its workflow."""
        chosen = self.metadata.annotations.workflow if self.metadata.annotations else ""
        return chosen or workflow_id(self.metadata.name, self.uid)


def _kept(shaped: WorkflowObject, _: WorkflowObject | None) -> WorkflowObject:
    try:
        times = msgspec.json.decode(shaped.spec, type=_Times)
    except UNREADABLE:
        times = _Times()  # a look at the whole spec says what is wrong with it
    thing = replace(without_spec(shaped), times=times)
    status = thing.status_as(DeclaredWorkflowStatus)
    if not status.over:
        return thing
    # Nothing but that is needed of it, and there may be very many.
    return replace(thing, status=Raw(b"{}"), over_at=status.completion_time or thing.metadata.created)


class WorkflowKeeper:
    """Keeps workflows for as long as `run` runs; only the leader runs it."""

    def __init__(  # noqa: PLR0917 - what it is made of
        self,
        cluster: Cluster,
        broker: Broker,
        queues: KnownQueues,
        namespaces: tuple[str | None, ...],
        faults: Faults,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        one_queue: bool = False,
    ) -> None:
        """Args: one_queue: whether workers reach their own queue only, since each has credentials."""
        self._cluster, self._broker, self._queues, self._faults = cluster, broker, queues, faults
        self._clock, self._one_queue = clock, one_queue
        self._changed = asyncio.Event()
        self._allowance = Allowance()
        self._gone: set[tuple[str, str]] = set()
        """Namespace and id of workflows whose object was deleted, or was missing at the last sweep."""
        self._swept_at = float("-inf")
        self._reflector: Reflector[WorkflowObject, WorkflowObject] = Reflector(
            cluster, Source(WORKFLOWS, WorkflowObject, _kept, namespaces), self, faults
        )

    def changed(self, key: Key, now: WorkflowObject, *, listed: bool) -> None:  # noqa: ARG002 - of a Listener
        """Look at all workflows soon."""
        self._changed.set()

    def gone(self, key: Key, last: WorkflowObject) -> None:
        """Cancel the workflow of an object soon."""
        self._gone.add((key[0], last.flow))
        self._swept_at = float("-inf")
        self._changed.set()

    async def run(self) -> None:
        """Keep workflows until cancelled."""
        await keep_looking(self._reflector, self._changed, self.once, LOOK_SECONDS)

    async def once(self) -> None:
        """Look at each workflow that has not ended, and now and then at all queues."""
        for thing in self._allowance.in_turn(self._reflector.things.values()):
            name = f"{thing.metadata.namespace}/{thing.metadata.name}"
            try:
                await self._look_at(thing)
            except ObjectConflict:
                continue  # it has changed meanwhile, and is looked at again
            except (BrokerError, ClusterError) as error:
                log.warning("workflow not looked at", extra={"workflow": name, "error": str(error)})
            except Exception as error:  # whatever it is costs this workflow alone
                self._faults.caught("workflow", error, name)
        loop = asyncio.get_running_loop()
        if loop.time() - self._swept_at >= SWEEP_SECONDS:
            self._swept_at = loop.time()
            try:
                await self._sweep()
            except BrokerError as error:
                log.warning("workflows not swept", extra={"error": str(error)})

    async def _look_at(self, thing: WorkflowObject) -> None:
        if thing.over_at is not None:
            await self._expire(thing, thing.over_at)
            return
        before = thing.status_as(DeclaredWorkflowStatus)
        if not (before.workflow and before.queue):
            if not await self._allowance.take(thing):
                if not before.conditions:
                    later = SpecNotRead("Workflow", thing.metadata.name, thing.metadata.namespace)
                    after = waits(before, thing.metadata.generation, later, self._clock())
                    await write_status(self._cluster, WORKFLOWS, thing, written(after))
                return
            thing = await with_spec(self._cluster, WORKFLOWS, thing)
        generation, now = thing.metadata.generation, self._clock()
        try:
            after = seen(before, generation, await self._found(thing, before), now)
        except (ManifestInvalid, WorkflowConflict, WorkflowAcrossQueues) as error:
            after = failed(before, generation, error, now)
        except BrokerError:
            raise
        except GalleyError as error:
            late = now >= self._latest(thing, before)
            after = failed(before, generation, WorkflowNotBegun(str(error)), now) if late else waits(
                before, generation, error, now
            )  # fmt: skip
        if after != before:
            await write_status(self._cluster, WORKFLOWS, thing, written(after))

    async def _found(self, thing: WorkflowObject, before: DeclaredWorkflowStatus) -> Seen:
        """Return what the broker has of a workflow, which is submitted before if it was not."""
        client = AsyncClient.over(self._broker, thing.metadata.namespace)
        if before.workflow and before.queue:
            workflow = client.workflows.get(before.queue, before.workflow)
        else:
            spec = thing.spec_as(WorkflowSpec, "Workflow")
            queues = {step.queue_name for step in spec.steps}
            if self._one_queue and len(queues) > 1:
                raise WorkflowAcrossQueues(thing.metadata.name, ", ".join(sorted(queues)))
            workflow = await submit_workflow(client, thing.flow, spec, thing.metadata.labels, thing.uid)
            log.info("workflow submitted", extra={"workflow": thing.flow, "queue": workflow.queue})
        view = await workflow.status()
        if view.ended_at is None:
            return Seen(view)
        stored = await Records(self._broker).look_up(
            outcome_address(thing.metadata.namespace, view.queue, view.id)
        )
        return Seen(view) if stored is None else _shown(view, stored.record)

    def _latest(self, thing: WorkflowObject, before: DeclaredWorkflowStatus) -> datetime:
        """Return when it is given up."""
        if before.deadline is not None:
            return before.deadline
        return thing.metadata.created + timedelta(seconds=thing.times.timeout_seconds)

    async def _expire(self, thing: WorkflowObject, over_at: datetime) -> None:
        seconds = thing.times.ttl_seconds_after_finished
        if seconds is None or self._clock() < over_at + timedelta(seconds=seconds):
            return
        metadata = thing.metadata
        try:
            await self._cluster.delete(WORKFLOWS, metadata.namespace, metadata.name, uid=thing.uid)
        except (ObjectConflict, ObjectNotFound):
            return
        log.info("workflow object deleted", extra={"workflow": metadata.name})

    async def _sweep(self) -> None:
        """Cancel workflows whose object is gone: at once if that was seen, else if it is at two sweeps.

        A restore creates the streams of a queue before the objects.
        """
        due, self._gone = self._gone, set()
        try:
            self._gone |= await self._cancelled(due)
        except BrokerError:
            self._gone |= due
            self._swept_at = float("-inf")
            raise

    async def _cancelled(self, due: set[tuple[str, str]]) -> set[tuple[str, str]]:
        """Cancel what is due, and return all workflows that have no object."""
        kept = {(namespace, thing.flow) for (namespace, _), thing in self._reflector.things.items()}
        missing: set[tuple[str, str]] = set()
        for namespace, queue in self._queues:
            client = AsyncClient.over(self._broker, namespace)
            try:
                found = await client.workflows.list(queue)
            except QueueNotFound:
                continue  # its streams are still to be made
            except BrokerUnreachable:
                raise
            except BrokerError as error:  # it costs this queue alone
                missing |= {each for each in due if each[0] == namespace}
                extra = {"queue": f"{namespace}/{queue}", "error": str(error)}
                log.warning("workflows of a queue not swept", extra=extra)
                continue
            for status in found:
                name = namespace, status.id
                if not status.uid or status.ended_at is not None or name in kept:
                    continue
                missing.add(name)
                if name in due:
                    await _cancel(client, queue, status.id)
        return missing


async def _cancel(client: AsyncClient, queue: str, flow: str) -> None:
    """Cancel a workflow. One that cannot be, since it expired or is unreadable, costs no other workflow."""
    labels = {"workflow": flow, "queue": queue}
    try:
        await client.workflows.get(queue, flow).cancel()
    except BrokerUnreachable:
        raise
    except GalleyError as error:
        log.warning("workflow not cancelled", extra=labels | {"error": str(error), "hint": error.hint})
    else:
        log.info("workflow cancelled", extra=labels)


def _shown(view: WorkflowStatus, record: Record) -> Seen:
    reason = record.failure.reason if record.failure is not None else ""
    small = record.large is None and not record.sealed and len(record.result) <= INLINE_RESULT_LIMIT
    if small and record.result != NULL:
        return Seen(view, reason, record.result)
    return Seen(view, reason)
