"""How pulling ends when nothing answers."""

import asyncio

from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.pull import Delivery, Pulls
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue


class NoListener:
    """A listener without interest."""

    def delivered(self, delivery: Delivery) -> None:
        pass

    def changed(self) -> None:
        pass

    def reconnected(self) -> None:
        pass


async def test_pulling_ends_in_seconds_while_the_server_is_silent(own_nats_server: NatsServer) -> None:
    """A worker that drains meanwhile must not fail for that, and take its attempts with it."""
    async with Broker(own_nats_server.url, name="test") as broker:
        await ensure(broker, a_queue())
        async with Pulls(broker, a_queue(), NoListener()) as pulls:
            own_nats_server.freeze()
            async with asyncio.timeout(30):
                await pulls.end()
            own_nats_server.thaw()
