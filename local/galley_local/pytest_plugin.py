"""Fixtures for tests of programs that use Galley; pytest finds them by itself.

They are plain fixtures, so they work with every plugin for coroutines. Each process of pytest-xdist has a
nats-server of its own, and each test a namespace.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from galley import AsyncClient, Client
    from galley.testing import AsyncEagerClient, EagerClient
    from galley_local.nats_server import NatsServer
    from galley_local.workers_in_tests import WorkersInTests

# pytest loads this in every project that has Galley installed: nothing is imported before it is used.

_WORKERS: Final = pytest.StashKey["WorkersInTests"]()


@pytest.fixture
def galley_client() -> "EagerClient":
    """A `galley.testing.EagerClient`: tasks run in memory, at once."""
    from galley.testing import EagerClient  # noqa: PLC0415

    return EagerClient()


@pytest.fixture
def galley_async_client() -> "AsyncEagerClient":
    """A `galley.testing.AsyncEagerClient`: the same for coroutines."""
    from galley.testing import AsyncEagerClient  # noqa: PLC0415

    return AsyncEagerClient()


@pytest.fixture(scope="session")
def galley_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[NatsServer]":
    """A nats-server with JetStream for all tests of the session; needs the extra `local`."""
    from galley_local.nats_server import NatsServer  # noqa: PLC0415

    server = NatsServer(tmp_path_factory.mktemp("galley-nats"))
    # The kernel ends the server with the thread that started it, and this one may be in an event loop.
    with ThreadPoolExecutor(1, "galley-server") as beside:
        beside.submit(lambda: asyncio.run(server.start())).result()
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture
def galley_queue(_galley_workers: "WorkersInTests") -> "Callable[..., Client]":
    """Starts a worker of a queue on the server, and returns a `galley.Client` of it.

    `galley_queue("images", "shop.images", retry={"attempts": 1})` makes the queue `images` with the handlers
    of the module `shop.images`; what follows are fields of its spec. Each test has a namespace of its own.
    """

    def start(name: str, *modules: str, **spec: Any) -> "Client":
        _galley_workers.start(name, *modules, **spec)
        return _galley_workers.client()

    return start


@pytest.fixture
def galley_async_queue(_galley_workers: "WorkersInTests") -> "Callable[..., AsyncClient]":
    """Does as `galley_queue`, and returns a `galley.AsyncClient` for an `async with`."""

    def start(name: str, *modules: str, **spec: Any) -> "AsyncClient":
        _galley_workers.start(name, *modules, **spec)
        return _galley_workers.async_client()

    return start


@pytest.fixture
def _galley_workers(
    request: pytest.FixtureRequest, galley_server: "NatsServer", tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[WorkersInTests]":
    from galley_local.workers_in_tests import WorkersInTests  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as patch:
        # They may name an installation that no test is meant to use.
        for name in [name for name in os.environ if name.startswith("GALLEY_")]:
            patch.delenv(name)
        with WorkersInTests(galley_server.url, tmp_path_factory.mktemp("galley-worker")) as workers:
            request.node.stash[_WORKERS] = workers
            yield workers


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> None:
    """Show the logs of its workers below a test that failed."""
    workers = item.stash.get(_WORKERS, None)
    if workers is not None and call.when == "call" and call.excinfo is not None:
        for queue, text in workers.logs().items():
            item.add_report_section("call", f"worker of {queue}", text)
