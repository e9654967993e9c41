"""What clients of a queue may write where Galley reads: it is left out and logged."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import pytest

from galley.address import Kind
from galley.broker import dead_letters, inspect, topology
from galley.broker.control import Answer, answering, answering_as, hearing
from galley.broker.flows import Flows
from galley.broker.follow import Follower
from galley.broker.held import message_of
from galley.broker.key_permits import KeyPermits
from galley.broker.missed_events import MissedEvents
from galley.broker.namespace_streams import topics_definition
from galley.broker.objects import whole_in
from galley.broker.queue_shares import ShareRecord
from galley.broker.schedules import schedules_of
from galley.broker.topic_keeper import TopicKeeper
from galley.broker.topics import events_of, find_topic, topics_of
from galley.broker.upcoming import _time_in
from galley.key import NO_PERMITS
from galley.lanes import Lane
from galley.queue_limit import NO_SHARES
from tests.support.builders import an_address
from tests.support.memory_nats import MemoryBroker
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import a_bench

PLACE: Final = ("default", "images")
ADDRESS: Final = an_address(id="task", kind=Kind.DIRECT)


async def listed(found: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in found]


STORED: Final[dict[str, tuple[str, Callable[[MemoryBroker], Awaitable[Any]], Any]]] = {
    "dead letter": (
        topology.dead_subject(ADDRESS),
        lambda broker: listed(dead_letters.all_of(broker, *PLACE)),
        [],
    ),
    "dead letter of no kind": (
        "galley.dead.default.images.none.task",
        lambda broker: listed(dead_letters.all_of(broker, *PLACE)),
        [],
    ),
    "workflow": (
        topology.flow_subject(*PLACE, "flow"),
        lambda broker: listed(Flows(broker).all_of(*PLACE)),
        [],
    ),
    "permits": (
        topology.permits_subject(*PLACE, "digest"),
        lambda broker: KeyPermits(broker, *PLACE).read("digest"),
        (NO_PERMITS, 1),
    ),
    "shares": (
        topology.permits_subject(*PLACE, "all"),
        lambda broker: ShareRecord(broker, *PLACE).read(),
        (NO_SHARES, 1),
    ),
    "schedule": (
        topology.timer_subject(*PLACE, "nightly"),
        lambda broker: listed(schedules_of(broker, *PLACE)),
        [],
    ),
    "topic": (topology.topic_subject("default", "up"), lambda broker: topics_of(broker, "default"), []),
    "topic by name": (
        topology.topic_subject("default", "up"),
        lambda broker: find_topic(broker, "default", "up"),
        None,
    ),
    "event": (
        topology.event_subject("default", "up"),
        lambda broker: listed(events_of(broker, "default", "up")),
        [],
    ),
    "subscriptions of code": (
        topology.code_subscriptions_subject("default", "images"),
        lambda broker: TopicKeeper(broker, "default", "tests").keep([]),
        [],
    ),
    "subscriptions": (
        topology.subscriptions_subject("default", "up", "images"),
        lambda broker: TopicKeeper(broker, "default", "tests").keep([]),
        [],
    ),
}


async def put(broker: MemoryBroker, subject: str, body: bytes = b"\xff") -> None:
    ack = await (await broker.pipeline.send(subject, body, b""))
    assert ack.stored, ack


@pytest.mark.parametrize("what", STORED)
@in_virtual_time
async def test_what_is_stored_and_cannot_be_read_is_left_out(what: str) -> None:
    subject, read, expected = STORED[what]
    async with a_bench() as bench:
        broker = bench.producer
        config = topics_definition("default", "tests", 1, 1_000_000, ())
        await broker.api("make", f"STREAM.CREATE.{config['name']}", config)
        await put(broker, subject)
        assert await read(broker) == expected


@in_virtual_time
async def test_a_task_that_cannot_be_read_is_there_without_what_it_is() -> None:
    async with a_bench() as bench:
        await put(bench.producer, topology.task_subject(ADDRESS))
        message = await message_of(bench.producer, ADDRESS)
        assert message is not None
        assert message.envelope is None
        (status,) = await inspect.peek(bench.producer, *PLACE, Lane.NORMAL, 10)
        assert (status.address.id, status.handler) == ("task", "")


HEARD: Final[dict[str, tuple[str, str]]] = {
    "verb": (topology.control_subject(*PLACE, "dance"), "request not understood"),
    "request": (topology.control_subject(*PLACE, "ping"), "request not understood"),
    "question": (topology.holder_subject(*PLACE, "one"), "question not understood"),
    "heartbeat": (topology.heartbeat_subject(*PLACE, "one"), "heartbeat not understood"),
}


def hearers(broker: MemoryBroker, react: Callable[..., Any]) -> list[AbstractAsyncContextManager[None]]:
    async def answer(*asked: Any) -> Answer | None:
        react(*asked)
        return None

    def answered(*asked: Any) -> Answer:
        react(*asked)
        return Answer("one")

    return [
        answering(broker, *PLACE, answer), answering_as(broker, *PLACE, "one", answered),
        hearing(broker, *PLACE, react),
    ]  # fmt: skip


@pytest.mark.parametrize("what", HEARD)
@in_virtual_time
async def test_what_is_heard_and_cannot_be_read_is_not_reacted_to(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    subject, said = HEARD[what]
    heard: list[Any] = []
    async with a_bench() as bench:
        for hearer in hearers(bench.producer, heard.append):
            async with hearer:
                bench.producer.publish(subject, b"\xff")
                await asyncio.sleep(0.1)
    assert caplog.messages == [said]
    assert heard == []


@in_virtual_time
async def test_an_error_of_what_reacts_is_not_taken_for_a_message_that_cannot_be_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("broken")

    beat = b'{"worker":"one","slots":1,"busy":0,"draining":false,"ready":true}'
    async with a_bench() as bench:
        broker = bench.producer
        for hearer in hearers(broker, broken):
            async with hearer:
                broker.publish(topology.control_subject(*PLACE, "ping"), b"{}")
                broker.publish(topology.holder_subject(*PLACE, "one"), b'{"stream":"a","sequence":1}')
                broker.publish(topology.heartbeat_subject(*PLACE, "one"), beat)
                await asyncio.sleep(0.1)
    assert caplog.messages == ["message not handled"] * 3


async def test_a_record_that_cannot_be_read_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []
    async with a_bench() as bench:
        follower = Follower(bench.producer, PLACE, lambda *seen: heard.append(seen))
        follower._tell(topology.record_subject(ADDRESS), b"\xff")
        follower._tell("galley.result.default.images.none.task", b"{}")
    assert caplog.messages == ["record not understood"] * 2
    assert heard == []


def test_what_is_no_account_of_an_object_and_no_time_is_none() -> None:
    assert whole_in(b"\xff") is None
    assert _time_in("@every 1h") is None
    assert _time_in("@at 2026-03-01T09:00:00") is None, "without an offset it is no time either"
    assert _time_in("@at 2026-03-01T09:00:00Z") is not None


@in_virtual_time
async def test_what_a_queue_missed_is_counted_from_nothing_where_it_cannot_be_read() -> None:
    async with a_bench() as bench:
        broker = bench.producer
        config = topics_definition("default", "tests", 1, 1_000_000, ())
        await broker.api("make", f"STREAM.CREATE.{config['name']}", config)
        await put(broker, topology.missed_subject("default", "up", "images"))
        assert await MissedEvents(broker, "default").look([], bench.server.now()) == {}
