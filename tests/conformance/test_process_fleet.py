import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.calls import call
from galley.client import AsyncClient
from galley.handle import AsyncHandle
from galley.resources import TaskQueue
from galley.task_status import Phase
from galley_local.nats_server import NatsServer
from galley_local.process_fleet import ProcessFleet
from galley_local.warm_start import WarmStarter
from galley_local.worker_process import WorkerPlace
from tests.conformance import fleet

_HANDLERS = """
import asyncio
from pathlib import Path
from galley import task

@task(queue="held")
async def hold(until: str) -> None:
    while not Path(until).exists():
        await asyncio.sleep(0.02)
"""


@dataclass
class ProcessTrial:
    fleet: ProcessFleet
    client: AsyncClient
    folder: Path
    slots: int = 2
    patience: float = 20.0
    tasks: list[AsyncHandle[Any]] = field(default_factory=list)

    @property
    def gate(self) -> Path:
        return self.folder / "released"

    async def hold(self) -> None:
        self.tasks.append(await self.client.submit(call("held", "hold", until=str(self.gate))))

    async def release(self) -> None:
        self.gate.touch()

    async def ended(self) -> int:
        return sum([(await task.status()).phase is Phase.SUCCEEDED for task in self.tasks])

    async def kill(self, name: str) -> None:
        os.kill(process_of(name).pid, signal.SIGKILL)


def process_of(worker: str) -> psutil.Process:
    """Return the process of a worker of ours: the parent of those whose environment names it."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # also one that ended and was not waited for yet
            if process.environ().get("GALLEY_WORKER") == worker and (parent := process.parent()):
                return parent
    raise AssertionError(f"no process of worker {worker}")


@pytest.mark.parametrize("rule", fleet.RULES, ids=fleet.name_of)
async def test_process_fleet(
    rule: fleet.Rule, nats_server: NatsServer, starter: WarmStarter, namespace: str, tmp_path: Path
) -> None:
    @asynccontextmanager
    async def make_trial(*, broken: bool = False) -> AsyncIterator[ProcessTrial]:
        (tmp_path / "held.py").write_text("import nothing_of_that_name" if broken else _HANDLERS)
        queue = TaskQueue.model_validate(
            {
                "metadata": {"name": "held", "namespace": namespace},
                "spec": {"worker": {"modules": ["held"], "concurrency": 2, "gracePeriodSeconds": 1}},
            }
        )
        place = WorkerPlace(
            tmp_path,
            (tmp_path,),
            tmp_path / "queue.json",
            tmp_path / "logs",
            nats_server.url,
            namespace,
            starter,
        )
        async with Broker(nats_server.url, name="test") as broker:
            await ensure(broker, layout_of(queue, "tests"))
            async with ProcessFleet(broker, queue, place) as workers:
                trial = ProcessTrial(workers, AsyncClient.over(broker, namespace), tmp_path)
                yield trial
                await trial.release()
        assert not forked()

    await fleet.exercise(rule, make_trial)


def forked() -> list[psutil.Process]:
    """Return the processes of all workers: what the processes that start them have forked."""
    found = []
    for starter in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # also one that ended and that another test has not waited for
            if "galley_local.warm_start" in starter.cmdline():
                found += starter.children()
    return found
