"""The operator: one process from its settings to its end.

    health pages > cluster, broker > copies of Tasks, pods, Deployments > Lease > namespaces > kopf

What stands further left is opened first and closed last: `run` is the one place where the parts are made and
nested. A replica that does not lead has everything up to the Lease, so that it can begin at once. A leader
that loses the Lease exits.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from galley.broker.connection import Broker
from galley.broker.counts import CountReader
from galley.broker.object_collector import ObjectCollector
from galley.otlp_metrics import metrics_sent
from galley_operator import metrics as series
from galley_operator.audit_trail import AuditTrail
from galley_operator.broker_access import BrokerAccess
from galley_operator.claims import Claim
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.data_path import TaskView
from galley_operator.faults import Faults
from galley_operator.figures import CountKeeper
from galley_operator.fleet.ends import WorkerEnds
from galley_operator.fleet.workloads import Queue, Workloads
from galley_operator.handlers import QueueWatch
from galley_operator.health import LATE_SECONDS, Health, LoopWatch, served
from galley_operator.leadership import Leadership, LeaseTimes
from galley_operator.metrics import OperatorMetrics
from galley_operator.queues.collection import StreamCollector
from galley_operator.queues.shared_by_queues import SharedByQueues
from galley_operator.scope import Surroundings
from galley_operator.serving import Serving, Views
from galley_operator.settings import OperatorSettings
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.tasks.queue_keys import payloads_of

log = logging.getLogger(__name__)

_SILENT_SWEEPS: Final = 3
"""Sweeps that may be missing before a leader counts as dead; one takes half a minute at most."""

_DEAF_SECONDS: Final = 400.0
"""A watch that received nothing for so long is broken: the server sends a bookmark every few minutes."""

_ANSWERED_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is there whether or not we lead."""

    cluster: Cluster
    broker: Broker
    access: BrokerAccess
    health: Health
    faults: Faults
    workloads: Workloads
    ends: WorkerEnds
    views: Views
    serving: Serving
    leadership: Leadership


