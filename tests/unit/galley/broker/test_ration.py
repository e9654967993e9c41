"""A listener hears no more than its ration, and goes on listening, over a nats-server in memory."""

import asyncio

from nats.aio.msg import Msg

from galley.broker.ration import PERIOD_SECONDS, rationed
from tests.support.eventually import eventually
from tests.support.memory_nats import MemoryBroker, MemoryServer
from tests.support.virtual_time import in_virtual_time

MOST = 5


@in_virtual_time
async def test_what_is_above_a_ration_is_not_heard_until_its_time_is_over() -> None:
    server, heard = MemoryServer(), list[bytes]()

    async def react(message: Msg) -> None:
        heard.append(message.data)

    async with MemoryBroker(server, "listener") as listener, MemoryBroker(server, "tenant") as tenant:
        async with rationed(listener, "hb.>", react, MOST):
            for number in range(100):
                tenant.publish("hb.a", b"%d" % number)
            await asyncio.sleep(PERIOD_SECONDS / 2)
            assert heard == [b"%d" % number for number in range(MOST)]
            await asyncio.sleep(PERIOD_SECONDS)
            for _ in range(3 * MOST):
                tenant.publish("hb.a", b"later")
                await asyncio.sleep(PERIOD_SECONDS / MOST)
            assert heard.count(b"later") > 2 * MOST, "what keeps to its ration is heard"
        before = len(heard)
        tenant.publish("hb.a", b"after")
        await asyncio.sleep(PERIOD_SECONDS)
        assert len(heard) == before


@in_virtual_time
async def test_it_listens_again_once_there_is_a_connection() -> None:
    server, heard = MemoryServer(), list[bytes]()

    async def react(message: Msg) -> None:
        heard.append(message.data)

    async with (
        MemoryBroker(server, "listener") as listener,
        MemoryBroker(server, "tenant") as tenant,
        rationed(listener, "hb.>", react, MOST),
    ):
        for _ in range(MOST):
            tenant.publish("hb.a", b"before")
        await eventually(lambda: len(heard) == MOST, within=5)
        # Away at the moment at which it would listen again.
        listener.line.cut()
        await asyncio.sleep(3 * PERIOD_SECONDS)
        tenant.publish("hb.a", b"again")
        await eventually(lambda: heard[-1] == b"again", within=5)
