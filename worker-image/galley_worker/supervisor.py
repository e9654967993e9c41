"""Supervisor: one worker process; the one place where its parts are made and nested.

    handlers' processes > health pages > broker > leases, planner, ticker > answers, heartbeats > hands

What stands further left is opened first and closed last. So pulling ends first, attempts end or are handed
back, and the leases are released last.
"""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from galley.broker.connection import Broker
from galley.broker.counts import Outbox
from galley.broker.errors import BrokerUnreachable, TlsFailed
from galley.broker.layout import layout_of
from galley.broker.objects import Place
from galley.broker.topics import TopicPublisher
from galley.broker.topology import QueueLayout
from galley.broker.unique_keys import Keys
from galley.faults import Faults
from galley.key import digest_of_key
from galley.objects.node_cache import NodeCache
from galley.objects.store import VARIABLE
from galley.otlp_metrics import metrics_sent
from galley.queue_limit import QueueRules
from galley.resources import Plaintext, TaskQueue, TaskQueueSpec
from galley.tracing import id_in
from galley_worker.attempts import Attempts, Parts
from galley_worker.circuit import Circuit
from galley_worker.claim import Who
from galley_worker.claimant import Claimant, Holders
from galley_worker.clock import uninterrupted, utc_now
from galley_worker.code_schedules import declare
from galley_worker.code_subscriptions import subscribe
from galley_worker.continuation import Continuations
from galley_worker.fanout import Fanout
from galley_worker.flows import Workflows
from galley_worker.hands import Hands
from galley_worker.health import Condition, HealthPages, liveness, readiness
from galley_worker.judge import Rules
from galley_worker.leases import LeaseKeeper
from galley_worker.ledger import Ledger
from galley_worker.life import PATIENCE_SECONDS, Life
from galley_worker.measures import Measures
from galley_worker.notebook import Notebook
from galley_worker.objects import Sweeper, TaskObjects, pause
from galley_worker.planner import Planner
from galley_worker.presence import Presence
from galley_worker.puller import Puller
from galley_worker.queue_limit import QueueLimit
from galley_worker.retry_budget import RetryBudget
from galley_worker.runners.runners import Runners
from galley_worker.runners.settings import CommandHandler, HttpHandler, Line, RunnerSettings
from galley_worker.settings import WorkerSettings, payloads_of, signing_keys_of
from galley_worker.settle import Settler
from galley_worker.slots import Changes, WorkerSlots
from galley_worker.solitude import Solitude
from galley_worker.stop import Stop
from galley_worker.tally import Tally
from galley_worker.ticker import Ticker
from galley_worker.traces import Traces, sent
from galley_worker.turns import KeyRules, Turns
from galley_worker.uniqueness import Uniqueness

log = logging.getLogger(__name__)
_output_log = logging.getLogger("galley_worker.output")
# The children have filtered already, by the level of the queue.
_output_log.setLevel(1)

_CONNECT_SECONDS: Final = 10.0
"""How long one try to connect takes; then the reason is logged, and the next begins."""
_CONNECT_PAUSE_SECONDS: Final = 1.0
_LEASES_PAUSE_SECONDS: Final = 1.0
"""Until leases are looked at again after an unexpected exception: less than the margin they are fenced by."""


