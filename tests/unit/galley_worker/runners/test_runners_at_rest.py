"""Runners that have no work are seldom looked at, and what begins then is looked at as closely as ever."""

import asyncio
from datetime import UTC, datetime

from msgspec import Raw

from galley_worker.ending import TimedOut
from galley_worker.runners.execution import Execution, Service
from galley_worker.runners.runners import REST_SECONDS, SWEEP_SECONDS, Runners
from galley_worker.runners.settings import RunnerSettings
from galley_worker.work import Work
from tests.support.virtual_time import in_virtual_time


class Holding:
    """A runner that runs works for as long as they are let."""

    def __init__(self) -> None:
        self.running: dict[Execution, float] = {}
        self.looked: list[float] = []

    def submit(self, execution: Execution) -> None:
        self.running[execution] = asyncio.get_running_loop().time()

    def stop(self, execution: Execution) -> None:
        del self.running[execution]
        assert execution.because is not None
        execution.end(execution.because)

    def sweep(self, now: float) -> list[Execution]:
        self.looked.append(now)
        return [one for one, began in self.running.items() if now - began > one.work.timeout]

    @property
    def load(self) -> int:
        return len(self.running)

    def slow(self, _now: float) -> int:
        return 0

    def release(self, _now: float) -> int:
        return 0

    async def close(self, why: str) -> None:
        assert why


class OfHolding(Runners):
    """Has such a runner for a handler, and no process."""

    def __init__(self, holding: Holding) -> None:
        super().__init__(RunnerSettings("q"), asyncio.get_running_loop().time)
        self._runners.append(holding)
        self._by_name["h"] = holding, Service()

    async def _open(self) -> None:
        assert self._by_name

    async def _close(self) -> None:
        # Without the thread in which a fork server would be left: virtual time does not wait for threads.
        assert self._timer is not None
        self._timer.cancel()


@in_virtual_time
async def test_runners_without_work_are_seldom_looked_at_and_at_once_when_there_is() -> None:
    loop, holding = asyncio.get_running_loop(), Holding()
    async with OfHolding(holding) as runners:
        for _ in range(3):
            await asyncio.sleep(10 * REST_SECONDS + REST_SECONDS / 3)
            seen = len(holding.looked)
            await asyncio.sleep(10 * REST_SECONDS)
            assert len(holding.looked) - seen <= 11

            began = loop.time()
            work = Work("t", "q", "normal", "h", 1, Raw(b"{}"), 1.0, datetime.now(UTC))
            ending = await runners.start(work).ending
            assert isinstance(ending, TimedOut)
            assert 1 < loop.time() - began <= 1 + 2 * SWEEP_SECONDS
