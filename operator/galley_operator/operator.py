"""The operator: waits to lead, serves queues and tasks while it does, and leaves in good order.

    health pages > cluster, broker > copies of pods and Deployments > Lease > queues, status, tasks > kopf

What stands further left is opened first and stops last. A replica that does not lead has everything up to
the Lease, so that it can begin at once. Who loses the Lease ends, and begins anew as a process.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from galley.broker.connection import Broker
from galley_operator.broker_access import BrokerAccess
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import ClusterConfig, load_config
from galley_operator.credentials.queue_secrets import QueueSecrets
from galley_operator.data_path import DataPath, DataPathSettings
from galley_operator.fleet.workloads import Workloads
from galley_operator.handlers import QueueWatch
from galley_operator.health import LATE_SECONDS, Answer, LoopWatch, Pages, served
from galley_operator.leadership import Leadership, LeaseTimes
from galley_operator.metrics import OperatorMetrics
from galley_operator.queues.collection import StreamCollector
from galley_operator.queues.queues import Queues
from galley_operator.queues.status_writer import QueueStatusWriter
from galley_operator.settings import OperatorSettings

log = logging.getLogger(__name__)

_FLUSH_SECONDS: Final = 5.0
"""How long the last writes of status may take before the process ends."""

_SILENT_SWEEPS: Final = 3
"""Sweeps that may be missing before a leader counts as dead; one takes half a minute at most."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is there whether or not we lead."""

    config: ClusterConfig
    cluster: Cluster
    broker: Broker
    workloads: Workloads
    leadership: Leadership
    tasks: DataPath


_DEAF_SECONDS: Final = 400.0
"""A watch that heard nothing for so long is broken: it is begun anew, and told so, every five minutes."""

_ANSWERED_SECONDS: Final = 30.0


