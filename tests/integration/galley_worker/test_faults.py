"""Workers killed and frozen, brokers killed and frozen: every task has one outcome."""

import signal
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from galley import (
    AsyncClient,
    AsyncHandle,
    Phase,
    RetryPolicy,
    TaskCancelled,
    TaskFailed,
    When,
    call,
    connect,
)
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.resources import TaskQueue
from galley_local.nats_server import NatsServer
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue, ensure_with_leases

LEASE = 2.0


@pytest.fixture
async def hasty(client: AsyncClient, namespace: str) -> TaskQueue:
    """A queue whose leases are short, so that a lost worker is noticed within the test."""
    queue = a_task_queue(namespace, retry={"attempts": 3, "backoffSeconds": 0.1, "crashes": 2})
    await ensure_with_leases(client.broker, queue, LEASE)
    return queue


async def runs_on(handle: AsyncHandle[object], worker: str) -> bool:
    status = await handle.status()
    return status.phase is Phase.RUNNING and status.worker == worker


async def test_a_killed_worker_s_task_runs_on_another(
    client: AsyncClient, hasty: TaskQueue, start: StartWorkers
) -> None:
    first, second = await start(hasty, ("w1", "w2"), GALLEY_LEASE_SECONDS=str(LEASE))
    second.send(signal.SIGSTOP)
    handle = await client.submit(call("drills", "aecho", value="survives", seconds=6))
    await eventually(partial(runs_on, handle, "w1"), within=20)

    first.kill()
    second.send(signal.SIGCONT)

    assert await handle.result(within=20) == "survives"
    assert (await handle.status()).worker == "w2"


@pytest.mark.parametrize("handler", ["hold", "seize"])
async def test_a_long_attempt_keeps_its_lease(
    client: AsyncClient, hasty: TaskQueue, start: StartWorkers, tmp_path: Path, handler: str
) -> None:
    await start(hasty, ("w1", "w2"), GALLEY_LEASE_SECONDS=str(LEASE))
    handle = await client.submit(call("drills", handler, word="long", seconds=3 * LEASE))

    assert await handle.result(within=30) == "long"
    assert (tmp_path / "drills.log").read_text().count("begin long") == 1


async def test_a_task_that_is_due_after_several_leases_runs_once(
    client: AsyncClient, hasty: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    await start(hasty, ("w1", "w2"), GALLEY_LEASE_SECONDS=str(LEASE))
    late = When(not_before=datetime.now(UTC) + timedelta(seconds=4 * LEASE))
    handle = await client.submit(call("drills", "hold", word="late", seconds=0.1), late)

    assert await handle.result(within=40) == "late"
    status = await handle.status()
    assert (status.attempt, status.history.crashes, status.history.preemptions) == (1, 0, 0)
    assert (tmp_path / "drills.log").read_text().count("begin late") == 1


async def test_a_task_that_kills_its_workers_can_be_cancelled(
    client: AsyncClient, hasty: TaskQueue, start: StartWorkers
) -> None:
    await start(hasty, ("w1", "w2"), GALLEY_LEASE_SECONDS=str(LEASE))
    endless = When(retry=RetryPolicy(crashes=20, backoff_seconds=0.1, max_backoff_seconds=0.1))
    handle = await client.submit(call("drills", "vanish"), endless)

    async def crashed() -> bool:
        return (await handle.status()).history.crashes >= 3

    await eventually(crashed, within=60)
    await handle.cancel()
    with pytest.raises(TaskCancelled):
        await handle.result(within=20)
    assert (await handle.status()).phase is Phase.CANCELLED


async def test_a_worker_frozen_past_its_lease_settles_nothing_that_is_another_s_by_now(
    client: AsyncClient, hasty: TaskQueue, start: StartWorkers
) -> None:
    first, second = await start(hasty, ("w1", "w2"), GALLEY_LEASE_SECONDS=str(LEASE))
    second.send(signal.SIGSTOP)
    handle = await client.submit(call("drills", "aecho", value="once", seconds=4 * LEASE))
    await eventually(partial(runs_on, handle, "w1"), within=20)
    second.send(signal.SIGCONT)
    first.send(signal.SIGSTOP)
    await eventually(partial(runs_on, handle, "w2"), within=20)
    first.send(signal.SIGCONT)

    assert await handle.result(within=20) == "once"
    assert (await handle.status()).worker == "w2"
    await eventually(lambda: first.logged("attempt dropped") or first.logged("attempt overtaken"), within=30)


async def test_a_task_whose_workers_keep_vanishing_is_buried(
    client: AsyncClient, hasty: TaskQueue, start: StartWorkers
) -> None:
    handle = await client.submit(call("drills", "aecho", value="poison", seconds=60))
    # The first attempt takes the fast path, which leaves no record of a lost worker; the fourth runs alone.
    for name in ("w1", "w2", "w3", "w4"):
        (worker,) = await start(hasty, (name,), GALLEY_LEASE_SECONDS=str(LEASE))
        await eventually(partial(runs_on, handle, name), within=20)
        worker.kill()
    await start(hasty, ("w5",), GALLEY_LEASE_SECONDS=str(LEASE))

    with pytest.raises(TaskFailed, match="3 crashes; the last, when it ran alone") as failed:
        await handle.result(within=20)

    assert failed.value.why == "KillsItsWorker"
    assert [past.worker for past in (await handle.status()).history.attempts] == ["w2", "w3", "w4"]


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_work_goes_on_after_the_broker_was_away(
    own_nats_server: NatsServer, namespace: str, start: StartWorkers, fault: str
) -> None:
    queue = a_task_queue(namespace, worker={"concurrency": 2})
    async with connect(own_nats_server.url, namespace) as client:
        await ensure(client.broker, layout_of(queue, "tests"))
        await start(queue, server=own_nats_server.url)
        before = await client.submit(call("drills", "echo", value="before"))
        await before.result(within=20)
        during = await client.submit(call("drills", "aecho", value="during", seconds=6))
        await eventually(partial(runs_on, during, "w1"), within=20)
        if fault == "kill":
            own_nats_server.kill()
            await own_nats_server.start()
        else:
            own_nats_server.freeze()
            await eventually(lambda: not client.broker.connected, within=30)
            own_nats_server.thaw()
        await eventually(lambda: client.broker.connected, within=20)
        after = await client.submit(call("drills", "echo", value="after"))

        assert await after.result(within=30) == "after"
        assert await during.result(within=45) == "during"


async def test_a_task_that_comes_again_while_its_lost_attempt_still_ends_harms_no_other(
    own_nats_server: NatsServer, namespace: str, start: StartWorkers, tmp_path: Path
) -> None:
    queue = a_task_queue(namespace, worker={"concurrency": 2})
    tries = tmp_path / "tries"
    async with connect(own_nats_server.url, namespace) as client:
        await ensure_with_leases(client.broker, queue, LEASE)
        (worker,) = await start(queue, server=own_nats_server.url, GALLEY_LEASE_SECONDS=str(LEASE))
        handle = await client.submit(call("drills", "stubborn", path=str(tries), seconds=3 * LEASE / 2))
        await eventually(tries.exists, within=20)
        own_nats_server.freeze()
        await eventually(lambda: tries.read_text() == "told to stop", within=20)
        own_nats_server.thaw()

        assert await handle.result(within=30) == "the second time"
        assert await (await client.submit(call("drills", "echo", value="after"))).result(within=20) == "after"
        assert worker.process.poll() is None
