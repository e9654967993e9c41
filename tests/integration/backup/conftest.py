"""Fixtures of the tests of backups."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from galley.backup.destination import Folder
from galley.broker.connection import Broker
from galley_local.nats_server import NatsServer
from tests.support.servers import ROOM


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder for archives."""
    place = tmp_path / "archives"
    place.mkdir()
    return Folder(place)


@pytest.fixture
async def other_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A second server, to restore into."""
    server = NatsServer(tmp_path / "other", max_store_bytes=ROOM)
    await server.start()
    yield server
    server.kill()


@pytest.fixture
async def broker(nats_server: NatsServer) -> AsyncIterator[Broker]:
    """A connection to the server that is backed up."""
    async with Broker(nats_server.url, name="test") as connection:
        yield connection


@pytest.fixture
async def other(other_server: NatsServer) -> AsyncIterator[Broker]:
    """A connection to the one that is restored into."""
    async with Broker(other_server.url, name="test") as connection:
        yield connection
