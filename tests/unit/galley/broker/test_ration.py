"""A listener hears no more than its ration, and goes on listening, over a nats-server in memory."""

import asyncio

from nats.aio.msg import Msg

from galley.broker.ration import MOST_BYTES, PERIOD_SECONDS, Ration, rationed
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
        async with rationed(listener, "hb.>", react, Ration(MOST)):
            (subscription,) = (each for each in listener.line._interest if each.subject == "hb.>")
            assert subscription._left == MOST, "the server ends it, however busy the listener is"
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
        rationed(listener, "hb.>", react, Ration(MOST)),
    ):
        for _ in range(MOST):
            tenant.publish("hb.a", b"before")
        await eventually(lambda: len(heard) == MOST, within=5)
        # Away at the moment at which it would listen again.
        listener.line.cut()
        await asyncio.sleep(3 * PERIOD_SECONDS)
        tenant.publish("hb.a", b"again")
        await eventually(lambda: heard[-1] == b"again", within=5)


LARGE = b"x" * (MOST_BYTES // 8)


@in_virtual_time
async def test_large_messages_are_heard_by_their_bytes() -> None:
    """The server knows no limit of bytes: what it may send at once is as much as a ration of the largest."""
    server, heard = MemoryServer(), list[int]()

    async def react(message: Msg) -> None:
        heard.append(len(message.data))

    async with (
        MemoryBroker(server, "listener") as listener,
        MemoryBroker(server, "tenant") as tenant,
        rationed(listener, "hb.>", react, Ration(1_000)),
    ):
        for _ in range(8):
            tenant.publish("hb.a", LARGE)
        await eventually(lambda: len(heard) == 8, within=5)
        await asyncio.sleep(PERIOD_SECONDS / 2)
        tenant.publish("hb.a", b"small")
        await asyncio.sleep(PERIOD_SECONDS)
        assert len(heard) == 8, "its ration of bytes is spent"
        for _ in range(500):
            tenant.publish("hb.a", LARGE)
        await eventually(lambda: len(heard) == 16, within=5)
        await asyncio.sleep(PERIOD_SECONDS / 2)
        assert len(heard) == 16
        await asyncio.sleep(PERIOD_SECONDS)
        for _ in range(20):
            tenant.publish("hb.a", b"small")
            await asyncio.sleep(PERIOD_SECONDS / 10)
        assert heard.count(5) == 20, "what keeps to its ration is heard, a window after the other"


@in_virtual_time
async def test_a_large_message_costs_nothing_of_what_comes_long_after_it() -> None:
    """Each time it listens again, it may miss something: that has to be as seldom as before."""
    server, heard, again = MemoryServer(), list[bytes](), list[None]()

    async def react(message: Msg) -> None:
        heard.append(message.data)

    async with (
        MemoryBroker(server, "listener") as listener,
        MemoryBroker(server, "tenant") as tenant,
        rationed(listener, "hb.>", react, Ration(1_000), missed=lambda: again.append(None)),
    ):
        for _ in range(8):
            tenant.publish("hb.a", LARGE)
        for _ in range(200):
            await asyncio.sleep(PERIOD_SECONDS / 4)
            tenant.publish("hb.a", b"now and then")
        heard.clear()
        again.clear()
        for _ in range(500):
            tenant.publish("hb.a", b"many")
        await asyncio.sleep(PERIOD_SECONDS)
        assert len(heard) >= 500
        assert len(again) <= 10


@in_virtual_time
async def test_it_tells_when_it_may_have_missed_something() -> None:
    server, missed = MemoryServer(), asyncio.Event()

    async def react(_message: Msg) -> None:
        pass

    async with (
        MemoryBroker(server, "listener") as listener,
        MemoryBroker(server, "tenant") as tenant,
        rationed(listener, "hb.>", react, Ration(MOST), missed=missed.set),
    ):
        for _ in range(MOST - 1):
            tenant.publish("hb.a", b"")
        await asyncio.sleep(3 * PERIOD_SECONDS)
        assert not missed.is_set()
        tenant.publish("hb.a", b"")
        await eventually(missed.is_set, within=5)


@in_virtual_time
async def test_a_seamless_ration_hears_all_that_keeps_to_it() -> None:
    server, heard, missed = MemoryServer(), list[bytes](), list[None]()

    async def react(message: Msg) -> None:
        heard.append(message.data)

    async with (
        MemoryBroker(server, "listener") as listener,
        MemoryBroker(server, "tenant") as tenant,
        rationed(listener, "hb.>", react, Ration(MOST, seamless=True), missed=lambda: missed.append(None)),
    ):
        for number in range(5 * MOST):
            # Now and then the server does not answer that a subscription has ended.
            listener.line.lose(*((lambda subject: not subject,) if number % MOST == 0 else ()))
            tenant.publish("hb.a", b"%d" % number)
            await asyncio.sleep(PERIOD_SECONDS / MOST if number % MOST else 20 * PERIOD_SECONDS)
        assert [int(each) for each in heard] == list(range(5 * MOST))
        assert not missed
        assert [each.subject for each in listener.line._interest].count("hb.>") == 1
        for _ in range(2 * MOST):
            tenant.publish("hb.a", b"flood")
        await asyncio.sleep(3 * PERIOD_SECONDS)
        assert 0 < heard.count(b"flood") <= MOST
        assert missed
