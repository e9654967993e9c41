import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from galley_local.errors import ServerKeepsEnding
from galley_local.nats_server import NatsServer
from galley_local.server_watch import MOST_RESTARTS, ServerWatch
from tests.support.eventually import eventually


@dataclass
class Watched:
    server: NatsServer
    cramped: bool = False
    said: list[str] = field(default_factory=list)
    watching: "asyncio.Task[None] | None" = None

    def heard(self, words: str, times: int = 1) -> bool:
        return sum(words in each for each in self.said) >= times


@asynccontextmanager
async def watching(server: NatsServer) -> AsyncIterator[Watched]:
    watched = Watched(server)
    watch = ServerWatch(server, cramped=lambda: watched.cramped, say=watched.said.append)
    watched.watching = asyncio.create_task(watch.run())
    yield watched
    watched.watching.cancel()
    await asyncio.wait([watched.watching])


async def back(watched: Watched, times: int = 1) -> None:
    await eventually(lambda: watched.heard("nats-server is back", times), within=20)


async def test_a_server_that_died_is_started_again_on_its_port(own_nats_server: NatsServer) -> None:
    port = own_nats_server.port
    async with watching(own_nats_server) as watched:
        own_nats_server.kill()
        await back(watched)
        assert own_nats_server.running
        assert own_nats_server.port == port


async def test_a_server_that_keeps_dying_is_given_up(own_nats_server: NatsServer) -> None:
    async with watching(own_nats_server) as watched:
        for times in range(1, MOST_RESTARTS + 1):
            own_nats_server.kill()
            await back(watched, times)
        own_nats_server.kill()
        assert watched.watching is not None
        with pytest.raises(ServerKeepsEnding, match="ended 6 times"):
            async with asyncio.timeout(30):
                await watched.watching


async def test_after_a_full_disk_the_server_is_started_again_once_there_is_room(
    own_nats_server: NatsServer,
) -> None:
    before = own_nats_server.pid
    async with watching(own_nats_server) as watched:
        watched.cramped = True
        await eventually(lambda: watched.heard("almost full"), within=30)
        with own_nats_server.log_file.open("a") as log:
            log.write("[ERR] Critical write error: write msgs/3.blk: no space left on device\n")
        await eventually(lambda: watched.heard("the disk is full"), within=30)
        assert own_nats_server.pid == before
        watched.cramped = False
        await back(watched)
        assert own_nats_server.pid != before
        assert not watched.heard("the disk is full", times=2)
