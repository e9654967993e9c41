"""A queue of drills on the shared server, and a client of it."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack
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


class Kept:
    """Workers that go on from test to test in a file that says `ONE_WORKER = True`, in one namespace.

    A worker and its children take half a second of processor time, most tests less. The tests of such a file
    submit tasks under ids that no other has, and harm no worker.
    """

    def __init__(self, folder: Path) -> None:
        self.namespace = f"t{secrets.token_hex(5)}"
        self._folder = folder
        self._running: dict[str, tuple[object, ExitStack, list[WorkerProcess]]] = {}

    def start(
        self, server: str, queue: TaskQueue, names: Iterable[str], environment: dict[str, str]
    ) -> list[WorkerProcess]:
        """Return the workers of a queue, which all tests of the file start in one way.

        A test has its result before a dead letter is written and the task acknowledged. Were the worker
        killed for another one then, the task would come to a later test, when its lease ends.
        """
        wanted = server, queue.model_dump_json(), tuple(names), environment
        if queue.metadata.name in self._running:
            began, _, found = self._running[queue.metadata.name]
            assert began == wanted
            assert [each.process.poll() for each in found] == [None] * len(found)
            return found
        ends = ExitStack()
        found = ends.enter_context(workers(server, queue, self._folder, wanted[2], **environment))
        self._running[queue.metadata.name] = wanted, ends, found
        return found

    def end(self) -> None:
        """Kill them."""
        for _, ends, _ in self._running.values():
            ends.close()


@pytest.fixture(scope="module")
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept | None]:
    """The workers of a file that has them in common."""
    if not getattr(request.module, "ONE_WORKER", False):
        yield None
        return
    found = Kept(tmp_path_factory.mktemp("kept"))
    yield found
    found.end()


@pytest.fixture
def namespace(kept: Kept | None) -> str:
    """A namespace of the test, or of the file if its tests have their workers in common."""
    return kept.namespace if kept else f"t{secrets.token_hex(5)}"


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
async def start(nats_server: NatsServer, tmp_path: Path, kept: Kept | None) -> AsyncIterator[StartWorkers]:
    """Starts workers of a queue; they are killed at the end of the test, or of a file with `ONE_WORKER`."""
    async with AsyncExitStack() as ends:

        async def start(
            queue: TaskQueue, names: Iterable[str] = ("w1",), **environment: Any
        ) -> list[WorkerProcess]:
            server = environment.pop("server", nats_server.url)
            if kept:
                return kept.start(server, queue, names, environment)
            return ends.enter_context(workers(server, queue, tmp_path, names, **environment))

        yield start