class Operator:
    """One operator process."""

    def __init__(self, settings: OperatorSettings) -> None:
        self._settings = settings
        self._metrics = OperatorMetrics()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Stop leading, or waiting to, and end."""
        log.info("operator stops")
        self._stopping.set()

    def catch_signals(self) -> None:
        """Have SIGTERM and SIGINT stop this operator; replaces the handlers others installed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    async def run(self) -> None:
        """Work until `stop` is called.

        Raises:
            ClusterConfigInvalid: it is not known how to reach the cluster.
            BrokerTooOld: NATS lacks what is needed.
            LeadershipLost: another replica may lead by now.
        """
        settings, metrics = self._settings, self._metrics
        config = load_config(settings.kubeconfig)
        namespace = settings.lease_namespace or config.namespace
        faults = Faults(
            lambda where: metrics.faults.labels(where).inc(),
            lambda where: metrics.interrupted.labels(where).inc(),
        )
        health = Health(metrics.page)
        lag = LoopWatch(metrics.loop_lag.set)
        health.live(lambda: f"the event loop was {lag.late:.1f} s late" if lag.late > LATE_SECONDS else "")
        health.ready(lambda: "stopping" if self._stopping.is_set() else "")
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            await enter(served(health, settings.health_host, settings.health_port))
            await enter(_beside(lag.run(), "loop watch"))
            await enter(metrics_sent(os.environ, metrics.families, service_name="galley-operator"))
            cluster = await enter(Cluster(config))
            access = BrokerAccess(cluster, settings, namespace)
            stack.push_async_callback(access.close)
            with health.waiting(f"no connection to NATS at {settings.server}"):
                broker = await self._until_stop(access.connect())
            if broker is None:
                return
            stack.push_async_exit(broker)
            ends = WorkerEnds(broker)

            def touched(queue: Queue) -> None:
                serving.touched(queue)

            workloads = Workloads(cluster, settings.scopes, touched, faults, ends=ends.see)
            views = Views(settings.scopes, lambda scope: TaskView(cluster, (scope,), faults))
            installation = f"{namespace}/{settings.lease_name}"

            async def watch(scope: str | None, known: KnownQueues) -> None:
                where = () if scope is None else (scope,)
                await QueueWatch(config, where, known, faults, self.catch_signals).run()

            serving = Serving(
                Surroundings(
                    cluster, broker, settings, access, workloads, metrics, faults,
                    SharedByQueues(broker, settings), watch,
                ),
                views,
                [Claim(cluster, each, installation) for each in settings.served_namespaces],
                everywhere=not settings.served_namespaces,
            )  # fmt: skip
            # Only tasks that are submitted here are encrypted with it: the connection is the operator's own.
            broker.payloads = payloads_of(cluster, serving.found)
            leadership = Leadership(
                cluster,
                (namespace, settings.lease_name),
                settings.pod_name,
                LeaseTimes(settings.lease_seconds, settings.renew_seconds, settings.retry_seconds),
            )
            parts = _Parts(
                cluster, broker, access, health, faults, workloads, ends, views, serving, leadership
            )
            if access.keeper is not None:
                # Each replica does: the leader may be the one that cannot reach the API server.
                await enter(_beside(faults.keep_running("certificates", access.keeper.run), "certificates"))
            self._watch_over(parts)
            await enter(_beside(faults.keep_running("workloads", workloads.run), "workloads"))
            await enter(_beside(faults.keep_running("tasks seen", views.run), "tasks seen"))
            log.info("operator waits to lead", extra={"lease": settings.lease_name})
            await self._until_stop(leadership.acquire())
            stack.push_async_callback(leadership.release)
            if leadership.leading and not self._stopping.is_set():
                await self._lead(parts)

    async def _lead(self, parts: _Parts) -> None:
        """Do what only one replica may do, until asked to stop.

        Raises:
            LeadershipLost: another one may do it by now.
        """
        settings, metrics, broker = self._settings, self._metrics, parts.broker
        faults, access, serving = parts.faults, parts.access, parts.serving
        collector = StreamCollector(
            parts.cluster, broker, settings, serving.queues_in, secrets=access.secrets
        )
        objects = ObjectCollector(broker, settings.install, serving.serves, caught=faults.caught)
        self._watch_over_leader(parts.health, serving)
        async with AsyncExitStack() as stack:
            holding = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(holding.create_task(parts.leadership.hold(), name="hold the lease").cancel)
            scope = settings.namespaces or "all"
            log.info("operator leads", extra={"namespaces": scope, "install": settings.install})
            metrics.leading.set(1)
            stack.callback(metrics.leading.set, 0)
            loops: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
                ("namespaces", serving.run),
                ("stream collector", collector.run),
                ("objects", objects.run),
                ("room of the broker", lambda: metrics.broker.follow(broker, settings.broker_storage_bytes)),
                ("counts", CountKeeper(CountReader(broker), metrics.tasks, serving.backlogs).run),
                ("ends of workers", parts.ends.run),
                ("audit", AuditTrail(broker).run),
            )
            if access.backup is not None:
                loops += (("credentials of backups", access.backup.run),)
            if access.gateway is not None:
                loops += (("credentials of the gateway", access.gateway.run),)
            for name, work in loops:
                await stack.enter_async_context(_beside(faults.keep_running(name, work), name))
            await self._stopping.wait()

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

    # What the pages say.

    def _watch_over(self, parts: _Parts) -> None:
        views, workloads, leadership, figure = (
            parts.views, parts.workloads, parts.leadership, self._metrics.figure,
        )  # fmt: skip
        connection = parts.cluster.connection
        figure(series.API_REQUESTS, lambda: connection.answered)
        figure(series.API_WITHOUT_ROOM, lambda: connection.without_room)
        if (keeper := parts.access.keeper) is not None:
            figure(series.CERTIFICATE, lambda: keeper.present.expires)
        figure(series.ACTIVE_TASKS, lambda: len(views))
        figure(series.CONNECTED, lambda: parts.broker.connected)
        figure(series.CONNECTIONS, lambda: parts.broker.connection)

        def deaf() -> str:
            now = time.monotonic()
            silent = now - min(workloads.heard_at, views.heard_at)
            # If the API server answers no client, a new process would hear no more.
            if silent <= _DEAF_SECONDS or now - leadership.heard_at >= _ANSWERED_SECONDS:
                return ""
            return f"the API server answers, and no watch received anything for {silent:.0f} s"

        def unlisted() -> str:
            if not views.synced:
                return "Tasks have not been listed yet; are the CRDs installed?"
            return "" if workloads.synced else "pods and Deployments have not been listed yet"

        def connected() -> str:
            return "" if parts.broker.connected else f"no connection to NATS at {self._settings.server}"

        parts.health.live(lambda: "" if self._stopping.is_set() else deaf())
        parts.health.ready(connected)
        parts.health.ready(unlisted)
        parts.health.state = lambda: f"waits to lead; the leader is {leadership.leader or 'not known'}"

    def _watch_over_leader(self, health: Health, serving: Serving) -> None:
        figure = self._metrics.figure
        figure(series.ADMITTED, lambda: serving.admitted)
        figure(series.TASK_STATUS_WRITES, lambda: serving.written)
        scopes = serving.scopes.values
        figure(series.TASK_STATUS_WAITING, lambda: sum(len(each.path.writer) for each in scopes()))
        figure(series.QUEUES, lambda: sum(len(each.queues.served) for each in scopes()))
        figure(series.QUEUES_READY, lambda: sum(each.statuses.ready for each in scopes()))

        def silent() -> str:
            now = asyncio.get_running_loop().time()
            since = max((now - max(each.began, each.queues.swept_at) for each in scopes()), default=0.0)
            allowed = _SILENT_SWEEPS * self._settings.sweep_seconds + 60
            if since <= allowed or self._stopping.is_set():
                return ""
            return f"the last look at the queues was {since:.0f} s ago; {allowed:.0f} are allowed"

        health.live(silent)
        health.ready(lambda: serving.problem)
        health.state = lambda: "\n".join(["leads", *serving.problems])


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Have work done beside the block; if it fails the block is cancelled, and it ends with the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work, name=name)
        try:
            yield
        finally:
            task.cancel()
