"""Fixtures: real nats-servers, and a namespace of its own for each test."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest

from galley_local.nats_server import NatsServer
from galley_local.warm_start import WarmStarter

ROOM: Final = 1024**5
"""Each namespace reserves room for its records; only the account of it grows, not the disk."""


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for the tests of a file that do it no harm; keep to your `namespace` there.

    The more streams there are, the longer it takes to make one: a queue takes 12 ms of the server's processor
    time, and 220 ms beside 400 others. To start a server takes 28 ms.
    """
    server = NatsServer(tmp_path_factory.mktemp("nats"), max_store_bytes=ROOM)
    asyncio.run(server.start())
    yield server
    server.kill()  # its data is not needed, and a graceful end takes 10 ms a consumer


@pytest.fixture(scope="session")
def starter() -> Iterator[WarmStarter]:
    """The process that forks the workers of a `ProcessFleet`."""
    with WarmStarter() as started:
        yield started


@pytest.fixture
async def own_nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server of this test alone, to be killed, frozen and started again."""
    server = NatsServer(tmp_path / "nats", max_store_bytes=ROOM)
    await server.start()
    yield server
    server.kill()


@pytest.fixture
def namespace() -> str:
    """A namespace no other test uses, so that streams on the shared server do not meet."""
    return f"t{secrets.token_hex(5)}"