class Supervisor:
    """One worker process. `run` makes its parts and nests them: opened first, closed last."""

    def __init__(self, settings: WorkerSettings, queue: TaskQueue) -> None:
        self._settings = settings
        self._queue = queue
        self._payloads = payloads_of(settings, queue)
        self._who = Who(settings.worker, secrets.token_hex(4))
        self._stop = Stop()
        self._condition = _connecting
        self._leases: LeaseKeeper | None = None
        self._runners: Runners | None = None
        self._all = False
        self._faults = Faults()
        self._notebook = Notebook(queue.metadata.namespace, self._who, utc_now)

    def stop(self) -> None:
        """Take no more tasks and stop when running attempts have ended; a second call stops those at once."""
        self._stop.signal()

    def log_all(self, on: bool) -> None:
        """Have Python handlers log from DEBUG on, or as before."""
        self._all = on
        if self._runners is not None:
            self._runners.log_all(on)

    def _known(self, runners: Runners) -> Runners:
        self._runners = runners
        self.log_all(self._all)
        return runners

    async def run(self) -> None:
        """Work until `stop` is called.

        Raises:
            BrokerTooOld: the broker lacks what Galley needs.
            AccessRefused, CredentialsInvalid, CredentialsExpired: the broker does not accept this worker.
            TlsInvalid: a file with certificates or a key cannot be used.
            ModuleImportFailed: a module of the queue does not import.
        """
        namespace, name = self._queue.metadata.namespace, self._queue.metadata.name
        spec, lease_seconds, grown = self._queue.spec, self._settings.lease_seconds, Changes()
        faults = self._faults
        async with AsyncExitStack() as parts:
            enter = parts.enter_async_context
            cache = parts.enter_context(
                NodeCache(self._settings.cache, self._settings.cache_bytes, f"{namespace}.{name}")
            )
            runners = self._known(await enter(Runners(self._runner_settings(cache), grown=grown.tell)))
            slots = WorkerSlots(runners, spec.worker.concurrency, grown)
            measures = Measures(namespace, name, lambda: slots.capacity, lambda: slots.busy, cache)
            measures.batch_sizes = lambda: runners.batch_sizes
            slots.circuit = measures.circuit = self._circuit(grown)
            await enter(self._health(measures))
            broker = await self._stop.unless_asked(self._connect())
            if broker is None:
                return
            parts.push_async_exit(broker)
            layout = layout_of(self._queue, "")
            leases = self._leases = LeaseKeeper(broker, uninterrupted, lease_seconds)
            ledger = Ledger(broker)
            holders = Holders(broker, uninterrupted, lease_seconds)
            flows = Workflows(
                broker, namespace, name, ledger, spec.retention.results_seconds, utc_now,
                plaintext=plaintext_allowed(self._queue),
            )  # fmt: skip
            life = self._life(broker, measures)
            settler = Settler(ledger, self._who, spec.retention.results_seconds, utc_now, flows, life=life)
            uniqueness, objects = Uniqueness(Keys(broker, utc_now)), TaskObjects(broker.objects, cache)
            traces = parts.enter_context(sent(os.environ, namespace, name))
            about = {"service_name": "galley-worker", "service_namespace": namespace, "galley_queue": name}
            await enter(metrics_sent(os.environ, measures.collect, **about))
            attempts = self._make_attempts(
                ledger, settler, holders, runners, leases, measures, uniqueness, slots.solitude, objects,
                flows, Continuations(broker, ledger, flows, utc_now), traces,
                Turns(broker, layout, ledger, settler, key_rules(spec), utc_now),
            )  # fmt: skip
            puller = Puller(broker, layout, slots, ledger.replies.give_back, faults)
            presence = Presence(broker, self._who, attempts.roster, puller, slots, self._stop, faults)
            hands = Hands(attempts, puller, slots, self._stop, float(spec.worker.grace_period_seconds))
            self._condition = presence.condition
            outbox = Outbox(broker, (namespace, name), self._who.holder, time.monotonic)
            await enter(Tally(outbox, measures, settler, faults).kept())
            await enter(faults.beside("leases", leases.run, _LEASES_PAUSE_SECONDS))
            await enter(self._limited(broker, layout, slots, attempts, puller))
            self._notebook.dropped = measures.note_dropped
            await enter(self._notebook.writing(broker, faults))
            allowed = plaintext_allowed(self._queue)
            fanout = Fanout(
                broker, layout, ledger, measures, self._who.name, utc_now, plaintext=allowed, traces=traces
            )
            beside: dict[str, Callable[[], Awaitable[None]]] = {
                "objects": Sweeper(broker, Place(namespace, name), pause).run,
                "planner": Planner(broker, layout, ledger, settler, utc_now).run,
                "ticker": Ticker(broker, layout, ledger, measures, utc_now, plaintext=allowed).run,
                "schedules of the code": partial(declare, broker, layout, runners.rules),
                "events": fanout.run,
                "subscriptions of the code": partial(subscribe, broker, layout, runners.rules),
            }
            for where, work in beside.items():
                await enter(faults.beside(where, work))
            await enter(presence.shown(namespace, name))
            log.info("worker ready", extra={"handlers": sorted(runners.handlers)})
            await hands.run()
            log.info("worker drained")

    async def _connect(self) -> Broker:
        """Return an open connection to the broker, however long that takes."""
        while True:
            broker = Broker(
                self._settings.server,
                name=f"galley worker {self._settings.worker}",
                connect_seconds=_CONNECT_SECONDS,
                credentials=self._settings.credentials,
                tls=self._settings.tls,
                payloads=self._payloads,
            )
            broker.objects_at = {**os.environ, VARIABLE: self._settings.objects}
            try:
                return await broker.__aenter__()
            except (BrokerUnreachable, TlsFailed) as error:
                log.warning("waiting for the broker", extra={"error": str(error), "hint": error.hint})
                await asyncio.sleep(_CONNECT_PAUSE_SECONDS)

    def _runner_settings(self, cache: NodeCache) -> RunnerSettings:
        spec = self._queue.spec
        keys = signing_keys_of(self._settings, self._queue)
        return RunnerSettings(
            queue=self._queue.metadata.name,
            modules=spec.worker.modules,
            import_paths=self._settings.paths,
            commands=tuple(
                CommandHandler(command.name, command.command, command.input_as.value)
                for command in spec.handlers.commands
            ),
            http=tuple(
                HttpHandler(handler.name, handler.url, keys[handler.secret_name])
                for handler in spec.handlers.http
            ),
            namespace=self._queue.metadata.namespace,
            preload=spec.worker.preload,
            concurrency=spec.worker.concurrency,
            recycle_tasks=spec.worker.recycle.tasks,
            recycle_bytes=spec.worker.recycle.memory_bytes,
            log_level=self._settings.handler_log_level or spec.worker.log_level.value,
            spool=str(cache.spool),
            # In the midst of a child's answers and orders, where an exception would cost all that it runs.
            on_line=self._faults.guarded("output", self._take_line),
            on_report=self._faults.guarded("progress", self._notebook.report),
            before_orders=self._faults.guarded("leases", self._look_at_leases),
        )

    @asynccontextmanager
    async def _limited(
        self, broker: Broker, layout: QueueLayout, slots: WorkerSlots, attempts: Attempts, puller: Puller
    ) -> AsyncIterator[None]:
        """Keep the limits of the queue for the duration of the block."""
        rules, lease = queue_rules(self._queue.spec), self._settings.lease_seconds
        if not rules.limited:
            yield
            return
        limit = QueueLimit(broker, layout, self._who, rules, slots, utc_now, uninterrupted, lease)
        limit.changed, limit.lost = puller.slots_changed, attempts.roster.cut
        limit.open, puller.told = lambda: puller.open, limit.look
        attempts.gates.limit = slots.limit = limit
        with slots.grown.heard_by(limit.look):
            async with limit.kept():
                yield

    def _look_at_leases(self) -> None:
        if self._leases is not None:
            self._leases.look()

    def _make_attempts(  # noqa: PLR0917 - what attempts are made of
        self,
        ledger: Ledger,
        settler: Settler,
        holders: Holders,
        runners: Runners,
        leases: LeaseKeeper,
        measures: Measures,
        uniqueness: Uniqueness,
        solitude: Solitude,
        objects: TaskObjects,
        flows: Workflows,
        continuations: Continuations,
        traces: Traces | None,
        turns: Turns,
    ) -> Attempts:
        spec = self._queue.spec
        worker = self._who
        claimant = Claimant(ledger, settler, worker, utc_now, holders.ask, solitude)
        flows.measures = measures
        rules = Rules(
            self._queue.metadata.namespace,
            self._queue.metadata.name,
            worker,
            spec.retry.policy(),
            float(spec.timeout_seconds),
            self._settings.unknown_handler_seconds,
            self._settings.key_service_seconds,
            plaintext=plaintext_allowed(self._queue),
        )
        parts = Parts(
            runners,
            claimant,
            settler,
            leases,
            measures,
            uniqueness,
            self._notebook,
            solitude,
            self._payloads,
            objects,
            flows,
            continuations,
            turns,
            circuit=measures.circuit,
            traces=traces,
        )
        if spec.retry_budget is not None:
            limit = spec.retry_budget
            parts.budget = measures.budget = RetryBudget(limit.share, limit.per_second, utc_now())
        return Attempts(rules, parts)

    def _life(self, broker: Broker, measures: Measures) -> Life | None:
        spec, namespace = self._queue.spec, self._queue.metadata.namespace
        if spec.life_events is None:
            return None
        publisher = TopicPublisher(broker, namespace, PATIENCE_SECONDS)
        return Life(publisher, spec.life_events.topic, measures, utc_now, messages=spec.encryption is None)

    def _circuit(self, grown: Changes) -> Circuit | None:
        spec = self._queue.spec.circuit
        if spec is None:
            return None
        later = asyncio.get_running_loop().call_later
        return Circuit(spec.failures, float(spec.seconds), later, grown.tell)

    def _take_line(self, line: Line) -> None:
        _log_line(line)
        for work in (line.work.members if line.work is not None else ()) or (line.work,):
            # What a handler of batches writes is kept with each of its tasks.
            self._notebook.line(line._replace(work=work))

    @asynccontextmanager
    async def _health(self, measures: Measures) -> AsyncIterator[None]:
        if not self._settings.health_port:
            yield
            return
        pages = HealthPages(
            lambda: liveness(self._condition(), self._settings.live_seconds),
            lambda: readiness(self._condition()),
            measures.text,
        )
        async with pages.served(self._settings.health_host, self._settings.health_port) as port:
            log.info("health pages served", extra={"port": port})
            yield


