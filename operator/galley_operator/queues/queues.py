"""All TaskQueues: reconciles each on change and on a periodic resync.

Level-triggered: what happened does not matter, only what is there. A queue is read, its streams and objects
are made what it asks for, and its workers are scaled for as long as it exists.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec

from galley.audit import Action
from galley.backlog import QueueBacklog
from galley.broker.connection import Broker
from galley.broker.control import Supply, answering_supply
from galley.broker.dead_letters import count_dead
from galley.errors import GalleyError
from galley.resources import TaskQueue
from galley.resources.condition import Truth, condition
from galley_operator.audit import About, author_of, record
from galley_operator.autoscaler.explain import supply_of
from galley_operator.autoscaler.left import requested
from galley_operator.autoscaler.shares import Cost
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ClusterError
from galley_operator.cluster.resource import TASKQUEUES, key_of
from galley_operator.credentials.client_tls import ClientTls
from galley_operator.credentials.queue_secrets import QueueSecrets
from galley_operator.errors import AccountNotAllowed, FleetUnknown, QueueDeleted, ReferenceNotAllowed
from galley_operator.events import Events, Failures, Occurrence
from galley_operator.faults import Faults
from galley_operator.fleet.deployment_fleet import AUTOSCALER
from galley_operator.fleet.names import child_name
from galley_operator.fleet.workloads import Queue, Workloads
from galley_operator.key_queue import Backoff, KeyQueue
from galley_operator.metrics import OperatorMetrics
from galley_operator.queues.conditions import READY, SCALING_ACTIVE
from galley_operator.queues.left_workers import LeftWorkers
from galley_operator.queues.reconcile import Reconciled, Reconciler
from galley_operator.queues.scaled_queue import ScaledQueue
from galley_operator.queues.scaling_condition import INTERFERENCE_SECONDS, TO_CORRECT, Interference
from galley_operator.queues.served_queue import ServedQueue
from galley_operator.queues.shared_by_queues import SharedByQueues
from galley_operator.settings import OperatorSettings
from galley_operator.tasks.known_queues import KnownQueues, QueueObject

log = logging.getLogger(__name__)

REST_SWEEPS: Final = 5
"""A queue at rest is reconciled at every fifth sweep: its streams and objects are many to ask for."""

_UNWRITTEN_EVENTS: Final = 100

_COUNT_SECONDS: Final = 1.0
"""Time to the next sweep while workers are not listed: no queue grows for 5 seconds after a start."""


class Queues:
    """The queues of some namespaces. `run` serves them until it is cancelled; the workers stay."""

    def __init__(  # noqa: PLR0917 - what it is made of
        self,
        cluster: Cluster,
        broker: Broker,
        settings: OperatorSettings,
        workloads: Workloads,
        metrics: OperatorMetrics,
        known: KnownQueues,
        turns: KeyQueue[Queue],
        faults: Faults,
        secrets: QueueSecrets | None = None,
        tls: Callable[[], ClientTls | None] = lambda: None,
        namespaces: tuple[str | None, ...] = (None,),
        shared: SharedByQueues | None = None,
    ) -> None:
        """Describe what is served.

        Args:
            cluster: where their objects are.
            broker: where their streams are.
            settings: of the operator.
            workloads: their pods and Deployments.
            metrics: where figures are shown.
            known: what kopf's watch saw.
            turns: where others put queues whose objects changed.
            faults: counts exceptions.
            secrets: where they get their credentials from; None if NATS requires none.
            tls: returns what workers need to encrypt connections; None if they do not.
            namespaces: whose queues; None is all.
            shared: by the queues of other namespaces.
        """
        self.served: dict[Queue, ServedQueue] = {}
        self.listed: frozenset[Queue] | None = None
        """The queues there were at the last complete sweep; None before the first."""
        self.swept_at = float("-inf")
        """When the last sweep ended, well or not, by the loop's clock."""
        self.first_listed = asyncio.Event()
        """Set once queues could be listed, so that their kind is known to be served."""
        self.problem = ""
        """Why the queues cannot be listed; empty if they can."""
        self._cluster, self._broker, self._settings = cluster, broker, settings
        self._workloads, self._metrics = workloads, metrics
        self._known, self._turns, self._faults = known, turns, faults
        self._namespaces, self._shared = namespaces, shared or SharedByQueues(broker, settings)
        self._reconciler = Reconciler(cluster, broker, settings, secrets, tls, self._shared.reservations)
        self._tls = tls
        self._events = Events(cluster, settings.pod_name)
        self._occurrences: asyncio.Queue[Occurrence] = asyncio.Queue(_UNWRITTEN_EVENTS)
        self._backoff: Backoff[Queue] = Backoff(random.random)
        self.left = LeftWorkers(workloads, self._shared, namespaces, self.served)
        self._running: asyncio.TaskGroup

    async def run(self) -> None:
        """Serve until cancelled."""
        async with AsyncExitStack() as stack:
            # What a broker forgot is made again as soon as it is back.
            stack.callback(self._broker.on_reconnect(self._look_at_all))
            stack.enter_context(self._known.told_to(self._changed))
            for namespace in self._namespaces:
                answering = answering_supply(self._broker, namespace or "*", "*", self.supply)
                await stack.enter_async_context(answering)
            await self._run()

    def backlogs(self) -> Iterator[tuple[Queue, QueueBacklog]]:
        """Yield what was last known of each queue's tasks."""
        for key, served in self.served.items():
            signals = served.runtime.scaler.signals if served.runtime is not None else None
            if signals is not None and isinstance(signals.backlog, QueueBacklog):
                yield key, signals.backlog

    def supply(self, namespace: str, name: str) -> Supply | None:
        """Return why no worker of a queue takes tasks, for those who wait for one; None if it is not ours."""
        served = self.served.get((namespace, name))
        if served is None:
            return None
        ready = condition(served.written.conditions, READY)
        problem = ready.message if ready is not None and ready.status is Truth.FALSE else ""
        scaler = served.runtime.scaler if served.runtime is not None else None
        supply = supply_of(problem, scaler, served.found.queue)
        scaling = condition(served.written.conditions, SCALING_ACTIVE)
        if scaling is None or scaling.reason not in TO_CORRECT:
            return supply
        return msgspec.structs.replace(supply, scaling_problem=scaling.message)

    def _changed(self, queue: Queue, *, appeared: bool) -> None:
        del appeared
        self._turns.add(queue)

    async def _run(self) -> None:
        keep_running = self._faults.keep_running
        async with asyncio.TaskGroup() as self._running:
            self._running.create_task(keep_running("queues listed", self._resync), name="resync queues")
            self._running.create_task(keep_running("events", self._write_events), name="write events")
            while True:
                key = await self._turns.get()
                await self._shared.room.acquire()
                turn = self._running.create_task(self._turn(key), name=f"reconcile {'/'.join(key)}")
                turn.add_done_callback(lambda _: self._shared.room.release())

    async def sweep(self) -> None:
        """List all queues, for what the watch has missed, and look at each, those that are gone as well.

        Raises:
            ClusterError: if they cannot be listed.
        """
        bodies: list[dict[str, Any]] = []
        for namespace in self._namespaces:
            async for page in self._cluster.pages(TASKQUEUES, namespace):
                bodies += page
        self._known.listed(bodies)
        self.listed = frozenset(key_of(each) for each in bodies)
        self.left.count()
        for key in self.listed | set(self.served):
            if not self._may_wait(key):
                self._turns.add(key, patient=True)
        self.first_listed.set()

    def _may_wait(self, key: Queue) -> bool:
        """Return whether a queue is at rest, was reconciled since, and uses nothing that others change."""
        served, found = self.served.get(key), self._known.found(key)
        if served is None or found is None or served.outcome is None or served.runtime is None:
            return False
        since, queue = served.runtime.scaler.resting_since, served.found.queue
        if queue is None or queue.spec.worker.code is not None or not served.outcome.complete or found.going:
            return False
        age = asyncio.get_running_loop().time() - served.reconciled_at
        return (
            since is not None
            and since < served.reconciled_at
            and age < (REST_SWEEPS - 0.5) * self._settings.sweep_seconds
            and (found.uid, found.generation) == (served.found.uid, served.found.generation)
            and served.reconciled_with == self._tls()
        )

    async def _resync(self) -> None:
        while True:
            try:
                await self.sweep()
                self.problem = ""
            except ClusterError as error:
                self.problem = f"{error}; {error.hint}"
                log.warning("queues not listed", extra={"error": str(error), "hint": error.hint})
            self.swept_at = asyncio.get_running_loop().time()
            # Soon again as long as it does not work: CRDs and rights may come after us.
            pause = self._settings.sweep_seconds
            if self.problem:
                pause = min(5.0, pause)
            elif not self.left.counted:
                pause = min(_COUNT_SECONDS, pause)
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))  # noqa: S311 - spreads load

    async def _look_at_all(self) -> None:
        for key in self.served:
            self._turns.add(key, patient=True)

    async def _turn(self, key: Queue) -> None:
        labels = {"namespace": key[0], "queue": key[1]}
        try:
            with self._metrics.reconcile_seconds.time():
                well = await self._look_at(key)
        except GalleyError as error:
            well = False
            self._metrics.reconcile_errors.labels(error.reason).inc()
            log.warning(
                "queue not looked at in full", extra=labels | {"error": str(error), "hint": error.hint}
            )
        except Exception as error:
            well, fault = False, self._faults.caught("reconcile", error, "/".join(key))
            self._metrics.reconcile_errors.labels(fault.reason).inc()
            if (served := self.served.get(key)) is not None:
                served.outcome = Reconciled(children=fault)
        finally:
            self._turns.done(key)
        if well:
            self._backoff.forget(key)
        else:
            self._turns.add_later(key, self._backoff.after_failure(key))

    async def _look_at(self, key: Queue) -> bool:
        """Reconcile one queue; returns whether nothing is left to be done."""
        found = self._known.found(key)
        if found is None:
            await self._forget(key)
            return True
        if found.going and not self._has_workers(key):
            if not _is_kept(self.served.get(key), found.uid):
                await self._forget(key)
                self.served[key] = ServedQueue(found, _kept(found), written=found.status)
            return True
        served = await self._taken_up(key, found)
        if found.going:
            # Objects made again now would keep it from ever being gone. Workers of one that a finalizer keeps
            # go on, and hold their part of the budget.
            served.found, served.outcome = found, served.outcome or _kept(found)
            if found.queue is not None:
                self._scale(key, served)
            return True
        return await self._serve(key, served, found)

    async def _taken_up(self, key: Queue, found: QueueObject) -> ServedQueue:
        """Return a queue that is to be served, as it was last found."""
        served = self.served.get(key)
        seen = found.status.observed_generation if served is None else served.found.generation
        if seen != found.generation and not found.going:
            self._audit_edit(found)
        if served is None or served.found.uid != found.uid:
            await self._forget(key)
            served = self.served[key] = ServedQueue(
                found, written=found.status, failures=Failures(found.status.dead_letters)
            )
        return served

    async def _serve(self, key: Queue, served: ServedQueue, found: QueueObject) -> bool:
        """Make streams and objects so, and have it scaled; returns whether nothing is left to be done."""
        served.reconciled_at, served.reconciled_with = asyncio.get_running_loop().time(), self._tls()
        outcome = await self._reconciler.reconcile(found)
        self._tell(found, served.outcome, outcome)
        served.found, served.outcome = found, outcome
        if outcome.restored:
            self._interfered(served, outcome.restored)
        if found.queue is not None and (outcome.complete or self._has_own_workers(found)):
            # Pods that cannot be changed are scaled as before, to none if they may not use what they name.
            self._scale(key, served)
        if outcome.streams is None and found.queue is not None:
            served.dead_letters = total = await count_dead(self._broker, *key)
            if new := served.failures.take(total, asyncio.get_running_loop().time()):
                self.occur(Occurrence(found, "TasksFailed", _failed(new, total, key), warning=True))
        return outcome.complete or found.queue is None

    def _interfered(self, served: ServedQueue, what: str) -> None:
        """Tell that another client changed or deleted the Deployment."""
        name = child_name(served.found.name)
        message = (
            f"Deployment {name} was {what} by another client, and is now again what the queue asks for; "
            "change the TaskQueue instead, and to pause it set spec.paused"
        )
        until = asyncio.get_running_loop().time() + INTERFERENCE_SECONDS
        served.interference = Interference(f"Deployment{what.capitalize()}", message, until)
        self.occur(Occurrence(served.found, served.interference.reason, message, warning=True))

    def _audit_edit(self, found: QueueObject) -> None:
        author = author_of(found.metadata, users_recorded=self._settings.users_recorded)
        workers = found.queue.spec.scaling.workers if found.queue is not None and author.scaled else None
        action = Action.SCALE if author.scaled else Action.EDIT
        record(
            action, *found.key,
            About(uid=found.uid, generation=found.generation, user=author.user, manager=author.manager,
                  workers=workers),
        )  # fmt: skip

    def _scale(self, key: Queue, served: ServedQueue) -> None:
        """Have the queue scaled by what it says now."""
        queue = served.found.queue
        assert queue is not None
        cost = self._cost_of(key, served, queue)
        if served.outcome is not None and served.outcome.withdrawn is not None:
            queue = _at_rest(queue)
        if served.runtime is not None and served.scaling is not None and not served.scaling.done():
            served.runtime.update(queue, cost)
            return
        runtime = ScaledQueue(
            self._broker,
            self._cluster,
            self._workloads,
            self._shared.reader,
            queue,
            lambda before, after, reason: self._scaled(key, before, after, reason),
            lambda: self._check_start(key),
            served.written.scaling,
            self._shared.ledger,
            cost,
        )
        served.runtime = runtime
        served.scaling = self._running.create_task(
            self._faults.keep_running("scaling", runtime.run), name=f"scale {'/'.join(key)}"
        )

    async def _check_start(self, key: Queue) -> None:
        """Return if workers may be started; a queue whose workers may not is looked at in full at once.

        Raises:
            AccountNotAllowed, ReferenceNotAllowed: if not.
        """
        try:
            await self._reconciler.check_pods(*key)
        except (AccountNotAllowed, ReferenceNotAllowed):
            self._turns.add(key)
            raise

    async def _forget(self, key: Queue) -> None:
        """Stop scaling a queue that is gone. Its objects go with it, its streams stay for a while."""
        served = self.served.pop(key, None)
        self._metrics.forget(*key)
        if served is None or _is_kept(served, served.found.uid):
            return
        self._reconciler.forget(served.found.uid)
        log.info("queue is gone", extra={"namespace": key[0], "queue": key[1]})
        record(Action.DELETE, *key, About(uid=served.found.uid))
        if served.scaling is not None:
            served.scaling.cancel()
            await asyncio.wait([served.scaling])
        self.left.add(key)

    def _has_workers(self, key: Queue) -> bool:
        """Return whether there is a Deployment to scale, as far as that is known."""
        try:
            return self._workloads.deployment_of(key) is not None
        except FleetUnknown:
            return key in self.served and self.served[key].scaled

    def _has_own_workers(self, found: QueueObject) -> bool:
        """Return whether there is a Deployment that was made for this queue, as far as that is known."""
        try:
            deployment = self._workloads.deployment_of(found.key)
        except FleetUnknown:
            return False
        return deployment is not None and deployment.belongs_to(found.uid)

    def _cost_of(self, key: Queue, served: ServedQueue, queue: TaskQueue) -> Cost:
        """Return what one worker requests: what the queue says, if that is how its workers were made."""
        said = Cost.of(queue, self._settings.worker_resources)
        if served.outcome is not None and served.outcome.complete and not served.found.going:
            return said
        try:
            deployment = self._workloads.deployment_of(key)
        except FleetUnknown:
            deployment = None
        if deployment is not None:
            return requested([deployment.spec.template.spec])
        return served.runtime.scaler.cost if served.runtime is not None else said

    def _scaled(self, key: Queue, before: int, after: int, reason: str) -> None:
        direction = "out" if after > before else "in"
        self._metrics.scalings.labels(*key, direction).inc()
        if (served := self.served.get(key)) is not None:
            record(Action.SCALE, *key, About(manager=AUTOSCALER, workers=after, reason=reason))
            note = f"from {before} to {after} workers. {reason}"
            self.occur(Occurrence(served.found, "Scaled", note))

    def _tell(self, found: QueueObject, before: Reconciled | None, now: Reconciled) -> None:
        """Log what goes wrong with a queue when it begins to, and count it each time."""
        error: GalleyError | None = now.streams or now.children
        if error is None:
            return
        self._metrics.reconcile_errors.labels(error.reason).inc()
        earlier = before and (before.streams or before.children)
        if earlier is None or str(earlier) != str(error):
            log.warning(
                "queue not reconciled",
                extra={
                    "namespace": found.namespace,
                    "queue": found.name,
                    "error": str(error),
                    "hint": error.hint,
                },
            )

    def occur(self, occurrence: Occurrence) -> None:
        """Have an event written."""
        try:
            self._occurrences.put_nowait(occurrence)
        except asyncio.QueueFull:
            log.warning("event dropped, too many wait", extra={"reason": occurrence.reason})

    async def _write_events(self) -> None:
        while True:
            await self._events.write(await self._occurrences.get())


def _at_rest(queue: TaskQueue) -> TaskQueue:
    """Return a queue that has no workers: those there finish their tasks."""
    return queue.model_copy(update={"spec": queue.spec.model_copy(update={"paused": True})})


def _kept(found: QueueObject) -> Reconciled:
    return Reconciled(children=QueueDeleted(found.name))


def _is_kept(served: ServedQueue | None, uid: str) -> bool:
    """Return whether it was seen before that a queue is gone but for its finalizers."""
    return (
        served is not None
        and served.found.uid == uid
        and served.runtime is None
        and served.outcome is not None
        and isinstance(served.outcome.children, QueueDeleted)
    )


def _failed(new: int, total: int, key: Queue) -> str:
    namespace, name = key
    which = "1 task has failed" if new == 1 else f"{new} tasks have failed"
    return (
        f"{which} and will not be tried again ({total} kept as dead letters); kubectl get tasks --namespace "
        f"{namespace} --field-selector spec.queueName={name},status.phase=Failed -o wide tells why"
    )
