"""Workers are taken away under load, again and again, and no task notices.

The number of workers is set to another one every second or two, while all of them have work; and at each step
of a scale-in the autoscaler is now and then killed, and another one that knows nothing takes its place.
`GALLEY_SCALE_INS` is how many workers are to be taken away (4 unless set; `make scale-ins` has 1,000),
`GALLEY_STORM_SEED` the course. The time is bounded by `GALLEY_SCALE_IN_SECONDS`.
"""

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import pytest

from galley.address import TaskAddress
from galley.broker.connection import Broker
from galley.broker.doorbell import Doorbell
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.records import Records
from galley.broker.signals import SignalReader
from galley.calls import call
from galley.client import AsyncClient
from galley.failpoint import hook
from galley.handle import AsyncHandle
from galley.record import Stored
from galley.resources import TaskQueue
from galley.task_status import Phase, of_record
from galley_local.nats_server import NatsServer
from galley_local.process_fleet import ProcessFleet
from galley_local.warm_start import WarmStarter
from galley_local.worker_process import WorkerPlace
from galley_operator.autoscaler.scaler import Scaler
from galley_operator.autoscaler.signals import ScalingPolicy
from galley_operator.fleet.fleet import WorkerPhase
from tests.failpoints.places import SCALER
from tests.support.eventually import eventually

SCALE_INS = int(os.environ.get("GALLEY_SCALE_INS", "4"))
SECONDS = float(os.environ.get("GALLEY_SCALE_IN_SECONDS", "110"))
SEED = int(os.environ.get("GALLEY_STORM_SEED", "20261129"))
MOST = 2 if SCALE_INS < 100 else 8
SLOTS = 2

HANDLERS = """
import asyncio, os
from galley import task

def note(what, word):
    with open("notes", "a") as notes:
        notes.write(f"{what} {word} {os.environ['GALLEY_WORKER']}\\n")

@task(queue="storm")
async def hold(word: str, seconds: float) -> None:
    note("began", word)
    await asyncio.sleep(seconds)
    note("ended", word)
"""


class Died(BaseException):
    """The end of an autoscaler."""


@dataclass
class Yard:
    """The workers, what they ran, and who was taken away."""

    fleet: ProcessFleet
    client: AsyncClient
    notes: Path
    chance: random.Random
    removed: Counter[str] = field(default_factory=Counter)
    """Workers that were taken away, by how many tasks they ran then."""
    crashes: Counter[str] = field(default_factory=Counter)
    tasks: list[AsyncHandle[None]] = field(default_factory=list)
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    fed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when no task is to be submitted any more."""
    burned: list[str] = field(default_factory=list)
    """What is known of each task that did not succeed in its first attempt without a crash."""
    _left: set[str] = field(default_factory=set)

    def runs(self) -> Iterator[tuple[str, str, str]]:
        """Yield what was noted: began or ended, of which task, by which worker."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        for line in lines:
            what, word, worker = line.split()
            yield what, word, worker

    async def scale(self, workers: int) -> None:
        """Do it, and note who was taken away and what it ran."""
        await self.fleet.scale(workers)
        gone = {
            each.name for each in (await self.fleet.observe()).workers if each.phase is WorkerPhase.STOPPING
        }
        for name in gone - self._left:
            mine = Counter(what for what, _, worker in self.runs() if worker == name)
            self.removed["busy" if mine["began"] > mine["ended"] else "idle"] += 1
        self._left |= gone
        if self.removed.total() >= SCALE_INS:
            self.enough.set()

    async def feed(self) -> None:
        """Keep twice as many tasks in the queue as can run.

        It ends between two submits: one that is cancelled may be stored and in no list.
        """
        while not self.fed.is_set():
            ended = sum(what == "ended" for what, _, _ in self.runs())
            for _ in range(3 * MOST * SLOTS - (len(self.tasks) - ended)):
                word = f"t{len(self.tasks)}"
                seconds = self.chance.choice((0.01, 0.2, 1.5))
                self.tasks.append(await self.client.submit(call("storm", "hold", word=word, seconds=seconds)))
            await asyncio.sleep(0.3)

    def ended(self) -> bool:
        """Return whether all that was submitted has come to its end."""
        return sum(what == "ended" for what, _, _ in self.runs()) >= len(self.tasks)

    async def counted_against(self, records: AsyncIterator[tuple[TaskAddress, Stored]]) -> list[str]:
        """Return what is known of each task that a failed attempt or a crash was counted of."""
        statuses = {
            address.id: of_record(address, stored.record)
            async for address, stored in records
            if stored.record.done
        }
        burned = []
        for task in self.tasks:
            status = statuses.get(task.id) or await task.wait(within=60)
            past = status.history
            if status.phase is Phase.SUCCEEDED and status.attempt == 1 and not past.errors + past.crashes:
                continue
            told = [*map(str, past.attempts), *self.logged(task.id)]
            burned.append("\n    ".join((f"{task.id}: {status.phase} in attempt {status.attempt}", *told)))
        return burned

    def logged(self, task: str) -> Iterator[str]:
        """Yield what workers logged of a task, and the warnings and errors of those that did."""
        for log in sorted((self.notes.parent / "logs").iterdir()):
            lines = log.read_text(errors="replace").splitlines()
            if any(task in line for line in lines):
                bad = ('"warning"', '"error"')
                yield from (line for line in lines if task in line or any(each in line for each in bad))


