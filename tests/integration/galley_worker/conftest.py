"""A queue of drills on the shared server, and a client of it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from galley import AsyncClient, connect
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.resources import TaskQueue
from galley_local.nats_server import NatsServer
from tests.support.workers import WorkerProcess, a_task_queue, workers

StartWorkers = Callable[..., Awaitable[list[WorkerProcess]]]


@pytest.fixture
async def client(nats_server: NatsServer, namespace: str) -> AsyncIterator[AsyncClient]:
    async with connect(nats_server.url, namespace) as client:
        yield client


@pytest.fixture
async def drills(client: AsyncClient, namespace: str) -> TaskQueue:
    """The queue most tests use: short waits between attempts, short grace."""
    queue = a_task_queue(
        namespace,
        retry={"attempts": 3, "backoffSeconds": 0.1, "maxBackoffSeconds": 0.2},
        worker={"concurrency": 4, "gracePeriodSeconds": 2},
    )
    await ensure(client.broker, layout_of(queue, "tests"))
    return queue


@pytest.fixture
async def start(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[StartWorkers]:
    """Starts workers of a queue; they are killed at the end of the test."""
    async with AsyncExitStack() as ends:

        async def start(
            queue: TaskQueue, names: Iterable[str] = ("w1",), **environment: Any
        ) -> list[WorkerProcess]:
            server = environment.pop("server", nats_server.url)
            return ends.enter_context(workers(server, queue, tmp_path, names, **environment))

        yield start
