"""While a task waits and a slot of its queue is free at any worker, the task starts there."""

import asyncio
import itertools
import random
from pathlib import Path

import pytest

from galley import AsyncClient, Call, Phase, call
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue

IDLE_SECONDS = 4.0
"""Longest time a slot may stay free while a task waits: far more than what is aimed at, since tests share a
machine, and less than what one slow task here takes."""

SLOW_SECONDS = 6.0


async def ready(client: AsyncClient, namespace: str, start: StartWorkers, workers: int, slots: int) -> None:
    queue = a_task_queue(namespace, worker={"concurrency": slots})
    await ensure(client.broker, layout_of(queue, "tests"))
    await start(queue, [f"w{number}" for number in range(1, workers + 1)])
    # Each child imports once, which takes longer than anything measured here; then handlers count as quick.
    await run(client, [call("drills", "hold", word="warm", seconds=0.5)] * (2 * workers * slots))
    for _ in range(3):
        await run(client, [call("drills", "echo")] * 300)


async def run(client: AsyncClient, calls: list[Call[object]]) -> None:
    async with asyncio.timeout(60):
        for handle in await client.submit_many(calls):
            await handle.result()


def runs_of(log: Path) -> dict[str, tuple[float, float]]:
    """Return when each `hold` began and ended, by its word."""
    begun: dict[str, float] = {}
    runs = {}
    for line in log.read_text().splitlines():
        nanoseconds, what, *words = line.split()
        if what == "begin":
            begun[words[0]] = int(nanoseconds) / 1e9
        elif what == "end" and words[0] != "warm":
            runs[words[0]] = begun[words[0]], int(nanoseconds) / 1e9
    return runs


def idle_seconds(runs: dict[str, tuple[float, float]], slots: int) -> float:
    """Return the longest time a slot was free before the last task began."""
    last = max(began for began, _ in runs.values())
    edges = sorted({moment for run in runs.values() for moment in run if moment <= last})
    longest = idle = 0.0
    for at, until in itertools.pairwise(edges):
        running = sum(1 for began, ended in runs.values() if began <= at < ended)
        idle = idle + until - at if running < slots else 0.0
        longest = max(longest, idle)
    return longest


async def test_slots_of_a_warm_worker_are_filled_at_once(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path
) -> None:
    await ready(client, namespace, start, workers=1, slots=4)
    calls = [call("drills", "hold", word=f"{number}", seconds=SLOW_SECONDS) for number in range(4)]
    handles = [await client.submit(one) for one in calls]
    for handle in handles:
        await handle.result(within=60)
    began = [begin for begin, _ in runs_of(tmp_path / "drills.log").values()]
    assert max(began) - min(began) < IDLE_SECONDS


@pytest.mark.parametrize("slow", [call("drills", "hold", word="slow", seconds=30.0),
                                  call("drills", "aecho", seconds=30.0)], ids=["plain", "async"])  # fmt: skip
async def test_quick_tasks_do_not_wait_behind_a_slow_one_while_another_worker_is_idle(
    client: AsyncClient, namespace: str, start: StartWorkers, slow: Call[object]
) -> None:
    await ready(client, namespace, start, workers=2, slots=1)
    handles = await client.submit_many([slow, *[call("drills", "echo")] * 40])
    for handle in handles[1:]:
        await handle.result(within=60)
    assert (await handles[0].status()).phase is Phase.RUNNING, "all quick tasks ended while the slow one ran"
    for handle in handles[1:]:
        status = await handle.status()
        assert (status.attempt, status.history.crashes, status.history.preemptions) == (1, 0, 0)


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_slot_of_a_queue_stays_free_while_a_task_waits(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path, seed: int
) -> None:
    await ready(client, namespace, start, workers=3, slots=2)
    dice = random.Random(seed)
    times = dice.choices([0.0, 0.01, 0.05, SLOW_SECONDS], weights=[10, 5, 2, 2], k=90)
    for first in range(0, 90, 30):
        await client.submit_many(
            call("drills", "hold", word=f"{number}", seconds=times[number])
            for number in range(first, first + 30)
        )
    log = tmp_path / "drills.log"
    await eventually(lambda: len(runs_of(log)) == 90, within=120)
    assert idle_seconds(runs_of(log), slots=6) < IDLE_SECONDS
