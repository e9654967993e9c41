"""A gateway over the shared nats-server, and one worker for all tests of a file."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley_local.nats_server import NatsServer
from tests.support.gateways import Served, served
from tests.support.workers import WorkerProcess, a_task_queue


@pytest.fixture(scope="module")
def worked(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A namespace whose queue `drills` has a worker."""
    namespace = f"g{tmp_path_factory.mktemp('ns').name.replace('_', '-')}"
    queue = a_task_queue(namespace)

    async def prepare() -> None:
        async with Broker(nats_server.url, name="test") as broker:
            await ensure(broker, layout_of(queue, "tests"))

    asyncio.run(prepare())
    worker = WorkerProcess(nats_server.url, queue, tmp_path_factory.mktemp("worker"), "w1")
    yield namespace
    worker.kill()


@pytest.fixture
async def api(nats_server: NatsServer, worked: str) -> AsyncIterator[Served]:
    async with served(nats_server.url, worked) as found:
        yield found
