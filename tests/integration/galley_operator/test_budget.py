"""Queues that share a budget: real workers as processes, the scaler that the operator runs, one ledger."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from galley.broker.connection import Broker
from galley.broker.doorbell import Doorbell
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.signals import SignalReader
from galley.calls import call
from galley.client import AsyncClient
from galley.handle import AsyncHandle
from galley.resources import TaskQueue
from galley.task_status import Phase
from galley_local.nats_server import NatsServer
from galley_local.process_fleet import ProcessFleet
from galley_local.warm_start import WarmStarter
from galley_local.worker_process import WorkerPlace
from galley_operator.autoscaler import ledger
from galley_operator.autoscaler.ledger import Ledger
from galley_operator.autoscaler.scaler import Scaler
from galley_operator.autoscaler.signals import ScalingPolicy
from galley_operator.budget import Budget
from galley_operator.fleet.fleet import WorkerPhase
from tests.support.eventually import eventually

HANDLERS = """
import asyncio
from pathlib import Path
from galley import task

@task(queue="{name}")
async def hold(until: str) -> None:
    while not Path(until).exists():
        await asyncio.sleep(0.02)
"""


@dataclass
class Side:
    """One queue, its workers, and what was submitted to it."""

    name: str
    fleet: ProcessFleet
    scaler: Scaler
    client: AsyncClient
    folder: Path
    tasks: list[AsyncHandle[Any]] = field(default_factory=list)

    async def submit(self, lane: str = "normal", gate: str = "open") -> None:
        work = call(self.name, "hold", until=str(self.folder / gate)).options(lane=lane)
        self.tasks.append(await self.client.submit(work))

    async def present(self, *phases: WorkerPhase) -> int:
        workers = (await self.fleet.observe()).workers
        return sum(not phases or worker.phase in phases for worker in workers)

    async def ended(self) -> int:
        return sum([(await task.status()).phase is Phase.SUCCEEDED for task in self.tasks])

    async def attempts(self) -> set[int]:
        return {(await task.status()).attempt for task in self.tasks}

    def open(self, gate: str) -> None:
        (self.folder / gate).touch()


@dataclass
class Yard:
    """All queues under one budget of workers."""

    sides: dict[str, Side]
    most: int = 0
    """The most workers there were at one time, those that end included."""

    async def watch(self) -> None:
        while True:
            self.most = max(self.most, sum([await each.present() for each in self.sides.values()]))
            await asyncio.sleep(0.05)


@asynccontextmanager
async def yard(server: str, namespace: str, folder: Path, workers: int, **queues: Any) -> AsyncIterator[Yard]:
    shared = Ledger(Budget(workers=workers))
    async with AsyncExitStack() as stack:
        starter = stack.enter_context(WarmStarter())
        broker = await stack.enter_async_context(Broker(server, name="test"))
        reader, sides = SignalReader(broker), {}
        # Entered first, so that it is left last: workers drain only once what they run can end.
        group = await stack.enter_async_context(asyncio.TaskGroup())
        for name, scaling in queues.items():
            text = "import nothing_of_that_name" if scaling.pop("broken", False) else HANDLERS
            (folder / f"{name}.py").write_text(text.replace("{name}", name))
            queue = TaskQueue.model_validate(
                {
                    "metadata": {"name": name, "namespace": namespace},
                    "spec": {
                        "worker": {"modules": [name], "concurrency": 1, "gracePeriodSeconds": 20},
                        "scaling": {"maxWorkers": 4, "idleSeconds": 1, **scaling},
                        "lanes": ["critical", "normal"],
                    },
                }
            )
            await ensure(broker, layout_of(queue, "tests"))
            place = WorkerPlace(
                folder, (folder,), folder / f"{name}.json", folder / "logs", server, namespace, starter
            )  # fmt: skip
            fleet = await stack.enter_async_context(ProcessFleet(broker, queue, place))
            bell = await stack.enter_async_context(Doorbell(broker, namespace, name))
            scaler = Scaler(
                reader, bell, fleet, ScalingPolicy.of(queue), queue=(namespace, name), ledger=shared
            )
            stack.callback(group.create_task(scaler.run()).cancel)
            client = AsyncClient.over(broker, namespace)
            sides[name] = Side(name, fleet, scaler, client, folder)
        found = Yard(sides)
        stack.callback(group.create_task(found.watch()).cancel)
        try:
            yield found
        finally:
            for gate in ("open", "first", "second", "third"):
                (folder / gate).touch()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    # There was no operator before this one whose workers are still to be seen.
    monkeypatch.setattr(ledger, "SETTLE_SECONDS", 0.0)


async def test_urgent_work_takes_workers_from_others_which_finish_what_they_run(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with yard(nats_server.url, namespace, tmp_path, 2, bulk={}, alarms={}) as it:
        bulk, alarms = it.sides["bulk"], it.sides["alarms"]
        await bulk.submit(gate="first")
        await bulk.submit(gate="second")
        await eventually(lambda: bulk.present(WorkerPhase.READY), within=20)
        await bulk.submit(gate="open")

        async def full() -> bool:
            return await bulk.present(WorkerPhase.READY) == 2

        await eventually(full, within=20)
        await alarms.submit("critical", gate="open")

        async def drains() -> bool:
            return await bulk.present(WorkerPhase.DRAINING) == 1

        await eventually(drains, within=30, why="a worker of the lower queue drains")
        assert await alarms.present() == 0, "the budget is used up for as long as both tasks run"
        assert alarms.scaler.last is not None
        assert "the budget of all queues allows 0 of 1" in alarms.scaler.last.reason
        bulk.open("first")
        bulk.open("second")

        async def taken() -> bool:
            return await alarms.present(WorkerPhase.READY) == 1

        await eventually(taken, within=20, why="the urgent queue has the worker")
        alarms.open("open")
        for side in (alarms, bulk):

            async def done(side: Side = side) -> bool:
                return await side.ended() == len(side.tasks)

            await eventually(done, within=20, why=f"{side.name} is done")
            assert await side.attempts() == {1}, "no attempt was cut off"
        for _ in range(2):
            await bulk.submit(gate="third")
        await eventually(full, within=20, why="what was borrowed is given back")
        assert it.most == 2, "never more than the budget, and all of it while there was work"


async def test_workers_that_do_not_come_up_leave_the_budget_to_others(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    queues: dict[str, Any] = {"broken": {"priority": 10, "broken": True}, "bulk": {}}
    async with yard(nats_server.url, namespace, tmp_path, 2, **queues) as it:
        broken, bulk = it.sides["broken"], it.sides["bulk"]
        for _ in range(4):
            await broken.submit("critical")

        async def failing() -> bool:
            return await broken.present(WorkerPhase.FAILED) > 0

        await eventually(failing, within=20)
        bulk.open("open")
        for _ in range(2):
            await bulk.submit()

        async def done() -> bool:
            return await bulk.ended() == 2

        await eventually(done, within=30, why="the queue whose workers come up has the rest of the budget")
        assert await broken.present() == 1
        assert it.most == 2
