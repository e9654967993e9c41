"""A queue of drills on the shared server, and a client of it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from galley import AsyncClient, connect
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.resources import TaskQueue
from galley_local.nats_server import NatsServer
from galley_worker.runners.fork_server import ForkServer
from tests.support.workers import WorkerProcess, a_task_queue, workers

StartWorkers = Callable[..., Awaitable[list[WorkerProcess]]]


@pytest.fixture(scope="module")
def one_fork_server() -> Iterator[None]:
    """Keep the fork server from one test to the next: starting it takes longer than most of them."""
    with ForkServer():
        yield


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that all children know, from the environment of the fork server."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("trials")
        patch.setenv("TRIAL_FOLDER", str(folder))
        with ForkServer():
            yield folder


@pytest.fixture
def folder(shared_folder: Path) -> Path:
    """The folder in which `handlers_that_leak` take notes."""
    for each in shared_folder.iterdir():
        each.unlink()
    return shared_folder


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
