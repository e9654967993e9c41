"""Limits of a whole queue on a real server with real workers, one of which is killed."""

import asyncio
from collections import Counter
from pathlib import Path

from galley import AsyncClient, call
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.queue_shares import limit_use
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue, ensure_with_leases


def _most_at_once(log: Path) -> int:
    running = most = 0
    for line in log.read_text().splitlines():
        running += 1 if " begin " in line else -1
        most = max(most, running)
    return most


async def test_no_more_tasks_run_than_the_queue_allows_over_its_workers(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path
) -> None:
    rate = {"tasks": 1000, "seconds": 1}
    limits = {"concurrency": 3, "rate": rate, "perKey": {"concurrency": 2}}
    queue = a_task_queue(namespace, worker={"concurrency": 4}, limits=limits)
    await ensure(client.broker, layout_of(queue, "tests"))
    plain = [call("drills", "hold", word=f"plain-{number}", seconds=0.03) for number in range(12)]
    calls = [*plain, *(each.options(key="k") for each in plain)]
    handles = await client.submit_many(calls)
    await start(queue, ("w1", "w2"))
    await asyncio.gather(*(each.result(within=60) for each in handles))
    assert _most_at_once(tmp_path / "drills.log") <= 3


async def test_the_permits_of_a_worker_that_was_killed_come_back(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path
) -> None:
    queue = a_task_queue(namespace, worker={"concurrency": 2}, limits={"concurrency": 2})
    await ensure_with_leases(client.broker, queue, 2)
    victim, *_ = await start(queue, ("w1",), GALLEY_LEASE_SECONDS="2")
    first = await client.submit_many(
        [call("drills", "hold", word=f"first-{number}", seconds=1.0) for number in range(2)]
    )

    async def both_held() -> bool:
        return (await limit_use(client.broker, namespace, queue.metadata.name)).permits == 2

    await eventually(both_held, within=30)
    victim.kill()
    await start(queue, ("w2",), GALLEY_LEASE_SECONDS="2")
    more = await client.submit_many(
        [call("drills", "hold", word=f"more-{number}", seconds=0.01) for number in range(6)]
    )
    await asyncio.gather(*(each.result(within=60) for each in [*first, *more]))
    notes = (tmp_path / "drills.log").read_text().splitlines()
    ended = Counter(line.split()[-1] for line in notes if " end " in line)
    assert set(ended) >= {f"more-{number}" for number in range(6)}
