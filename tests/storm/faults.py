"""What can befall a worker, its children and the broker; seeded, so that a storm can be had again."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import psutil

from galley_local.nats_server import NatsServer
from tests.support.eventually import eventually
from tests.support.protocol_history import LeaseLost
from tests.support.workers import WorkerProcess


@dataclass
class Storm:
    """Hits a fleet of workers and their broker with one fault after the other."""

    server: NatsServer
    fleet: list[WorkerProcess]
    lease_seconds: float
    seed: int
    mark: Callable[[], Awaitable[None]]
    """What the operator does when the broker is there again."""
    done: Counter[str] = field(default_factory=Counter)
    leases_lost: list[LeaseLost] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.faults = {
            self.kill_worker: 25,
            self.kill_child: 25,
            self.freeze_worker_past_its_lease: 10,
            self.freeze_child: 10,
            self.drain_worker: 15,
            self.kill_broker: 8,
            self.freeze_broker: 7,
        }

    async def strike(self) -> str:
        """Let one fault happen; returns its name."""
        new = [fault for fault in self.faults if not self.done[fault.__name__]]
        # Half of them are of a kind that has not been yet: else the rare ones are missing in a small storm.
        if new and self.dice.random() < 0.5:
            fault = self.dice.choice(new)
        else:
            (fault,) = self.dice.choices(list(self.faults), weights=list(self.faults.values()))
        await fault()
        self.done[fault.__name__] += 1
        return fault.__name__

    async def kill_worker(self) -> None:
        worker = self._any_worker()
        worker.kill()
        self._lost(worker.name)
        worker.restart()

    async def drain_worker(self) -> None:
        worker = self._any_worker()
        await eventually(lambda: worker.ready, within=90)
        worker.send(signal.SIGTERM)
        await eventually(lambda: worker.process.poll() is not None, within=90)
        self._lost(worker.name)
        assert worker.process.returncode == 0, worker.log()[-3:]
        worker.restart()

    async def kill_child(self) -> None:
        worker = self._any_worker()
        # A worker whose first child dies while it imports ends, for kubelet to start it again.
        if worker.ready and (child := self._child_of(worker)) is not None:
            self._lost(worker.name)
            child.kill()

    async def freeze_child(self) -> None:
        child = self._child_of(self._any_worker())
        if child is None:
            return
        child.suspend()
        await asyncio.sleep(self.dice.uniform(0.1, 1.0))
        if child.is_running():
            child.resume()

    async def freeze_worker_past_its_lease(self) -> None:
        worker = self._any_worker()
        worker.send(signal.SIGSTOP)
        self._lost(worker.name)
        await asyncio.sleep(self.lease_seconds * self.dice.uniform(1.1, 1.5))
        worker.send(signal.SIGCONT)
        self._lost(worker.name)

    async def kill_broker(self) -> None:
        self.server.kill()
        self._lost("*")
        await self.server.start()
        await self.mark()

    async def freeze_broker(self) -> None:
        self.server.freeze()
        await asyncio.sleep(self.dice.uniform(0.5, self.lease_seconds * 1.3))
        self.server.thaw()
        self._lost("*")

    def _any_worker(self) -> WorkerProcess:
        return self.dice.choice(self.fleet)

    def _child_of(self, worker: WorkerProcess) -> psutil.Process | None:
        try:
            children = [
                process
                for process in psutil.Process(worker.process.pid).children(recursive=True)
                if process.parent() is not None and process.ppid() != worker.process.pid
            ]
        except psutil.NoSuchProcess:
            return None
        return self.dice.choice(children) if children else None

    def _lost(self, worker: str) -> None:
        self.leases_lost.append(LeaseLost(at=time.time(), worker=worker))
