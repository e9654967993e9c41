"""A worker process as its kubelet and Prometheus see it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from galley import AsyncClient, call
from galley.broker.control import Request, Verb, ask_workers
from galley.broker.layout import layout_of
from galley.broker.stream_config import consumer_definitions
from galley.resources import TaskQueue
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually
from tests.support.port import free_port

Page = Callable[[str], Awaitable[tuple[int, str]]]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def page(port: int) -> Page:
    """Reads a page; a status of 0 means that it is not served."""

    async def page(path: str) -> tuple[int, str]:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return 0, ""
        writer.write(f"GET {path} HTTP/1.1\r\nHost: worker\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        return int(head.split()[1]), body

    return page


async def test_a_worker_is_ready_while_it_takes_tasks_and_live_all_the_time(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers, port: int, page: Page
) -> None:
    await start(drills, GALLEY_HEALTH_PORT=str(port), GALLEY_HEALTH_HOST="127.0.0.1")

    async def ready() -> bool:
        status, words = await page("/readyz")
        # Not served, not connected, or no tasks taken yet: not ready before it is.
        early = (503, "no connection to the broker\n"), (503, "takes no tasks\n")
        assert (status, words) in {(0, ""), *early, (200, "takes tasks\n")}
        return status == 200

    await eventually(ready, within=20)
    assert (await page("/livez"))[0] == 200

    async def drain(seconds: float) -> None:
        request = Request(workers=("w1",), seconds=seconds)
        assert await ask_workers(client.broker, client.namespace, "drills", Verb.DRAIN, request)

    await drain(60)
    assert await page("/readyz") == (503, "takes no tasks\n")
    assert await page("/livez") == (200, "takes no tasks at the moment, by intention\n")
    await drain(0)
    assert await page("/readyz") == (200, "takes tasks\n")


async def test_a_worker_whose_consumers_are_gone_is_up_and_not_live(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers, port: int, page: Page
) -> None:
    settings = {
        "GALLEY_HEALTH_PORT": str(port),
        "GALLEY_HEALTH_HOST": "127.0.0.1",
        "GALLEY_LIVE_SECONDS": "10",
    }
    (worker,) = await start(drills, **settings)
    await (await client.submit(call("drills", "echo"))).result(within=20)

    for stream, consumer in consumer_definitions(layout_of(drills, "tests")):
        await client.broker.api("break the queue", f"CONSUMER.DELETE.{stream}.{consumer['name']}")

    async def said() -> str:
        status, words = await page("/livez")
        return words if status == 503 else ""

    assert not await said(), "not at the first trouble"
    assert "the limit is 10 s" in await eventually(said, within=20)
    assert worker.process.poll() is None


async def test_its_metrics_tell_of_the_tasks_it_ran(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers, port: int, page: Page
) -> None:
    await start(drills, GALLEY_HEALTH_PORT=str(port), GALLEY_HEALTH_HOST="127.0.0.1")
    for handle in await client.submit_many([call("drills", "echo", value=n) for n in range(3)]):
        await handle.result(within=20)

    async def samples() -> dict[str, float]:
        _, text = await page("/metrics")
        return {
            sample.name + "." + sample.labels.get("verdict", ""): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def counted() -> bool:
        return (await samples()).get("galley_attempts_total.Succeed") == 3

    # A result is there before its attempt is counted.
    await eventually(counted, within=30)
    assert (await samples())["galley_slots."] >= drills.spec.worker.concurrency