class _Counting:
    """The fleet as the autoscaler has it."""

    def __init__(self, yard: Yard) -> None:
        self.observe, self.drain, self.scale = yard.fleet.observe, yard.fleet.drain, yard.scale


@contextmanager
def dying(yard: Yard, share: float) -> Iterator[None]:
    """Have the autoscaler die at this share of its steps."""

    def react(place: str) -> None:
        if place in SCALER and yard.chance.random() < share:
            yard.crashes[place] += 1
            raise Died

    hook(react)
    try:
        yield
    finally:
        hook(None)


async def scale_on(make: Callable[[], Scaler], number: Callable[[], int]) -> None:
    """Run one autoscaler after the other, each for as long as it lives."""
    while True:
        scaler = make()
        turns = asyncio.create_task(_turn(scaler, number))
        try:
            await scaler.run()
        except Died:
            continue
        finally:
            turns.cancel()


async def _turn(scaler: Scaler, number: Callable[[], int]) -> None:
    while True:
        workers = number()
        scaler.policy = ScalingPolicy(workers, workers, SLOTS, 0)
        await asyncio.sleep(2 if workers > MOST / 2 else 4)


@asynccontextmanager
async def at_work(server: str, starter: WarmStarter, namespace: str, folder: Path) -> AsyncIterator[Yard]:
    """A fleet with its autoscalers and its load."""
    chance = random.Random(SEED)
    (folder / "storm.py").write_text(HANDLERS)
    queue = TaskQueue.model_validate(
        {
            "metadata": {"name": "storm", "namespace": namespace},
            "spec": {"worker": {"modules": ["storm"], "concurrency": SLOTS, "gracePeriodSeconds": 20}},
        }
    )
    manifest, logs = folder / "queue.json", folder / "logs"
    place = WorkerPlace(folder, (folder,), manifest, logs, server, namespace, starter)
    async with Broker(server, name="test") as broker:
        await ensure(broker, layout_of(queue, "tests"))
        async with ProcessFleet(broker, queue, place) as fleet, Doorbell(broker, namespace, "storm") as bell:
            yard = Yard(fleet, AsyncClient.over(broker, namespace), folder / "notes", chance)
            reader, policy = SignalReader(broker), ScalingPolicy(MOST, MOST, SLOTS, 0)
            name = namespace, "storm"

            def make() -> Scaler:
                return Scaler(reader, bell, _Counting(yard), policy, queue=name)

            choices = cycle(((0, 1, MOST // 2), (MOST - 1, MOST)))

            def number() -> int:
                return chance.choice(next(choices))

            work = [asyncio.create_task(each) for each in (scale_on(make, number), yard.feed())]
            try:
                yield yard
                # What is left is run by workers that are not taken away any more.
                yard.fed.set()
                await work[1]
                work[0].cancel()
                await asyncio.wait(work)
                last = asyncio.create_task(make().run())
                await eventually(yard.ended, within=120, why="all tasks are done")
                yard.burned = await yard.counted_against(Records(broker).all_of(*name))
                last.cancel()
            finally:
                for each in work:
                    each.cancel()


@pytest.mark.timeout(max(120, SECONDS * 1.5))
async def test_no_worker_is_taken_away_while_it_runs_something(
    nats_server: NatsServer, starter: WarmStarter, namespace: str, tmp_path: Path
) -> None:
    async with at_work(nats_server.url, starter, namespace, tmp_path) as yard:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with dying(yard, 0.1), suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                await yard.enough.wait()
        took = loop.time() - began
    sys.stdout.write(
        f"\n{yard.removed.total()} workers taken away in {took:.0f} s, {yard.removed['busy']} of them busy; "
        f"{len(yard.tasks)} tasks; the autoscaler died {yard.crashes.total()} times: {dict(yard.crashes)}\n"
    )
    assert not yard.burned, "no attempt was lost:\n" + "\n".join(yard.burned)
    assert yard.removed.total() >= min(SCALE_INS, 4)
    assert yard.removed["busy"] == 0
    runs = Counter((what, word) for what, word, _ in yard.runs())
    assert set(runs.values()) == {1}, "each task ran once, from its beginning to its end"
    assert len(runs) == 2 * len(yard.tasks)
