"""The broker is killed, restarted or absent, and no worker is touched."""

import asyncio
import random
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from galley import call, connect
from galley_local.nats_server import NatsServer
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually
from tests.support.port import free_port
from tests.support.workers import WorkerProcess, a_task_queue, ensure_with_leases

LEASE = 30.0
KILLS = 6
TASKS = 60


# nats-py forgets the writer of an attempt to connect in whose midst the broker is killed.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*StreamWriter:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_restarts_of_the_broker_alone_count_no_crash_and_bury_no_task(
    own_nats_server: NatsServer, namespace: str, start: StartWorkers, how: str
) -> None:
    dice = random.Random(19)
    queue = a_task_queue(namespace, worker={"concurrency": 10})
    async with connect(own_nats_server.url, namespace) as client:
        await ensure_with_leases(client.broker, queue, LEASE)
        fleet = await start(queue, ("w1", "w2", "w3"), server=own_nats_server.url)
        await eventually(lambda: all(worker.ready for worker in fleet), within=60)
        handles = await client.submit_many(
            call("drills", "aecho", value=number, seconds=dice.uniform(1, 3)) for number in range(TASKS)
        )
        for _ in range(KILLS):
            await asyncio.sleep(dice.uniform(0.4, 1.0))
            if how == "killed":
                own_nats_server.kill()
            else:
                await own_nats_server.stop()
            await own_nats_server.start()
        results = [await handle.result(within=40) for handle in handles]
        histories = [(await handle.status()).history for handle in handles]
    assert results == list(range(TASKS))
    assert [(past.crashes, past.errors, past.preemptions) for past in histories] == [(0, 0, 0)] * TASKS


def readiness(port: int) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except urllib.error.URLError:
        return 0, ""


async def test_a_worker_that_starts_without_a_broker_waits_for_it_and_is_not_ready(
    own_nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    queue = a_task_queue(namespace)
    async with connect(own_nats_server.url, namespace) as client:
        await ensure_with_leases(client.broker, queue, LEASE)
    await own_nats_server.stop()
    port = free_port()
    worker = WorkerProcess(own_nats_server.url, queue, tmp_path, "w1", GALLEY_HEALTH_PORT=str(port))
    try:
        await eventually(lambda: worker.logged("waiting for the broker"), within=30)
        assert "127.0.0.1" in worker.logged("waiting for the broker")[0]["error"]
        assert await asyncio.to_thread(readiness, port) == (503, "no connection to the broker\n")
        await own_nats_server.start()
        await eventually(lambda: worker.ready, within=30)
        async with connect(own_nats_server.url, namespace) as client:
            handle = await client.submit(call("drills", "echo", value="late"))
            assert await handle.result(within=20) == "late"
        assert (await asyncio.to_thread(readiness, port))[0] == 200
        assert worker.end() == 0
    finally:
        worker.kill()


async def test_a_worker_that_waits_for_its_broker_ends_when_told(
    own_nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    await own_nats_server.stop()
    worker = WorkerProcess(own_nats_server.url, a_task_queue(namespace), tmp_path, "w1")
    try:
        await eventually(lambda: worker.logged("waiting for the broker"), within=30)
        assert worker.end(within=30) == 0
    finally:
        worker.kill()