class Operator:
    """One operator process."""

    def __init__(self, settings: OperatorSettings) -> None:
        self._settings = settings
        self._metrics = OperatorMetrics()
        self._lag = LoopWatch(self._metrics.loop_lag.set)
        self._broker: Broker | None = None
        self._secrets: QueueSecrets | None = None
        self._workloads: Workloads | None = None
        self._tasks: DataPath | None = None
        self._leadership: Leadership | None = None
        self._queues: Queues | None = None
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Stop leading, or waiting to, and end."""
        log.info("operator stops")
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop` is called.

        Raises:
            ClusterConfigInvalid: it is not known how to reach the cluster.
            BrokerTooOld: NATS lacks what is needed.
            LeadershipLost: another replica may lead by now.
        """
        config = load_config(self._settings.kubeconfig)
        pages = Pages(self._live, self._ready, self._metrics.page)
        async with (
            served(pages, self._settings.health_host, self._settings.health_port),
            _beside(self._lag.run(), "loop watch"),
            Cluster(config) as cluster,
        ):
            access = BrokerAccess(cluster, self._settings, self._settings.lease_namespace or config.namespace)
            broker = await self._until_stop(access.connect())
            if broker is None:
                return
            self._broker, self._secrets = broker, access.secrets
            try:
                await self._serve(config, cluster, broker)
            finally:
                await broker.__aexit__(None, None, None)

    async def _serve(self, config: ClusterConfig, cluster: Cluster, broker: Broker) -> None:
        settings = self._settings
        workloads = self._workloads = Workloads(cluster, settings.scopes, self._touched)
        tasks = self._tasks = DataPath(
            cluster,
            broker,
            DataPathSettings(settings.scopes, settings.task_ttl_seconds),
            workloads.end_of,
        )
        self._show(cluster, tasks)
        leadership = self._leadership = Leadership(
            cluster,
            (settings.lease_namespace or config.namespace, settings.lease_name),
            settings.pod_name,
            LeaseTimes(settings.lease_seconds, settings.renew_seconds, settings.retry_seconds),
        )
        async with _beside(workloads.run(), "workloads"), _beside(tasks.watch(), "tasks seen"):
            log.info("operator waits to lead", extra={"lease": settings.lease_name})
            await self._until_stop(leadership.acquire())
            try:
                if leadership.leading and not self._stopping.is_set():
                    await self._lead(_Parts(config, cluster, broker, workloads, leadership, tasks))
            finally:
                await leadership.release()

    async def _lead(self, parts: _Parts) -> None:
        """Do what only one replica may do, until asked to stop.

        Raises:
            LeadershipLost: another one may do it by now.
        """
        settings, metrics = self._settings, self._metrics
        cluster, broker = parts.cluster, parts.broker
        queues = self._queues = Queues(cluster, broker, settings, parts.workloads, metrics, self._secrets)
        statuses = QueueStatusWriter(cluster, queues, metrics)
        collector = StreamCollector(cluster, broker, settings, lambda: queues.listed)
        watch = QueueWatch(parts.config, settings.served_namespaces, queues.heard)
        scope = settings.namespaces or "all"
        log.info("operator leads", extra={"namespaces": scope, "install": settings.install})
        metrics.leading.set(1)
        async with asyncio.TaskGroup() as holding:
            hold = holding.create_task(parts.leadership.hold(), name="hold the lease")
            async with (
                _flushed(statuses),
                _beside(queues.run(), "queues"),
                _beside(statuses.run(), "queue status"),
                _beside(collector.run(), "stream collector"),
                _beside(parts.tasks.lead(), "tasks"),
                _beside(_after(queues.first_listed, watch.run), "kopf"),
            ):
                await self._stopping.wait()
            hold.cancel()
        metrics.leading.set(0)

    async def _until_stop(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Return what the work returns, or None if asked to stop before."""
        working = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            stopping.cancel()
            working.cancel()
            await asyncio.wait([working])

    def _touched(self, queue: tuple[str, str]) -> None:
        if self._queues is not None:
            self._queues.heard(queue)

    def _show(self, cluster: Cluster, tasks: DataPath) -> None:
        """Have figures that others count among ours."""
        figure, connection = self._metrics.figure, cluster.connection
        figure("api_requests", "Requests the API server answered", lambda: connection.answered)
        figure(
            "api_requests_without_room",
            "Requests the API server had no room for",
            lambda: connection.without_room,
        )
        figure("active_tasks", "Tasks that have not ended", lambda: len(tasks.tasks))
        figure("tasks_let_in", "Tasks given to the broker by this process", lambda: tasks.intake.let_in)
        figure("task_status_writes", "Writes of a Task's status", lambda: tasks.writer.written)
        figure("task_status_waiting", "Statuses of Tasks that wait to be written", lambda: len(tasks.writer))

    def _live(self) -> Answer:
        problem = next(self._not_alive(), None)
        return problem is None, problem or f"the event loop is {self._lag.late:.2f} s late at most"

    def _not_alive(self) -> Iterator[str]:
        """Yield what only a new process can mend."""
        if self._lag.late > LATE_SECONDS:
            yield f"the event loop was {self._lag.late:.1f} s late"
        if self._stopping.is_set():
            return
        if self._queues is not None:
            silent = asyncio.get_running_loop().time() - self._queues.swept_at
            allowed = _SILENT_SWEEPS * self._settings.sweep_seconds + 60
            if allowed < silent < float("inf"):
                yield f"the last look at the queues was {silent:.0f} s ago; {allowed:.0f} are allowed"
        if self._leadership is None or self._workloads is None or self._tasks is None:
            return
        now = time.monotonic()
        silent = now - min(self._workloads.heard_at, self._tasks.heard_at)
        # With an API server that does not answer anybody, a new process would hear no more.
        if silent > _DEAF_SECONDS and now - self._leadership.heard_at < _ANSWERED_SECONDS:
            yield f"the API server answers, and no watch heard of it for {silent:.0f} s"

    def _ready(self) -> Answer:
        problem = next(self._not_ready(), None)
        if problem is not None:
            return False, problem
        leader = self._leadership.leader if self._leadership is not None else ""
        return True, "leads" if self._queues is not None else f"waits to lead; {leader or 'nobody'} does"

    def _not_ready(self) -> Iterator[str]:
        """Yield what is missing, what to look at first at first."""
        if self._stopping.is_set():
            yield "stopping"
        if self._broker is None or not self._broker.connected:
            yield f"no connection to NATS at {self._settings.server}"
        if self._tasks is None or not self._tasks.synced:
            yield "TaskQueues and Tasks have not been listed yet; are the CRDs installed?"
        if self._workloads is None or not self._workloads.synced:
            yield "pods and Deployments have not been listed yet"
        if self._queues is not None and self._queues.problem:
            yield self._queues.problem
        if self._queues is not None and self._queues.listed is None:
            yield "queues have not been looked at yet"


async def _after(event: asyncio.Event, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    await event.wait()
    await work()


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Have work done beside the block; if it fails the block is cancelled, and it ends with the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work, name=name)
        try:
            yield
        finally:
            task.cancel()


@asynccontextmanager
async def _flushed(statuses: QueueStatusWriter) -> AsyncIterator[None]:
    """Write, at the end of the block, what nobody has been told yet."""
    yield
    try:
        async with asyncio.timeout(_FLUSH_SECONDS):
            await statuses.write_all()
    except TimeoutError:
        log.warning("queue status not flushed")