def plaintext_allowed(queue: TaskQueue) -> bool:
    """Return whether tasks of a queue may run that are not encrypted."""
    encryption = queue.spec.encryption
    return encryption is None or encryption.plaintext is Plaintext.ACCEPT


def key_rules(spec: TaskQueueSpec) -> KeyRules:
    """Return what a queue says of its keys."""
    per_key = spec.limits.per_key
    if per_key is None:
        return KeyRules()
    return KeyRules(
        1 if per_key.ordered else per_key.concurrency or 0, per_key.ordered,
        None if per_key.rate is None else per_key.rate.rate,
        {digest_of_key(key): weight for key, weight in per_key.weights.items()},
    )  # fmt: skip


def queue_rules(spec: TaskQueueSpec) -> QueueRules:
    """Return what a queue says of all its tasks."""
    rate = spec.limits.rate
    return QueueRules(spec.limits.concurrency or 0, None if rate is None else rate.rate)


def _connecting() -> Condition:
    return Condition(connected=False, open=False, free=0, silent_seconds=0.0)


def _log_line(line: Line) -> None:
    """Log what a handler wrote, at the level it was written at, whatever the worker's own level."""
    work = line.work
    about: dict[str, object] = {}
    if work is not None:
        about = {"task": work.task_id, "queue": work.queue, "attempt": work.attempt, "handler": work.handler}
        about |= {"batch": len(work.members)} if work.members else {}
        about |= {"trace": id_in(work.trace)} if work.trace else {}
    logger: dict[str, object] = {"logger": line.logger} if line.logger else {}
    logger |= {"fields": line.fields} if line.fields else {}
    event = "attempt notice" if line.stream == "galley" else "handler output"
    _output_log.log(line.level, event, extra={"stream": line.stream, "line": line.text, **logger, **about})
