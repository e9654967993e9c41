"""Supervisor: one worker process, which pulls tasks of its queue, runs and settles them, and shuts down.

The order of shutdown is the reverse of the order of start. Pulling ends first, running attempts get the
grace period to end, those that still run are handed back, and the leases are released last.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from galley.broker.connection import Broker
from galley.broker.control import (
    HEARTBEAT_SECONDS,
    Answer,
    Heartbeat,
    Question,
    Request,
    Verb,
    answering,
    answering_as,
    send_heartbeat,
)
from galley.broker.errors import BrokerUnreachable, TlsFailed
from galley.broker.layout import layout_of
from galley.broker.pull import Delivery
from galley.failpoint import failpoint
from galley.resources import Plaintext, TaskQueue
from galley_worker.attempts import Attempts, Parts, Rules, UnderWay
from galley_worker.claim import Who
from galley_worker.claimant import Claimant, Holders
from galley_worker.health import Condition, HealthPages, liveness, readiness
from galley_worker.leases import LeaseKeeper, uninterrupted
from galley_worker.ledger import Ledger, Replies
from galley_worker.measures import Measures
from galley_worker.planner import Planner
from galley_worker.puller import Puller
from galley_worker.runners.runners import Runners
from galley_worker.runners.settings import CommandHandler, Line, RunnerSettings
from galley_worker.settings import WorkerSettings, payloads_of
from galley_worker.settle import Settler

log = logging.getLogger(__name__)
_output_log = logging.getLogger("galley_worker.output")
# The children have filtered already, by the level of the queue.
_output_log.setLevel(1)

_CONNECT_SECONDS: Final = 10.0
"""How long one try to connect takes; then the reason is logged, and the next begins."""
_CONNECT_PAUSE_SECONDS: Final = 1.0

_HAND_BACK_SECONDS: Final = 10.0
"""Time to hand back the attempts that were stopped at the end of a drain."""


class Supervisor:
    """One worker process."""

    def __init__(self, settings: WorkerSettings, queue: TaskQueue) -> None:
        self._settings = settings
        self._queue = queue
        self._layout = layout_of(queue, "")
        self._payloads = payloads_of(settings, queue)
        self._who = Who(settings.worker, secrets.token_hex(4))
        self._grace_seconds = float(queue.spec.worker.grace_period_seconds)
        self._broker: Broker | None = None
        self._runners: Runners | None = None
        self._attempts: Attempts | None = None
        self._puller: Puller | None = None
        self._hands: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[Delivery | None]] = []
        self._busy = 0
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._drained_until = 0.0
        self._connecting: asyncio.Timeout | None = None

    def stop(self) -> None:
        """Take no more tasks and stop when running attempts have ended; a second call stops those at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()
        if self._connecting is not None:
            self._connecting.reschedule(asyncio.get_running_loop().time())
        if self._puller is not None:
            self._puller.stop()

    @property
    def free(self) -> int:
        """Attempts that could begin now."""
        return self._runners.capacity - self._busy if self._runners is not None else 0

    @property
    def brisk(self) -> bool:
        """Whether slots come free within milliseconds."""
        return self._runners is not None and self._runners.capacity > self._queue.spec.worker.concurrency

    def _slots_changed(self) -> None:
        if self._puller is not None:
            self._puller.slots_changed()

    async def run(self) -> None:
        """Work until `stop` is called.

        Raises:
            BrokerTooOld: the broker lacks what Galley needs.
            AccessRefused, CredentialsInvalid, CredentialsExpired: the broker does not accept this worker.
            TlsInvalid: a file with certificates or a key cannot be used.
            ModuleImportFailed: a module of the queue does not import.
        """
        namespace, name = self._queue.metadata.namespace, self._queue.metadata.name
        async with AsyncExitStack() as parts:
            self._runners = runners = await parts.enter_async_context(
                Runners(self._runner_settings(), grown=self._slots_changed)
            )
            measures = Measures(namespace, name, lambda: runners.capacity, lambda: self._busy)
            await parts.enter_async_context(self._health(measures))
            broker = await self._connect(parts)
            if broker is None:
                return
            leases = LeaseKeeper(broker, uninterrupted, self._settings.lease_seconds)
            ledger = Ledger(broker)
            holders = Holders(broker, uninterrupted, self._settings.lease_seconds)
            settler = Settler(ledger, self._who, self._queue.spec.retention.results_seconds, _now)
            self._attempts = attempts = self._make_attempts(
                ledger, settler, holders, runners, leases, measures
            )
            await parts.enter_async_context(_beside(leases.run(), "leases"))
            planner = Planner(broker, self._layout, ledger, settler, _now)
            await parts.enter_async_context(_beside(planner.run(), "planner"))
            await parts.enter_async_context(answering(broker, namespace, name, self._answer))
            await parts.enter_async_context(
                answering_as(broker, namespace, name, self._who.holder, self._answer_as_holder)
            )
            await parts.enter_async_context(_beside(self._beat(broker), "heartbeat"))
            log.info("worker ready", extra={"handlers": sorted(runners.handlers)})
            await self._work(broker, attempts, ledger.replies)
            log.info("worker drained")

    async def _connect(self, parts: AsyncExitStack) -> Broker | None:
        """Return a connection to the broker, however long that takes; None if told to stop meanwhile."""
        try:
            async with asyncio.timeout(None) as self._connecting:
                if self._stopping.is_set():
                    return None
                while True:
                    broker = Broker(
                        self._settings.server,
                        name=f"galley worker {self._settings.worker}",
                        connect_seconds=_CONNECT_SECONDS,
                        credentials=self._settings.credentials,
                        tls=self._settings.tls,
                        payloads=self._payloads,
                    )
                    try:
                        self._broker = await parts.enter_async_context(broker)
                    except (BrokerUnreachable, TlsFailed) as error:
                        log.warning("waiting for the broker", extra={"error": str(error), "hint": error.hint})
                        await asyncio.sleep(_CONNECT_PAUSE_SECONDS)
                    else:
                        return self._broker
        except TimeoutError:
            return None
        finally:
            self._connecting = None

    def _runner_settings(self) -> RunnerSettings:
        spec = self._queue.spec
        return RunnerSettings(
            queue=self._queue.metadata.name,
            modules=spec.worker.modules,
            import_paths=self._settings.paths,
            commands=tuple(
                CommandHandler(command.name, command.command, command.input_as.value)
                for command in spec.handlers.commands
            ),
            preload=spec.worker.preload,
            concurrency=spec.worker.concurrency,
            recycle_tasks=spec.worker.recycle.tasks,
            recycle_bytes=spec.worker.recycle.memory_bytes,
            log_level=self._settings.handler_log_level or spec.worker.log_level.value,
            on_line=_log_line,
        )

    def _make_attempts(  # noqa: PLR0917 - what attempts are made of
        self,
        ledger: Ledger,
        settler: Settler,
        holders: Holders,
        runners: Runners,
        leases: LeaseKeeper,
        measures: Measures,
    ) -> Attempts:
        spec = self._queue.spec
        worker = self._who
        claimant = Claimant(ledger, settler, worker, _now, holders.ask)
        rules = Rules(
            self._queue.metadata.namespace,
            self._queue.metadata.name,
            worker,
            spec.retry.policy(),
            float(spec.timeout_seconds),
            self._settings.unknown_handler_seconds,
            self._settings.key_service_seconds,
            plaintext=spec.encryption is None or spec.encryption.plaintext is Plaintext.ACCEPT,
        )
        return Attempts(rules, Parts(runners, claimant, settler, leases, measures, self._payloads))

    async def _work(self, broker: Broker, attempts: Attempts, replies: Replies) -> None:
        async with asyncio.TaskGroup() as under_way:
            async with Puller(broker, self._layout, self, replies.give_back) as puller:
                self._puller = puller
                if self._stopping.is_set():
                    puller.stop()
                async for delivery in puller.deliveries():
                    if attempts.known(delivery):
                        continue
                    self._busy += 1
                    if self._idle:
                        self._idle.pop().set_result(delivery)
                    else:
                        hand = under_way.create_task(self._attempt(attempts, puller, delivery))
                        hand.add_done_callback(self._hands.discard)
                        self._hands.add(hand)
            for idle in self._idle:
                idle.set_result(None)
            if self._busy:
                failpoint("drain.begun")
                log.info("worker draining", extra={"running": self._busy})
                under_way.create_task(self._cut_after_grace(attempts), name="grace")

    async def _attempt(self, attempts: Attempts, puller: Puller, delivery: Delivery | None) -> None:
        """Run the attempts of deliveries one after the other: an asyncio task for each would cost more."""
        while delivery is not None:
            try:
                await attempts.run(delivery)
            finally:
                self._busy -= 1
                puller.slots_changed()
            if self._stopping.is_set():
                return
            idle: asyncio.Future[Delivery | None] = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
            delivery = None  # its body would be kept until the next one
            delivery = await idle

    async def _cut_after_grace(self, attempts: Attempts) -> None:
        """Wait for running attempts, hand back those that are late, and do not wait for an absent broker."""
        hurry = asyncio.create_task(self._hurry.wait())
        running = set(self._hands)
        ended = asyncio.ensure_future(asyncio.wait(running)) if running else None
        if ended is not None:
            await asyncio.wait({hurry, ended}, timeout=self._grace_seconds, return_when="FIRST_COMPLETED")
            ended.cancel()
        hurry.cancel()
        failpoint("drain.before_cut")
        attempts.cut("the worker is shutting down")
        if self._hands:
            await asyncio.wait(set(self._hands), timeout=_HAND_BACK_SECONDS)
        if self._hands:
            log.warning("attempts left unsettled", extra={"tasks": len(attempts.under_way)})
        for hand in self._hands:
            hand.cancel()

    async def _answer(self, verb: Verb, request: Request) -> Answer | None:
        name = self._settings.worker
        assert self._attempts is not None
        match verb:
            case Verb.DRAIN:
                if name not in request.workers:
                    return None
                self._drain_for(request.seconds)
                return Answer(name)
            case Verb.CANCEL:
                present = self._attempts.cancel(request.task)
            case _:
                present = self._attempts.running(request.task)
        return None if present is None else Answer(name, _began_at(present))

    def _answer_as_holder(self, question: Question) -> Answer:
        assert self._attempts is not None
        present = self._attempts.holds((question.stream, question.sequence))
        return Answer(self._settings.worker, None if present is None else _began_at(present))

    def _drain_for(self, seconds: float) -> None:
        """Take no tasks for a while. It expires, so that a worker that is not stopped continues by itself."""
        if self._puller is None or self._stopping.is_set():
            return
        self._drained_until = time.monotonic() + seconds if seconds > 0 else 0.0
        if seconds > 0:
            self._puller.pause()
        else:
            self._puller.resume()

    async def _beat(self, broker: Broker) -> None:
        name, namespace, queue = (
            self._settings.worker, self._queue.metadata.namespace, self._queue.metadata.name,
        )  # fmt: skip
        slots = self._queue.spec.worker.concurrency
        while True:
            if self._drained_until and time.monotonic() >= self._drained_until:
                self._drain_for(0.0)
            draining = bool(self._drained_until) or self._stopping.is_set()
            ready = self._puller is not None and not draining
            send_heartbeat(broker, namespace, queue, Heartbeat(name, slots, self._busy, draining, ready))
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def _condition(self) -> Condition:
        puller = self._puller
        return Condition(
            connected=self._broker is not None and self._broker.connected,
            open=puller is not None and not self._stopping.is_set() and not self._drained_until,
            free=self.free,
            silent_seconds=asyncio.get_running_loop().time() - puller.heard_at if puller is not None else 0.0,
        )

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


def _now() -> datetime:
    return datetime.now(UTC)


def _began_at(present: UnderWay) -> datetime:
    return _now() - timedelta(seconds=time.monotonic() - present.began)


def _log_line(line: Line) -> None:
    """Log what a handler wrote, at the level it was written at, whatever the worker's own level."""
    work = line.work
    about = {"task": work.task_id, "attempt": work.attempt, "handler": work.handler} if work else {}
    logger = {"logger": line.logger} if line.logger else {}
    event = "attempt notice" if line.stream == "galley" else "handler output"
    _output_log.log(line.level, event, extra={"stream": line.stream, "line": line.text, **logger, **about})


@asynccontextmanager
async def _beside(part: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    """Run a coroutine for the duration of the block; if it fails, so does the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(part, name=name)
        yield
        task.cancel()
