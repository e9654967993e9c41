"""Backups in tests: their streams compared, a broker whose disk is lost, a destination that fails midway."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from galley.backup.destination import Destination, Stored
from galley.backup.errors import DestinationFailed
from galley.backup.sealing import Key
from galley.broker.connection import Broker
from galley.broker.snapshot import messages_from, owned_streams
from galley.broker.stream_kind import NOT_ARCHIVED
from galley_local.nats_server import NatsServer

KEY: Final = Key(b"\x07" * 32)


def lose_disk(server: NatsServer, folder: Path) -> None:
    """Kill a server and delete its streams, as if its volume were gone."""
    server.kill()
    shutil.rmtree(folder / "jetstream")


async def subjects_in(broker: Broker, *namespaces: str) -> dict[str, list[str]]:
    """Return the subjects of the messages of each stream that archives have, sorted."""
    found = {}
    for stream in await owned_streams(broker, namespaces):
        if stream.kind in NOT_ARCHIVED:
            continue
        messages = [each async for batch in messages_from(broker, stream, 1) for each in batch]
        found[stream.name] = sorted(each.subject for each in messages)
    return found


@dataclass
class FailingReads:
    """A destination whose reads fail after so many bytes, until it is mended."""

    inner: Destination
    bytes_left: list[int] = field(default_factory=list)
    """For each read that follows; those after them succeed."""

    def __str__(self) -> str:
        return str(self.inner)

    async def write(self, name: str, data: AsyncIterator[bytes]) -> None:
        await self.inner.write(name, data)

    async def read(self, name: str) -> AsyncIterator[bytes]:
        left = self.bytes_left.pop(0) if self.bytes_left else 10**12
        async for piece in self.inner.read(name):
            yield piece[: max(left, 0)]
            left -= len(piece)
            if left < 0:
                raise DestinationFailed(str(self), "read", "Input/output error", "check the volume")

    async def files(self) -> list[Stored]:
        return await self.inner.files()

    async def remove(self, name: str) -> None:
        await self.inner.remove(name)
