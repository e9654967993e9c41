"""A worker of the simulation: real puller, claims, leases and settling; handlers that a script plays."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Final

from msgspec import Raw

from galley.broker.control import Answer, Question, Request, Verb, answering, answering_as
from galley.broker.pull import Delivery
from galley.broker.topology import QueueLayout
from galley.broker.unique_keys import Keys
from galley.record import Failure
from galley.retry import RetryPolicy
from galley_worker.attempts import Attempts, Parts
from galley_worker.claim import Who
from galley_worker.claimant import Claimant, Holders
from galley_worker.ending import Crashed, Finish, Raised, Returned
from galley_worker.judge import Rules
from galley_worker.leases import LeaseKeeper
from galley_worker.ledger import Ledger, Replies
from galley_worker.measures import Measures
from galley_worker.notebook import Notebook
from galley_worker.puller import Puller
from galley_worker.runners.execution import Execution, Service
from galley_worker.runners.frames import HandlerRules
from galley_worker.settle import Settler
from galley_worker.solitude import Solitude
from galley_worker.uniqueness import Uniqueness
from galley_worker.work import Work
from tests.support.memory_nats import MemoryBroker, MemoryServer
from tests.support.one_attempt import run_attempt

SLOTS: Final = 2
KEEP_SECONDS: Final = 3600
TIMEOUT_SECONDS: Final = 600.0
POLICY: Final = RetryPolicy(attempts=3, backoff_seconds=0.5, max_backoff_seconds=2, crashes=3)


@dataclass(frozen=True)
class Run:
    """One execution of a handler."""

    task: str
    worker: str
    attempt: int
    began: float
    ended: float = float("inf")
    ending: str = ""


@dataclass
class Script:
    """What each handler does, and what they have done."""

    dice: random.Random
    now: Callable[[], float]
    failures: dict[str, int] = field(default_factory=dict)
    """How often a task still raises."""
    deaths: dict[str, int] = field(default_factory=dict)
    """How often a task still takes its process along."""
    runs: list[Run] = field(default_factory=list)

    def play(self, task: str) -> tuple[float, Finish]:
        """Return how long an execution takes, and how it ends if nothing stops it."""
        seconds = self.dice.choice((0.0, 0.01, 0.3, 2.0, 6.0))
        if self.deaths.get(task, 0):
            self.deaths[task] -= 1
            return seconds, Crashed("signal 9 (SIGKILL)")
        if self.failures.get(task, 0):
            self.failures[task] -= 1
            return seconds, Raised(Failure("ValueError", "no"), retryable=True)
        return seconds, Returned(Raw(b'"done"'))


class Handlers:
    """In the place of `Runners`: plays the script."""

    handlers = frozenset(("resize",))
    rules: ClassVar[dict[str, HandlerRules]] = {}

    def __init__(self, script: Script, worker: str) -> None:
        self._script, self._worker = script, worker
        self._timers: dict[Execution, asyncio.TimerHandle] = {}

    def start(self, work: Work) -> Execution:
        loop = asyncio.get_running_loop()
        execution = Execution(work, Service(), self._stop)
        seconds, ending = self._script.play(work.task_id)
        place = len(self._script.runs)
        self._script.runs.append(Run(work.task_id, self._worker, work.attempt, loop.time()))
        self._timers[execution] = loop.call_later(seconds, execution.end, ending)

        def ended(result: "asyncio.Future[Finish]") -> None:
            run = self._script.runs[place]
            ending = "killed" if result.cancelled() else type(result.result()).__name__
            self._script.runs[place] = Run(run.task, run.worker, run.attempt, run.began, loop.time(), ending)

        execution.ending.add_done_callback(ended)
        return execution

    def kill(self) -> None:
        """End what runs without a word."""
        for execution, timer in self._timers.items():
            timer.cancel()
            execution.ending.cancel()

    def _stop(self, execution: Execution) -> None:
        self._timers[execution].cancel()
        assert execution.because is not None
        # As long as it takes to kill a child.
        asyncio.get_running_loop().call_later(0.05, execution.end, execution.because)


class SimulatedWorker:
    """One life of a worker process."""

    def __init__(
        self, server: MemoryServer, layout: QueueLayout, name: str, script: Script, delay: Callable[[], float]
    ) -> None:
        self.name = name
        self.broker = MemoryBroker(server, name, delay)
        self.handlers = Handlers(script, name)
        self.busy = 0
        self._server, self._layout, self._script = server, layout, script
        self._hands: set[asyncio.Task[None]] = set()
        self._attempts: Attempts | None = None
        self._puller: Puller | None = None
        self._life: asyncio.Task[None] | None = None

    @property
    def free(self) -> int:
        return SLOTS - self.busy

    @property
    def brisk(self) -> bool:
        return False

    @property
    def supplied(self) -> bool:
        return False

    @property
    def under_way(self) -> set[str]:
        """Tasks of which it has a message in hand that may have been claimed or begun."""
        if self._attempts is None:
            return set()
        return {present.delivery.address.id for present in self._attempts.roster.under_way.values()}

    def start(self) -> None:
        self._life = asyncio.get_running_loop().create_task(self._run(), name=self.name)

    def kill(self) -> None:
        """End it as SIGKILL does: nothing more is sent, whatever its parts do on their way out."""
        assert self._life is not None
        self.broker.line._up, self.broker.line._shut = False, True
        self._server.leave(self.broker.line)
        self.handlers.kill()
        for task in (*self._hands, self._life):
            task.cancel()

    async def drain(self, grace: float) -> None:
        """End it as SIGTERM does."""
        assert self._life is not None
        if self._puller is not None:
            self._puller.stop()
        if self._hands:
            await asyncio.wait(set(self._hands), timeout=grace)
        if self._attempts is not None:
            self._attempts.roster.cut("the worker is shutting down")
        if self._hands:
            await asyncio.wait(set(self._hands), timeout=10)
        self.kill()

    async def _run(self) -> None:
        async with self.broker as broker:
            ledger = Ledger(broker)
            ledger.replies._clock = asyncio.get_running_loop().time
            who = Who(self.name, f"holder-{self.name}")
            settler = Settler(ledger, who, KEEP_SECONDS, self._server.now)
            now = asyncio.get_running_loop().time
            leases = LeaseKeeper(broker, now, self._layout.lease_seconds)
            holders = Holders(broker, now, self._layout.lease_seconds)
            claimant = Claimant(ledger, settler, who, self._server.now, holders.ask, solitude := Solitude())
            measures = Measures("default", "images", lambda: SLOTS, lambda: self.busy)
            parts = Parts(
                self.handlers, claimant, settler, leases, measures,  # type: ignore[arg-type]
                Uniqueness(Keys(broker, self._server.now)),
                Notebook(self._layout.namespace, who, self._server.now, broker), solitude,
                clock=now, now=self._server.now, jitter=self._script.dice.random,
            )  # fmt: skip
            rules = Rules(self._layout.namespace, self._layout.queue, who, POLICY, TIMEOUT_SECONDS, 60.0)
            self._attempts = attempts = Attempts(rules, parts)
            keeping = asyncio.create_task(leases.run())
            try:
                place = self._layout.namespace, self._layout.queue
                async with (
                    answering(broker, *place, self._answer),
                    answering_as(broker, *place, who.holder, self._answer_as_holder),
                ):
                    await self._work(attempts, ledger.replies)
            finally:
                keeping.cancel()

    async def _work(self, attempts: Attempts, replies: Replies) -> None:
        async with Puller(self.broker, self._layout, self, replies.give_back) as puller:
            self._puller = puller
            async for delivery in puller.deliveries():
                if attempts.roster.known(delivery):
                    continue
                self.busy += 1
                hand = asyncio.create_task(self._attempt(attempts, puller, delivery))
                self._hands.add(hand)
                hand.add_done_callback(self._hands.discard)
        if self._hands:
            await asyncio.wait(set(self._hands))

    async def _attempt(self, attempts: Attempts, puller: Puller, delivery: Delivery) -> None:
        try:
            await run_attempt(attempts, delivery)
        finally:
            self.busy -= 1
            puller.slots_changed()

    async def _answer(self, verb: Verb, request: Request) -> Answer | None:
        if self._attempts is None or verb is Verb.DRAIN:
            return None
        find = self._attempts.roster.cancel if verb is Verb.CANCEL else self._attempts.roster.find
        return Answer(self.name) if find(request.task) is not None else None

    def _answer_as_holder(self, question: Question) -> Answer:
        assert self._attempts is not None
        present = self._attempts.roster.holds((question.stream, question.sequence))
        return Answer(self.name, None if present is None else self._server.now())
