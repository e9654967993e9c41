"""One schedule: some tasks, some workers, some faults, all from one seed; and whether the end is right."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from galley import record as wire
from galley.address import TaskAddress
from galley.broker.cancel import cancel
from galley.broker.publish import Publisher
from galley.broker.topology import QueueLayout
from galley.envelope import Flags
from galley.errors import GalleyError
from galley.record import Outcome, Record, State
from tests.simulation.worker import Script, SimulatedWorker
from tests.support.builders import a_queue, an_address, an_envelope
from tests.support.memory_nats import MemoryBroker, MemoryServer, Seen
from tests.support.protocol_history import (
    LATER,
    WORK,
    Acked,
    DeadLettered,
    Ended,
    Event,
    LeaseLost,
    RecordWritten,
    Started,
    history_allowed,
)
from tests.support.virtual_time import VirtualLoop

TASKS: Final = 6
WORKERS: Final = 2
FAULTS: Final = 6
LEASE_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 900.0
SKEW_SECONDS: Final = 0.2
"""What happens at the server is known to a worker a moment later."""
BEGAN: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Wrong(AssertionError):
    """A schedule ended as it may not."""


class Simulation:
    """One schedule under way."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.server = MemoryServer(BEGAN)
        self.layout: QueueLayout = a_queue(lease_seconds=LEASE_SECONDS)
        self.server.create(self.layout)
        loop = asyncio.get_running_loop()
        self.now = loop.time
        self.script = Script(self.dice, loop.time)
        self.workers: list[SimulatedWorker] = []
        self.lives = 0
        self.gone: Counter[str] = Counter()
        """By task: processes that went, or were cut off, while they had it in hand."""
        self.lost: list[LeaseLost] = []
        self.cancels: set[str] = set()
        self.addresses: dict[str, TaskAddress] = {}
        self._started: set[asyncio.Task[object]] = set()

    async def run(self) -> None:
        """Play it, and check it.

        Raises:
            Wrong: if something was lost, doubled, or counted that was not there.
        """
        async with MemoryBroker(self.server, "producer", self._delay) as producer:
            for _ in range(WORKERS):
                self._start_worker()
            submits = [self._begin(self._submit(producer, number)) for number in range(TASKS)]
            faults = (self._kill_worker, self._drain_worker, self._cut, self._lose_answers,
                      self._kill_server, self._freeze_server, lambda: self._cancel(producer))  # fmt: skip
            for _ in range(FAULTS):
                await asyncio.sleep(self.dice.expovariate(0.7))
                await self.dice.choice(faults)()
            await asyncio.wait(submits)
            await self._all_ended()
            for worker in self.workers:
                worker.kill()
            for task in self._started:
                task.cancel()
            await asyncio.gather(*self._started, return_exceptions=True)
            await asyncio.sleep(0.1)
        self.check()

    # -- what happens

    def _delay(self) -> float:
        return self.dice.choice((0.0003, 0.001, 0.004, 0.03))

    def _begin(self, work: Awaitable[object]) -> "asyncio.Task[object]":
        task = asyncio.ensure_future(work)
        self._started.add(task)
        return task

    def _start_worker(self) -> None:
        self.lives += 1
        worker = SimulatedWorker(self.server, self.layout, f"w{self.lives}", self.script, self._delay)
        self.workers.append(worker)
        worker.start()

    async def _submit(self, producer: MemoryBroker, number: int) -> None:
        task = f"t{number}"
        address = self.addresses[task] = an_address(of=self.layout, id=task)
        self.script.failures[task] = self.dice.choice((0, 0, 1, 2))
        self.script.deaths[task] = self.dice.choice((0, 0, 0, 1))
        chosen = self.dice.random() < 0.4
        await asyncio.sleep(self.dice.uniform(0, 4))
        for _ in range(1 + (chosen and self.dice.random() < 0.5)):
            envelope = an_envelope(submitted_at=self.server.now())
            publisher = Publisher(producer, patience_seconds=600)
            await publisher.publish(address, envelope, chosen_id=chosen)
            await asyncio.sleep(self.dice.uniform(0, 8))

    async def _kill_worker(self) -> None:
        self._end(self.dice.choice(self.workers))

    def _end(self, worker: SimulatedWorker) -> None:
        self.gone.update(worker.under_way)
        self._lose(worker.name)
        worker.kill()
        self.workers.remove(worker)
        self._start_worker()

    async def _drain_worker(self) -> None:
        worker = self.dice.choice(self.workers)
        self.workers.remove(worker)
        self._start_worker()
        await worker.drain(self.dice.choice((0.0, 0.5, 5.0)))
        # What it could not settle in ten seconds goes with it.
        self.gone.update(worker.under_way)
        self._lose(worker.name)

    async def _cut(self) -> None:
        worker = self.dice.choice(self.workers)
        worker.broker.line.reconnect_seconds = self.dice.choice((0.1, 1.0, 8.0))
        if worker.broker.line.reconnect_seconds > LEASE_SECONDS:
            # To the others one that is cut off for longer than a lease looks like one that is gone.
            self.gone.update(worker.under_way)
        worker.broker.line.cut(lose_sent=self.dice.random() < 0.5)
        self._lose("*")

    async def _lose_answers(self) -> None:
        line = self.dice.choice(self.workers).broker.line
        share = self.dice.choice((0.3, 1.0))
        line.lose(to_client=lambda subject: subject.startswith("_INBOX") and self.dice.random() < share)
        await asyncio.sleep(self.dice.choice((0.05, 1.0, 7.0)))
        line.lose()
        self._lose("*")

    async def _kill_server(self) -> None:
        for worker in self.workers:
            worker.broker.line.reconnect_seconds = 1.0
        self.server.kill(forgets=lambda _sequence: self.dice.random() < 0.5)
        self._lose("*")
        await asyncio.sleep(self.dice.choice((0.2, 2.0, 9.0)))
        self.server.start()
        self._lose("*")

    async def _freeze_server(self) -> None:
        self.server.freeze()
        await asyncio.sleep(self.dice.choice((0.2, 2.0, 9.0)))
        self.server.thaw()
        self._lose("*")

    async def _cancel(self, producer: MemoryBroker) -> None:
        if not self.addresses:
            return
        task = self.dice.choice(sorted(self.addresses))
        self.cancels.add(task)
        with suppress(GalleyError):
            await cancel(producer, self.addresses[task], Record(State.RUN, 0), 3600)

    def _lose(self, worker: str) -> None:
        self.lost.append(LeaseLost(at=self.now(), worker=worker))

    # -- the end

    async def _all_ended(self) -> None:
        until = self.now() + PATIENCE_SECONDS
        while self.now() < until:
            if len(self._finals()) == TASKS and not self._left():
                return
            await asyncio.sleep(1.0)

    def _finals(self) -> dict[str, Record]:
        records = (wire.decode(each.body) for each in self._stored("result"))
        return {
            each.subject.rpartition(".")[2]: record
            for each, record in zip(self._stored("result"), records, strict=True)
            if record.done
        }

    def _left(self) -> int:
        return sum(
            len(stream.messages) for name, stream in self.server.streams.items() if name[:2] in ("GW", "GS")
        )

    def _stored(self, kind: str, task: str = "") -> list[Seen]:
        stored = (each for each in self.server.log if each.what == "stored" and each.kind == kind)
        return [each for each in stored if each.subject.endswith(f".{task}" if task else "")]

    def check(self) -> None:
        """Hold what happened against what may.

        Raises:
            Wrong: naming the task and what is wrong with it.
        """
        events = self._events()
        finals = self._finals()
        for task in self.addresses:
            if task not in finals:
                raise Wrong(f"{task} has no outcome: it is lost")
            if wrong := history_allowed([*events[task], *self.lost], complete=True, skew=SKEW_SECONDS):
                raise Wrong(f"{task}: {wrong}")
            self._check_counts(task, finals[task])
        if self._left():
            raise Wrong(f"{self._left()} messages are left of tasks that have ended")

    def _check_counts(self, task: str, final: Record) -> None:
        mine = [run for run in self.script.runs if run.task == task]
        crashes = self.gone[task] + sum(run.ending == "Crashed" for run in mine)
        if final.history.crashes > crashes:
            raise Wrong(f"{task}: {final.history.crashes} crashes are counted, there were {crashes}")
        errors = sum(run.ending == "Raised" for run in mine)
        if final.history.errors > errors:
            raise Wrong(f"{task}: {final.history.errors} errors are counted, there were {errors}")
        if final.outcome is Outcome.CANCELLED and task not in self.cancels:
            raise Wrong(f"{task} was cancelled without a request")
        if final.outcome is Outcome.SUCCEEDED and not any(run.ending == "Returned" for run in mine):
            raise Wrong(f"{task} succeeded, and its handler never returned")

    def _events(self) -> dict[str, list[Event]]:
        events: dict[str, list[Event]] = defaultdict(list)
        messages: dict[tuple[str, int], Flags] = {}
        for each in self.server.log:
            task = each.subject.rpartition(".")[2]
            stream = LATER if each.stream.startswith("GS_") else WORK
            if each.what == "stored" and each.kind in ("task", "due"):
                messages[stream, each.sequence] = Flags.decode(each.headers["Galley"])
            elif each.what == "stored" and each.kind == "result":
                events[task].append(_written(each))
            elif each.what == "stored" and each.kind == "dead":
                events[task].append(DeadLettered(at=each.at))
            elif each.what == "ack":
                events[task].append(Acked(at=each.at, stream=stream, sequence=each.sequence))
        for run in self.script.runs:
            events[run.task] += self._of_run(run.task, run.worker, run.attempt, run.began)
            events[run.task].append(
                Ended(at=run.ended, worker=run.worker, attempt=run.attempt, ending=run.ending)
            )
        return events

    def _of_run(self, task: str, worker: str, attempt: int, began: float) -> list[Event]:
        """Return the start of a run, of the message it had claimed, or else of the last delivery."""
        claims = [
            (record.claim.stream, record.claim.sequence)
            for each in self._stored("result", task)
            if each.at <= began
            and (record := wire.decode(each.body)).claim is not None
            and (record.state, record.worker, record.attempt) == (State.RUN, worker, attempt)
        ]
        deliveries = [
            each for each in self.server.log
            if each.what == "delivered" and each.subject.endswith(f".{task}") and each.at <= began
            and (not claims or (each.stream, each.sequence) == claims[-1])
        ]  # fmt: skip
        last = deliveries[-1]
        stream = LATER if last.stream.startswith("GS_") else WORK
        return [
            Started(
                at=began, worker=worker, stream=stream, sequence=last.sequence, delivered=1, attempt=attempt
            )
        ]


def _written(each: Seen) -> RecordWritten:
    record = wire.decode(each.body)
    claim = None
    if record.claim is not None:
        claim = LATER if record.claim.stream.startswith("GS_") else WORK, record.claim.sequence
    return RecordWritten(
        at=each.at, sequence=each.sequence, state=record.state.value, attempt=record.attempt, claim=claim,
        outcome=record.outcome.value if record.outcome else None,
    )  # fmt: skip


def simulate(seed: int, make: Callable[[int], Simulation] = Simulation) -> Simulation:
    """Play the schedule of a seed.

    Raises:
        Wrong: if it ended as it may not; the message names the seed.
    """

    async def run() -> Simulation:
        simulation = make(seed)
        try:
            await simulation.run()
        except Wrong as wrong:
            raise Wrong(f"seed {seed}: {wrong}") from None
        return simulation

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())
