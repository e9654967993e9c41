"""Listening to a topic, over a nats-server in memory: what is heard, what is missed, and what ends it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest

from galley.broker import live, topology
from galley.broker.ration import PERIOD_SECONDS
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.client import AsyncClient
from galley.errors import ClientClosed, EventInvalid, FilterInvalid, TopicNotFound
from galley.event import DATA_LIMIT
from galley.listener import AsyncListener
from galley.topic import Topic
from tests.support.memory_nats import MemoryBroker, MemoryServer
from tests.support.virtual_time import in_virtual_time

SETTLED_SECONDS = 0.1
"""Time in which all that is under way arrives."""


class Stage:
    """A topic, a program that publishes to it, and one that may listen."""

    def __init__(self, server: MemoryServer, operator: MemoryBroker, listener: MemoryBroker) -> None:
        self.server, self.line, self.broker = server, listener.line, listener
        self._keeper = TopicKeeper(operator, "shop", "test")
        self.publisher = AsyncClient.over(operator, "shop")
        self.client = AsyncClient.over(listener, "shop")

    async def keep(self, *topics: str) -> None:
        """Have these topics and no others."""
        assert await self._keeper.keep([Declared(Topic(name)) for name in topics]) == []

    async def publish(self, *data: Any, topic: str = "orders", **attributes: str | int) -> None:
        """Publish an event for each of the data, and let it arrive."""
        for each in data:
            await self.publisher.publish(topic, each, attributes)
        await asyncio.sleep(SETTLED_SECONDS)

    @property
    def heard(self) -> list[str]:
        """The subjects that the listening program has subscribed to."""
        return [each.subject for each in self.line._interest if each.subject.startswith("galley.live.")]


@asynccontextmanager
async def a_stage() -> AsyncIterator[Stage]:
    server = MemoryServer()
    async with MemoryBroker(server, "operator") as operator, MemoryBroker(server, "listener") as listener:
        stage = Stage(server, operator, listener)
        await stage.keep("orders", "moves")
        yield stage


async def taken(events: AsyncListener) -> list[Any]:
    """Return the data of all events that are there."""
    found = []
    while True:
        try:
            async with asyncio.timeout(SETTLED_SECONDS):
                found.append(msgspec.json.decode((await anext(events)).event.data))
        except TimeoutError:
            return found


@in_virtual_time
async def test_what_passes_the_filter_is_heard_while_the_block_runs() -> None:
    async with a_stage() as stage:
        await stage.publish("before", region="eu")
        async with stage.client.topics.listen("orders", 'attributes.region == "eu"') as events:
            await stage.publish("one", "two", region="eu")
            await stage.publish("elsewhere", region="us")
            await stage.publish("nowhere")
            await stage.publish("of another topic", topic="moves", region="eu")
            assert await taken(events) == ["one", "two"]
            assert (events.dropped, events.gaps, events.failed) == (0, 0, 1)
        assert stage.heard == []
        assert not any((stage.broker._on_close, stage.broker._reconnected, stage.broker._on_unheard))
        assert stage.broker.live._namespaces == {}


@in_virtual_time
async def test_a_slow_listener_has_the_newest_events_and_holds_up_no_other() -> None:
    async with a_stage() as stage:
        topics = stage.client.topics
        async with topics.listen("orders", buffer=3) as slow, topics.listen("orders") as quick:
            assert len(stage.heard) == 1, "listeners of a topic share a subscription"
            await stage.publish(*range(10))
            assert await taken(quick) == list(range(10))
            assert await taken(slow) == [7, 8, 9]
            assert (slow.dropped, quick.dropped) == (7, 0)
            assert slow.gaps == quick.gaps == 0


@in_virtual_time
async def test_large_events_take_no_more_than_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HELD_BYTES", 4 * DATA_LIMIT)
    async with a_stage() as stage:
        topics = stage.client.topics
        async with topics.listen("orders") as one, topics.listen("orders") as two:
            large = "x" * (DATA_LIMIT - 100)
            await stage.publish(*(f"{number}{large}" for number in range(6)))
            place = stage.broker.live._namespaces["shop"]
            assert place.held <= live.HELD_BYTES
            assert [each[:1] for each in await taken(one)] == ["5"]
            assert one.dropped == 5
            place.held = live.HELD_BYTES  # as hundreds of listeners with one event each
            await stage.publish("no room for the one")
            assert await taken(one) == []
            assert one.dropped == 6
        assert two.dropped == 5, "what it keeps leaves room in its share"


@in_virtual_time
async def test_a_lost_connection_is_a_gap_and_listening_goes_on() -> None:
    async with a_stage() as stage, stage.client.topics.listen("orders") as events:
        await stage.publish("before")
        stage.line.cut()
        await stage.publish("missed")
        await asyncio.sleep(3 * stage.line.reconnect_seconds)
        assert events.gaps == 1
        await stage.publish("after")
        assert await taken(events) == ["before", "after"]
        assert events.gaps == 1


@in_virtual_time
async def test_an_event_that_got_lost_on_its_way_is_a_gap() -> None:
    async with a_stage() as stage, stage.client.topics.listen("orders") as events:
        await stage.publish("one")
        stage.line.lose(to_client=lambda subject: subject.startswith("galley.live."))
        await stage.publish("lost")
        stage.line.lose()
        await stage.publish("of another topic", topic="moves")
        await stage.publish("two")
        assert await taken(events) == ["one", "two"]
        assert events.gaps == 1


@in_virtual_time
async def test_nothing_within_the_ration_is_missed_and_a_flood_is_a_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "LOOKS", 10)
    async with a_stage() as stage, stage.client.topics.listen("orders") as events:
        for number in range(100):
            await stage.publish(number)
            await asyncio.sleep(PERIOD_SECONDS / 5)
        assert await taken(events) == list(range(100))
        assert events.gaps == 0
        # At once: half of the ration, and then more of the same second.
        for _ in range(100):
            await stage.publisher.publish("orders", "flood")
        await asyncio.sleep(2 * PERIOD_SECONDS)
        assert 10 <= (await taken(events)).count("flood") < 100
        assert events.gaps >= 1
        gaps = events.gaps
        await stage.publish("after")
        assert await taken(events) == ["after"]
        assert events.gaps == gaps


@in_virtual_time
async def test_listeners_of_a_namespace_share_what_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LOOKS", 20)
    async with a_stage() as stage, AsyncExitStack() as stack:
        topics = stage.client.topics
        for _ in range(5):
            await stack.enter_async_context(topics.listen("orders"))
        events = [await stack.enter_async_context(topics.listen("moves")) for _ in range(5)]
        for _ in range(50):
            await stage.publisher.publish("moves", "flood")
        await asyncio.sleep(PERIOD_SECONDS / 4)
        heard = [len(await taken(each)) for each in events]
        assert 0 < sum(heard) <= live.LOOKS, "ten listeners: two events each a second"


@in_virtual_time
async def test_what_comes_by_two_subscriptions_is_one_event() -> None:
    async with a_stage() as stage, stage.client.topics.listen("orders") as events:
        topic = stage.broker.live._namespaces["shop"].topics["orders"]
        again = await stage.broker.subscribe(topic.subject, topic._hear)
        await stage.publish("one", "two")
        await again.unsubscribe()
        assert await taken(events) == ["one", "two"]
        # The stream is made again, and its sequences begin again.
        stage.server.streams.clear()
        await stage.keep("orders", "moves")
        await stage.publish("three")
        assert await taken(events) == ["three"]
        assert events.gaps == 0


@in_virtual_time
async def test_what_is_no_event_is_counted_and_passed_over() -> None:
    async with a_stage() as stage, stage.client.topics.listen("orders") as events:
        for body in (b"", b"{}", b"\xff", b'{"specversion":"1.0"}'):
            stage.broker.publish(topology.event_subject("shop", "orders"), body)
        # No role may publish there; if one could, it were no event of the stream.
        stage.broker.publish(topology.live_subject("shop", "orders"), b"{}")
        await stage.publish("one")
        assert await taken(events) == ["one"]
        assert events.failed == 4


@in_virtual_time
async def test_listeners_of_a_topic_that_is_removed_are_told() -> None:
    async with a_stage() as stage, stage.client.topics.listen("orders") as events:
        waiting = asyncio.create_task(anext(events))
        stage.line.cut()
        stage.line.reconnect_seconds = 12
        await asyncio.sleep(30)
        assert not waiting.done(), "a topic that cannot be looked for may be there"
        await stage.keep("moves")
        with pytest.raises(TopicNotFound):
            await waiting
        with pytest.raises(TopicNotFound):
            await anext(events)
        with pytest.raises(TopicNotFound):
            async with stage.client.topics.listen("orders"):
                pass
        assert len(stage.heard) == 1


@in_virtual_time
async def test_a_client_that_is_closed_ends_its_listeners() -> None:
    async with a_stage() as stage, MemoryBroker(stage.server, "short") as short:
        events = AsyncClient.over(short, "shop").topics.listen("orders")
        async with events:
            waiting = asyncio.create_task(anext(events))
            await asyncio.sleep(SETTLED_SECONDS)
            await short.__aexit__(None, None, None)
            with pytest.raises(ClientClosed):
                await waiting


@in_virtual_time
async def test_one_who_leaves_at_once_ends_it_for_no_other() -> None:
    async with a_stage() as stage:
        first = stage.client.topics.listen("orders")
        entering = asyncio.create_task(first.__aenter__())
        second = stage.client.topics.listen("orders")
        joining = asyncio.create_task(second.__aenter__())
        await asyncio.sleep(0)
        entering.cancel()
        await joining
        assert entering.cancelled()
        await stage.publish("one")
        assert await taken(second) == ["one"]
        await second.__aexit__(None, None, None)
        assert stage.heard == []


@in_virtual_time
async def test_mistakes_are_refused_at_once() -> None:
    async with a_stage() as stage:
        topics = stage.client.topics
        for buffer in (0, 100_001, "many"):
            with pytest.raises(EventInvalid, match="buffer"):
                topics.listen("orders", buffer=buffer)  # type: ignore[arg-type]
        with pytest.raises(FilterInvalid):
            topics.listen("orders", "region ==")
        with pytest.raises(EventInvalid, match="topic"):
            topics.listen("No Topic")
        events = topics.listen("orders")
        with pytest.raises(EventInvalid, match="does not listen"):
            await anext(events)
        async with events:
            with pytest.raises(EventInvalid, match="opened before"):
                await events.__aenter__()


@in_virtual_time
async def test_a_topic_that_cannot_be_looked_for_is_listened_to_all_the_same() -> None:
    async with a_stage() as stage, stage.client.topics.listen("orders") as events:
        stage.line.lose(to_server=lambda subject: subject.startswith("$JS.API."))
        coming = asyncio.ensure_future(anext(events))
        await asyncio.sleep(30)
        assert not coming.done()
        await stage.publish("one")
        assert msgspec.json.decode((await coming).event.data) == "one"
