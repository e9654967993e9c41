"""What workers counted is there when they are gone, and goes on with the next ones."""

import pytest

from galley import AsyncClient, TaskFailed, call
from galley.broker import counts
from galley.broker.counts import Counted, CountReader
from galley.resources import TaskQueue
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually


async def test_outcomes_outlive_the_workers_that_counted_them(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    async def counted() -> Counted:
        return await CountReader(client.broker).read(client.namespace, "drills")

    for round_ in (1, 2):
        (worker,) = await start(drills, (f"w{round_}",))
        for handle in await client.submit_many([call("drills", "echo", value=n) for n in range(3)]):
            await handle.result(within=20)
        failed = await client.submit(call("drills", "fail"))
        with pytest.raises(TaskFailed):
            await failed.result(within=20)
        assert worker.end() == 0
        found = await counted()
        assert found.totals["normal", counts.SUCCEEDED] == 3 * round_
        assert found.totals["normal", counts.FAILED] == round_
        assert found.totals["normal", counts.RETRIED] == 2 * round_
        assert sum(found.times(counts.WAIT)["normal"].counts) == 6 * round_, (
            "each attempt, as none came again"
        )
        assert sum(found.times(counts.ATTEMPT)["normal"].counts) == 6 * round_


async def test_a_worker_that_is_killed_takes_only_its_last_seconds_along(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    (worker,) = await start(drills)
    await (await client.submit(call("drills", "echo", value=1))).result(within=20)
    reader = CountReader(client.broker)

    async def counted() -> bool:
        found = await reader.read(client.namespace, "drills")
        return found.totals.get(("normal", counts.SUCCEEDED)) == 1

    await eventually(counted, within=30)
    worker.process.kill()
    assert await counted()
