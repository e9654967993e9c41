"""Fixtures for tests of programs that use Galley; pytest finds them by itself."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from galley import Client
    from galley.testing import AsyncEagerClient, EagerClient
    from galley_local.nats_server import NatsServer

# pytest loads this in every project that has Galley installed: nothing is imported before it is used.


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
    asyncio.run(server.start())
    yield server
    server.kill()


@pytest.fixture
def galley_queue(
    galley_server: "NatsServer", tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[Callable[..., Client]]":
    """Starts a worker of a queue on the server, and returns a `galley.Client` of it.

    `galley_queue("images", "shop.images", retry={"attempts": 1})` makes the queue `images` with the handlers
    of the module `shop.images`; what follows are fields of its spec. Each test has a namespace of its own.
    """
    from galley import Client  # noqa: PLC0415
    from galley.broker.connection import Broker  # noqa: PLC0415
    from galley.broker.ensure import ensure  # noqa: PLC0415
    from galley.broker.layout import layout_of  # noqa: PLC0415
    from galley.resources import Metadata, TaskQueue, TaskQueueSpec  # noqa: PLC0415

    namespace, folder = f"test-{secrets.token_hex(4)}", tmp_path_factory.mktemp("galley-worker")

    async def create(queue: TaskQueue) -> None:
        async with Broker(galley_server.url, name="galley tests") as broker:
            await ensure(broker, layout_of(queue, "tests"))

    with ExitStack() as ends:

        def start(name: str, *modules: str, **spec: Any) -> Client:
            worker = {"modules": list(modules), "gracePeriodSeconds": 1, **spec.pop("worker", {})}
            queue = TaskQueue(
                metadata=Metadata(name=name, namespace=namespace),
                spec=TaskQueueSpec.model_validate({"worker": worker, **spec}),
            )
            asyncio.run(create(queue))
            manifest = folder / f"{name}.json"
            manifest.write_text(json.dumps(queue.model_dump(mode="json", by_alias=True)))
            environment = {
                **os.environ,
                "GALLEY_SERVER": galley_server.url,
                "GALLEY_QUEUE_MANIFEST": str(manifest),
                "GALLEY_WORKER": "test",
                "GALLEY_HEALTH_PORT": "0",
                "GALLEY_IMPORT_PATHS": json.dumps([path for path in sys.path if path]),
            }
            with (folder / f"{name}.log").open("wb") as log:
                running = subprocess.Popen(
                    [sys.executable, "-m", "galley_worker"], env=environment, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log,
                )  # fmt: skip
            ends.callback(_end, running)
            client = Client(galley_server.url, namespace)
            ends.callback(client.close)
            return client

        yield start


def _end(running: "subprocess.Popen[bytes]") -> None:
    running.terminate()
    try:
        running.wait(10)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
