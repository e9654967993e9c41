"""One queue at work on a cluster: its workers, and the scaler that decides on them."""

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime

from galley.backlog import Unknown
from galley.broker.connection import Broker
from galley.broker.doorbell import Doorbell
from galley.broker.signals import SignalReader
from galley.errors import GalleyError
from galley.resources import TaskQueue
from galley.resources.queue_status import ScalingStatus
from galley_operator.autoscaler.learned import Learned
from galley_operator.autoscaler.ledger import Ledger
from galley_operator.autoscaler.scaler import Scaler
from galley_operator.autoscaler.shares import Cost
from galley_operator.autoscaler.signals import Memory, ScalingPolicy
from galley_operator.cluster.client import Cluster
from galley_operator.errors import FleetUnknown
from galley_operator.fleet.deployment_fleet import DeploymentFleet
from galley_operator.fleet.fleet import Workforce
from galley_operator.fleet.names import child_name
from galley_operator.fleet.trouble import Trouble
from galley_operator.fleet.workloads import Workloads
from galley_operator.queues.scaling_condition import INTERFERENCE_SECONDS, Interference

log = logging.getLogger(__name__)

Scaled = Callable[[int, int, str], None]
"""Is told the numbers of workers before and after, and why."""


class ScaledQueue:
    """`run` scales until it is cancelled; the workers stay."""

    def __init__(  # noqa: PLR0917 - what it is made of
        self,
        broker: Broker,
        cluster: Cluster,
        workloads: Workloads,
        reader: SignalReader,
        queue: TaskQueue,
        scaled: Scaled,
        may_start: Callable[[], Awaitable[None]],
        before: ScalingStatus | None = None,
        ledger: Ledger | None = None,
        cost: Cost | None = None,
    ) -> None:
        """Make it; `run` runs it.

        Args:
            broker: an open connection.
            cluster: the API server.
            workloads: pods and Deployments as they are seen.
            reader: of backlogs.
            queue: what it says now.
            scaled: called at each change of the number of workers.
            may_start: called before there are more workers; what it raises keeps them from being started.
            before: what an earlier operator wrote of the queue's scaling.
            ledger: of the budget that queues share; None if there is none.
            cost: what one worker requests; by default only that it is one.
        """
        name = queue.metadata.namespace, queue.metadata.name
        self._name, self._workloads = name, workloads
        self.may_start = may_start
        self._bell = Doorbell(broker, *name)
        self._fleet = DeploymentFleet(
            broker,
            cluster,
            workloads.sight_of(name),
            name,
            deployment=child_name(name[1]),
            slots=queue.spec.worker.concurrency,
        )
        self.scaler = Scaler(
            reader,
            self._bell,
            _Telling(self, scaled),
            ScalingPolicy.of(queue),
            queue=name,
            memory=remembered(before),
            ledger=ledger,
        )
        self.scaler.cost = cost or Cost(1)

    @property
    def fleet(self) -> DeploymentFleet:
        """Its workers."""
        return self._fleet

    def update(self, queue: TaskQueue, cost: Cost) -> None:
        """Decide by what the queue says now, and one worker requests, from the next sweep on."""
        policy = ScalingPolicy.of(queue)
        if (policy, cost) != (self.scaler.policy, self.scaler.cost):
            self.scaler.policy, self.scaler.cost = policy, cost
            self.scaler.wake()
        self._fleet.slots = queue.spec.worker.concurrency

    async def run(self) -> None:
        """Keep the workers at the number the work asks for."""
        async with self._bell, self._fleet:
            with self._workloads.told_to(self._name, self.scaler.wake):
                await self.scaler.run()

    async def workforce(self) -> Workforce | Unknown:
        """Return the workers as they are now, or why they are not known."""
        try:
            return await self._fleet.observe()
        except GalleyError as error:
            return Unknown(str(error), datetime.now(UTC))

    @property
    def interference(self) -> Interference | None:
        """What another client did to the number of its workers."""
        found = self._fleet.overridden
        if found is None:
            return None
        seen, own, at = found
        message = (
            f"the replicas of Deployment {child_name(self._name[1])} were set to {seen} by another client "
            f"(from {own}), and are set back to what the queue needs; use kubectl scale taskqueue, or "
            "spec.scaling, and remove what scales the Deployment"
        )
        return Interference("ReplicasChanged", message, at + INTERFERENCE_SECONDS)

    @property
    def trouble(self) -> Trouble | None:
        """Why workers do not come up, if that is known."""
        try:
            return self._fleet.trouble
        except FleetUnknown:
            return None


def remembered(status: ScalingStatus | None) -> Memory | None:
    """Return the memory an autoscaler begins with, from what an earlier operator wrote, if it did."""
    if status is None:
        return None
    learned = Learned.remembered(
        status.arrivals_per_second, status.task_seconds, status.start_seconds, held=status.steady_tasks
    )
    memory = Memory(learned=learned)
    return memory if status.pause_worth is None else replace(memory, pause_worth=status.pause_worth)


class _Telling:
    """The runtime's fleet, which also tells what it was told."""

    def __init__(self, runtime: ScaledQueue, scaled: Scaled) -> None:
        self._runtime, self._scaled = runtime, scaled

    async def observe(self) -> Workforce:
        return await self._runtime.fleet.observe()

    async def scale(self, workers: int) -> None:
        fleet = self._runtime.fleet
        before = len((await fleet.observe()).present)
        if workers > before:
            await self._runtime.may_start()
        await fleet.scale(workers)
        decision = self._runtime.scaler.last
        if before != workers:
            self._scaled(before, workers, decision.reason if decision is not None else "")

    async def drain(self, names: Collection[str], seconds: float) -> None:
        await self._runtime.fleet.drain(names, seconds)
