"""Topics: each event that a subscription asks for becomes one task of its queue, whatever happens."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace as changed

from galley.address import TaskAddress
from galley.broker import dead_letters, missed_events, namespace_streams, pipeline, topology
from galley.broker.counts import Outbox
from galley.broker.errors import BrokerUnreachable
from galley.broker.missed_events import MissedEvents
from galley.broker.topic_keeper import Declared, TopicKeeper, code_body
from galley.broker.topics import declare_code, topics_of
from galley.client import AsyncClient
from galley.envelope import decode
from galley.errors import EventInvalid, HopLimit, TopicFull, TopicNotFound
from galley.event import HOPS_LIMIT
from galley.lanes import Lane
from galley.topic import LATE_SECONDS, Subscribe, Subscription, Topic
from galley_worker import feed
from galley_worker.fanout import Copied, Fanout
from galley_worker.ledger import Ledger
from galley_worker.measures import Measures
from tests.support.builders import a_queue
from tests.support.eventually import eventually
from tests.support.memory_nats import MemoryBroker
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, a_bench

IMAGES = Subscription("resize", "images", "resize")
MAIL = Subscription("mail", "mail", "send")


class Town:
    """A bench with a second queue, and topics."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.server = bench, bench.server
        self.images = bench.layout
        self.mail = changed_layout(bench, "mail")
        self.server.create(self.mail)
        self.keeper = TopicKeeper(bench.producer, self.images.namespace, "test")
        self.client = AsyncClient.over(bench.producer, self.images.namespace)

    async def keep(self, *subscriptions: Subscription, **rules: Any) -> list[str]:
        """Have the topic `uploads` with these subscriptions."""
        return await self.keeper.keep([Declared(Topic("uploads", **rules), subscriptions)])

    def copies(self, queue: str) -> list[TaskAddress]:
        """Return the tasks that wait in a queue, in their order."""
        stream = self.server.streams[topology.work_stream(self.images.namespace, queue)]
        return [topology.parse_task_subject(each.subject) for each in stream.messages.values()]

    def waiting(self, queue: str) -> list[str]:
        """Return the keys of the tasks that wait under one, in their order."""
        stream = self.server.streams[topology.work_stream(self.images.namespace, queue)]
        waiting = [each for each in stream.messages.values() if each.subject.startswith("galley.wait.")]
        return [decode(each.body).key for each in waiting]

    def task(self, queue: str) -> Any:
        """Return the first task that waits in a queue."""
        stream = self.server.streams[topology.work_stream(self.images.namespace, queue)]
        return decode(next(iter(stream.messages.values())).body)

    async def letters(self, queue: str) -> list[dead_letters.Kept]:
        """Return the dead letters of a queue."""
        found = dead_letters.all_of(self.bench.producer, self.images.namespace, queue)
        return [kept async for kept in found]

    async def settled(self) -> None:
        """Wait until all events are acknowledged."""

        async def acknowledged() -> bool:
            stream = topology.topics_stream(self.images.namespace)
            return all(
                not each.waiting and not each.in_flight
                for (name, _), each in self.server.consumers.items()
                if name == stream
            )

        await eventually(acknowledged, within=600)


def changed_layout(bench: Bench, queue: str, **changes: Any) -> topology.QueueLayout:
    return a_queue(queue, namespace=bench.layout.namespace, **changes)


@asynccontextmanager
async def a_town() -> AsyncIterator[Town]:
    async with a_bench() as bench:
        yield Town(bench)


@asynccontextmanager
async def copying(
    town: Town,
    *layouts: topology.QueueLayout,
    counted: Measures | None = None,
    plaintext: bool = True,
    delay: Callable[[], float] = lambda: 0.0,
) -> AsyncIterator[None]:
    """Run the fan-out of a worker of each queue."""
    async with AsyncExitStack() as stack:
        running = []
        for layout in layouts or (town.images, town.mail):
            broker = await stack.enter_async_context(MemoryBroker(town.server, f"{layout.queue}-1", delay))
            fanout = Fanout(
                broker, layout, Ledger(broker), counted or Measures("default", layout.queue, int, int), "w1",
                town.server.now, plaintext=plaintext,
            )  # fmt: skip
            running.append(asyncio.create_task(fanout.run()))
        try:
            yield
        finally:
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)


@in_virtual_time
async def test_one_publish_becomes_one_task_in_each_queue_that_subscribes() -> None:
    async with a_town() as town, copying(town):
        await town.keep(IMAGES, MAIL)
        published = await town.client.publish("uploads", {"path": "a.png"}, event_id="one")
        await town.settled()
        assert [len(town.copies(queue)) for queue in ("images", "mail")] == [1, 1]
        assert town.copies("images")[0].id.startswith("resize-")
        task = town.task("images")
        assert task.handler == "resize"
        assert bytes(task.input) == b'{"path":"a.png"}'
        assert task.event == "uploads/one"
        assert published.id == "one"


@in_virtual_time
@pytest.mark.parametrize("seconds", [0, 1, 3600])
async def test_a_repeated_publish_doubles_nothing(seconds: float) -> None:
    async with a_town() as town, copying(town):
        await town.keep(IMAGES, MAIL)
        await town.client.publish("uploads", 1, event_id="one")
        await town.bench.pass_time(seconds)
        await town.client.publish("uploads", 1, event_id="one")
        await town.settled()
        assert [len(town.copies(queue)) for queue in ("images", "mail")] == [1, 1]


@in_virtual_time
async def test_a_publish_without_an_answer_is_repeated_and_its_event_stored_once_in_each_topic() -> None:
    async with a_town() as town:
        topics = [Declared(Topic(name), ()) for name in ("uploads", "others")]
        await town.keeper.keep(topics)
        await town.client.publish("uploads", 0, event_id="zero")
        town.bench.producer.line.lose(to_client=lambda _subject: True)
        publishing = town.bench.start(town.client.publish("uploads", 1, event_id="one"))
        await town.bench.pass_time(10)
        town.bench.producer.line.lose()
        await publishing
        await town.client.publish("others", 1, event_id="one")
        for topic, ids in (("uploads", ["zero", "one"]), ("others", ["one"])):
            found = [each async for each in town.client.topics.events(topic)]
            assert [each.event.id for each in found] == ids


@in_virtual_time
async def test_a_copy_is_flagged_so_that_it_claims_its_record_before_it_runs() -> None:
    async with a_town() as town, copying(town):
        await town.keep(IMAGES)
        await town.client.publish("uploads", 1)
        await town.settled()
        stream = town.server.streams[topology.work_stream("default", "images")]
        assert next(iter(stream.messages.values())).headers[topology.FLAGS_HEADER].endswith(";r")


@in_virtual_time
async def test_a_filter_decides_which_events_a_queue_gets() -> None:
    counted = Measures("default", "images", int, int)
    async with a_town() as town, copying(town, town.images, counted=counted):
        await town.keep(changed(IMAGES, filter='attributes.region in ["eu", "us"] && key != "x"'))
        for region, key in (("eu", "a"), ("asia", "a"), ("us", "x"), ("us", "b")):
            await town.client.publish("uploads", 1, {"region": region}, key=key)
        await town.settled()
        assert len(town.copies("images")) == 2
        text = counted.text()
        assert (
            b'galley_events_total{action="Filtered",namespace="default",queue="images",topic="uploads"} 2.0'
            in text
        )
        assert (
            b'galley_events_total{action="Copied",namespace="default",queue="images",topic="uploads"} 2.0'
            in text
        )


@in_virtual_time
async def test_an_input_mapping_makes_the_arguments_of_the_handler() -> None:
    async with a_town() as town, copying(town):
        mapping = {"device": "data.device", "where": "attributes.region", "whole": "event", "at": "time"}
        await town.keep(changed(IMAGES, input=mapping))
        await town.client.publish("uploads", {"device": 7}, {"region": "eu"}, event_id="one")
        await town.settled()
        given = msgspec.json.decode(town.task("images").input)
        assert (given["device"], given["where"], given["whole"]["id"]) == (7, "eu", "one")


@in_virtual_time
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"filter": "attributes.size > 3"}, "FilterFailed"),
        # The edge refuses it; a worker of an older release may know less than the edge.
        ({"filter": "data.size > 3"}, "FilterInvalid"),
        ({"input": {"device": "data.device"}}, "InputMappingFailed"),
        ({"lane": Lane.CRITICAL}, "InputMappingFailed"),
    ],
    ids=["filter", "no filter", "mapping", "lane"],
)
async def test_an_event_that_cannot_be_looked_at_as_asked_becomes_a_dead_letter(
    change: dict[str, Any], reason: str
) -> None:
    async with a_town() as town, copying(town):
        await town.keep(changed(IMAGES, **change), MAIL)
        await town.client.publish("uploads", {"path": "a"}, event_id="one")
        await town.settled()
        assert town.copies("images") == []
        assert len(town.copies("mail")) == 1
        letter = (await town.letters("images"))[0].letter
        assert letter.failure.reason == reason
        assert "uploads" in letter.failure.message
        assert b'"path":"a"' in bytes(letter.envelope)


@in_virtual_time
@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("key", "k"), ("subject", "s"), ("source", "shop"), ("type", "t"), ("attributes.size", "3"),
        ("data.device.id", "7"), ("data.none", ""),
    ],
)  # fmt: skip
async def test_a_copy_has_the_key_that_its_subscription_takes_from_the_event(path: str, key: str) -> None:
    async with a_town() as town, copying(town):
        await town.keep(changed(IMAGES, key=path))
        data = {"device": {"id": 7}, "none": ""}
        await town.client.publish(
            "uploads", data, {"size": 3}, key="k", subject="s", source="shop", event_type="t"
        )
        await town.settled()
        assert town.waiting("images") == ([key] if key else [])
        assert await town.letters("images") == []


@in_virtual_time
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "is null, not a text or a whole number"),
        (True, "is True, not a text"),
        (1.5, "is 1.5, not a text"),
        ({"a": 1}, "not a text"),
        (["a"], "not a text"),
        ("x" * 10_240, "10240 bytes, the limit is 256"),
        ("left out", "has no data.device"),
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_an_event_of_which_no_key_can_be_made_becomes_a_dead_letter(value: Any, problem: str) -> None:
    async with a_town() as town, copying(town):
        await town.keep(changed(IMAGES, key="data.device"), MAIL)
        await town.client.publish("uploads", {} if value == "left out" else {"device": value})
        await town.settled()
        assert town.copies("images") == []
        assert len(town.copies("mail")) == 1
        failure = (await town.letters("images"))[0].letter.failure
        assert failure.reason == "KeyFailed"
        assert problem in failure.message


@in_virtual_time
async def test_a_key_of_an_event_whose_data_is_no_object_cannot_be_made() -> None:
    async with a_town() as town, copying(town):
        await town.keep(changed(IMAGES, key="data.device"))
        await town.client.publish("uploads", "text")
        await town.settled()
        assert (await town.letters("images"))[0].letter.failure.reason == "KeyFailed"


@in_virtual_time
async def test_a_replay_gives_copies_their_keys() -> None:
    async with a_town() as town:
        await town.keep(changed(IMAGES, key="key"))
        since = town.server.now() - timedelta(seconds=1)
        await town.client.publish("uploads", 1, key="k")
        await town.client.topics.replay("uploads", "resize", since)
        assert town.waiting("images") == ["k"]


@in_virtual_time
async def test_the_code_of_a_worker_asks_for_keys() -> None:
    async with a_town() as town, copying(town):
        body = code_body({"resize": (Subscribe("uploads", key="subject"),)}, {})
        await town.keep()
        assert await declare_code(town.bench.producer, "default", "images", body)
        assert await town.keep() == []
        await town.client.publish("uploads", 1, subject="s")
        await town.settled()
        assert town.waiting("images") == ["s"]


@in_virtual_time
async def test_a_queue_that_takes_encrypted_tasks_only_gets_a_dead_letter() -> None:
    async with a_town() as town, copying(town, town.images, plaintext=False):
        await town.keep(IMAGES)
        await town.client.publish("uploads", 1)
        await town.settled()
        assert "not encrypted" in (await town.letters("images"))[0].letter.failure.message


@in_virtual_time
async def test_a_full_queue_does_not_hold_up_another_and_gets_its_copy_once_it_has_room() -> None:
    async with a_town() as town:
        small = changed_layout(town.bench, "small", backlog=1)
        town.server.create(small)
        async with copying(town, town.mail, small):
            await town.keep(MAIL, Subscription("small", "small", "run"))
            for number in range(3):
                await town.client.publish("uploads", {"n": number})
            await eventually(lambda: awaited(len(town.copies("mail")) == 3), within=60)
            assert len(town.copies("small")) == 1
            view = await town.client.topics.get("uploads")
            assert {each.queue: each.pending for each in view.queues} == {"mail": 0, "small": 2}
            stream = town.server.streams[topology.work_stream("default", "small")]
            for _ in range(2):
                stream.remove(next(iter(stream.messages)))
                await eventually(lambda: awaited(len(stream.messages) == 1), within=60)
            await town.settled()


@in_virtual_time
async def test_the_log_names_why_an_event_with_several_copies_waits(caplog: pytest.LogCaptureFixture) -> None:
    async with a_town() as town:
        small = changed_layout(town.bench, "small", backlog=1)
        town.server.create(small)
        async with copying(town, small):
            await town.keep(Subscription("one", "small", "run"), Subscription("two", "small", "run"))
            await town.client.publish("uploads", {})
            await eventually(lambda: awaited("event not copied yet" in caplog.text), within=60)
            told = [each for each in caplog.records if each.message == "event not copied yet"]
            assert str(told[0].__dict__["error"]).startswith("QueueFull: ")
            given_back = town.bench.seen("nak", "event")
            assert given_back


async def awaited(value: bool) -> bool:
    return value


@in_virtual_time
@pytest.mark.parametrize("seed", range(4))
async def test_workers_that_die_at_any_moment_leave_one_copy_of_each_event(seed: int) -> None:
    chance = random.Random(seed)
    async with a_town() as town:
        await town.keep(IMAGES, MAIL)
        for number in range(40):
            await town.client.publish("uploads", {"n": number}, event_id=f"{number % 30}")
        for _ in range(25):
            async with copying(town):
                await asyncio.sleep(chance.choice((0, 0.0001, 0.001, 0.01)))
            await town.bench.pass_time(chance.choice((0.1, 31)))
        async with copying(town):
            await town.settled()
        for queue in ("images", "mail"):
            assert len(town.copies(queue)) == len(set(town.copies(queue))) == 30


@in_virtual_time
async def test_a_new_subscription_gets_the_events_from_then_on_and_a_replay_those_before() -> None:
    async with a_town() as town, copying(town):
        await town.keep(MAIL)
        began = town.server.now()
        await town.client.publish("uploads", {"n": 1})
        await town.bench.pass_time(10)
        await town.keep(MAIL, IMAGES)
        await town.client.publish("uploads", {"n": 2})
        await town.settled()
        assert len(town.copies("images")) == 1
        replayed = await town.client.topics.replay("uploads", "resize", began)
        assert (replayed.copied, replayed.present) == (1, 1)
        again = await town.client.topics.replay("uploads", "resize", began)
        assert (again.copied, again.present) == (0, 2)
        assert len(town.copies("images")) == 2
        with pytest.raises(EventInvalid, match="topic 'uploads' has no 'none'"):
            await town.client.topics.replay("uploads", "none", began)
        for times in ((began.replace(tzinfo=None),), (began, began.replace(tzinfo=None))):
            with pytest.raises(EventInvalid, match="no offset"):
                await town.client.topics.replay("uploads", "resize", *times)
        with pytest.raises(EventInvalid, match="since"):
            [_ async for _ in town.client.topics.events("uploads", began.replace(tzinfo=None))]


@in_virtual_time
async def test_the_time_of_a_subscription_stays_when_it_is_changed() -> None:
    async with a_town() as town, copying(town):
        await town.keep(IMAGES)
        before = (await town.client.topics.get("uploads")).queues[0].subscriptions[0]
        await town.bench.pass_time(10)
        await town.keep(changed(IMAGES, filter='key == "a"'))
        after = (await town.client.topics.get("uploads")).queues[0].subscriptions[0]
        assert (after.since, after.filter) == (before.since, 'key == "a"')


@in_virtual_time
async def test_a_topic_that_is_removed_takes_its_events_along_and_nothing_waits() -> None:
    async with a_town() as town:
        await town.keep(IMAGES, MAIL)
        await town.client.publish("uploads", 1)
        async with copying(town, town.mail):
            await eventually(lambda: awaited(len(town.copies("mail")) == 1), within=60)
        await town.keeper.keep([])
        async with copying(town):
            await town.bench.pass_time(60)
            await town.settled()
        assert (len(town.copies("mail")), len(town.copies("images"))) == (1, 0)
        town.client.topics._publisher._known.forget("uploads")
        with pytest.raises(TopicNotFound, match="no topic 'uploads'"):
            await town.client.publish("uploads", 1)
        stream = town.server.streams[topology.topics_stream("default")]
        assert stream.messages == {}
        assert [name for name in town.server.consumers if name[0] == stream.name] == []


@in_virtual_time
async def test_the_order_of_events_is_kept_where_a_subscription_asks_for_it() -> None:
    async with a_town() as town:
        small = changed_layout(town.bench, "small", backlog=3)
        town.server.create(small)
        await town.keep(Subscription("small", "small", "run", ordered=True))
        events = [f"e{number}" for number in range(12)]
        for event in events:
            await town.client.publish("uploads", {"n": event}, event_id=event)
        seen: list[str] = []
        async with copying(town, small, small):
            stream = town.server.streams[topology.work_stream("default", "small")]
            while len(seen) < len(events):
                await eventually(lambda: awaited(bool(stream.messages)), within=60)
                first = next(iter(stream.messages.values()))
                seen.append(decode(first.body).event.removeprefix("uploads/"))
                stream.remove(first.sequence)
        assert seen == events


@in_virtual_time
async def test_copies_wait_under_their_keys_in_the_order_of_events_also_when_a_worker_dies() -> None:
    async with a_town() as town:
        await town.keep(changed(IMAGES, key="key", ordered=True))
        keys = [f"{number % 3}-{number}" for number in range(12)]
        for key in keys:
            await town.client.publish("uploads", 1, key=key)
        await taken_by_a_worker_that_dies(town, "images")
        async with copying(town, town.images, town.images):
            await town.settled()
        assert town.waiting("images") == keys


@in_virtual_time
async def test_what_is_no_event_is_dropped_and_the_next_one_copied() -> None:
    async with a_town() as town, copying(town):
        await town.keep(IMAGES)
        stream = town.server.streams[topology.topics_stream("default")]
        for body in (b"", b"{}", b'{"specversion":"2.0","id":"a","source":"b","type":"c"}', b"\xff"):
            town.server._store(stream, topology.event_subject("default", "uploads"), {}, body)
        await town.client.publish("uploads", 1)
        await town.settled()
        assert len(town.copies("images")) == 1
        assert await town.letters("images") == []


@in_virtual_time
async def test_a_full_topic_refuses_the_next_event() -> None:
    async with a_town() as town:
        await town.keep(retention_bytes=1)
        town.server.streams[topology.topics_stream("default")].definition["max_bytes"] = 600

        async def many() -> None:
            for number in range(10):
                await town.client.publish("uploads", {"n": number})

        with pytest.raises(TopicFull, match="'uploads' has no room"):
            await many()


@in_virtual_time
async def test_an_event_that_came_of_too_many_others_is_not_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_town() as town, copying(town):
        await town.keep(IMAGES)
        monkeypatch.setenv("GALLEY_WORKER_OF", "default/images")
        for led in range(HOPS_LIMIT):
            monkeypatch.setenv("GALLEY_ANCESTORS", f"hops:{led}")
            await town.client.publish("uploads", led, event_id=f"{led}")
        await town.settled()
        assert len(town.copies("images")) == HOPS_LIMIT
        stream = town.server.streams[topology.work_stream("default", "images")]
        assert decode(list(stream.messages.values())[-1].body).ancestors == (f"hops:{HOPS_LIMIT}",)
        monkeypatch.setenv("GALLEY_ANCESTORS", f"hops:{HOPS_LIMIT}")
        with pytest.raises(HopLimit, match="a chain of 16 events"):
            await town.client.publish("uploads", 1)


@in_virtual_time
async def test_code_subscribes_to_topics_that_are_declared() -> None:
    async with a_town() as town, copying(town):
        producer = town.bench.producer
        body = code_body({"resize": (Subscribe("uploads"), Subscribe("nowhere"))}, {"resize": Lane.HIGH})
        assert not await declare_code(producer, "default", "images", body)
        assert await town.keep() == []
        assert await declare_code(producer, "default", "images", body)
        assert await town.keep() == [
            "handler resize of queue images subscribes to topic nowhere, which is not declared"
        ]
        await town.client.publish("uploads", 1)
        await town.settled()
        assert town.copies("images")[0].lane is Lane.HIGH
        assert await declare_code(producer, "default", "images", code_body({}, {}))
        assert await town.keep() == []
        assert (await town.client.topics.get("uploads")).queues == ()


@in_virtual_time
async def test_events_can_be_read_from_a_time_on() -> None:
    async with a_town() as town:
        await town.keep()
        await town.client.publish("uploads", {"n": 1}, event_id="a")
        await town.bench.pass_time(10)
        since = town.server.now()
        await town.client.publish("uploads", {"n": 2}, event_id="b")
        found = [each async for each in town.client.topics.events("uploads")]
        assert [each.event.id for each in found] == ["a", "b"]
        found = [each async for each in town.client.topics.events("uploads", since - timedelta(seconds=1))]
        assert [each.event.id for each in found] == ["b"]
        assert [view.name for view in await town.client.topics.list()] == ["uploads"]
        with pytest.raises(TopicNotFound):
            await town.client.topics.get("nowhere")


@pytest.mark.parametrize("seed", range(3))
@in_virtual_time
async def test_a_topic_that_is_removed_while_its_events_are_copied_leaves_whole_copies_and_nothing_else(
    seed: int,
) -> None:
    chance = random.Random(seed)
    async with a_town() as town:
        await town.keep(IMAGES, MAIL)
        for number in range(30):
            await town.client.publish("uploads", {"n": number})
        async with copying(town):
            await asyncio.sleep(chance.choice((0.001, 0.004, 0.01)))
            await town.keeper.keep([])
            await town.bench.pass_time(120)
            await town.settled()
        for queue in ("images", "mail"):
            assert len(town.copies(queue)) == len(set(town.copies(queue))) <= 30
            assert await town.letters(queue) == []
        # One of the same name begins without the events of the one before.
        await town.keep(IMAGES)
        before = len(town.copies("images"))
        async with copying(town):
            town.client.topics._publisher._known.forget("uploads")
            await town.client.publish("uploads", {"n": 100})
            await town.settled()
        assert len(town.copies("images")) == before + 1


@asynccontextmanager
async def counting(town: Town, every: float = 5.0) -> AsyncIterator[MissedEvents]:
    """Look for events that are missed, as the owner of the topics does."""
    missed = MissedEvents(town.bench.producer, town.images.namespace)

    async def look() -> None:
        while True:
            topics = await topics_of(town.bench.producer, town.images.namespace)
            await missed.look(topics, town.server.now())
            await asyncio.sleep(every)

    running = asyncio.create_task(look())
    try:
        yield missed
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def missed_by(town: Town, queue: str, topic: str = "uploads") -> tuple[int, int]:
    """Return how many events of a topic a queue missed: failed, and expired."""
    view = await town.client.topics.get(topic)
    (found,) = (each.missed for each in view.queues if each.queue == queue)
    return found.failed, found.expired


@in_virtual_time
async def test_a_queue_without_workers_missed_each_event_whose_retention_ended_and_no_other_did() -> None:
    async with a_town() as town, counting(town), copying(town, town.mail):
        await town.keep(IMAGES, MAIL, retention_seconds=60)
        for number in range(7):
            await town.client.publish("uploads", {"n": number})
            await town.bench.pass_time(10)
        await town.bench.pass_time(40)
        assert await missed_by(town, "images") == (0, 5)
        assert await missed_by(town, "mail") == (0, 0)
        async with copying(town, town.images):
            await town.settled()
        assert [len(town.copies(queue)) for queue in ("images", "mail")] == [2, 7]
        await town.bench.pass_time(200)
        assert await missed_by(town, "images") == (0, 5)
        assert (await town.client.topics.get("uploads")).events == 0


@in_virtual_time
async def test_a_queue_that_stays_full_missed_what_it_could_not_take_in_time() -> None:
    async with a_town() as town, counting(town):
        small = changed_layout(town.bench, "small", backlog=2)
        town.server.create(small)
        counted = Measures("default", "small", int, int)
        outbox = Outbox(town.bench.producer, ("default", "small"), "w1", asyncio.get_running_loop().time)
        async with copying(town, small, town.mail, counted=counted):
            await town.keep(Subscription("one", "small", "run"), MAIL, retention_seconds=60)
            for number in range(5):
                await town.client.publish("uploads", {"n": number})
            await town.bench.pass_time(20)
            view = await town.client.topics.get("uploads")
            (full,) = (each for each in view.queues if each.queue == "small")
            assert (full.full, full.pending, full.missed.total) == (True, 3, 0)
            await town.bench.pass_time(60)
            await outbox.hand_over(counted.totals(Counter()))
            await town.bench.pass_time(10)
        assert await missed_by(town, "small") == (0, 3)
        assert [len(town.copies(queue)) for queue in ("small", "mail")] == [2, 5]


@in_virtual_time
async def test_events_of_before_a_subscription_and_those_of_other_topics_were_not_missed() -> None:
    async with a_town() as town, counting(town):
        other = Topic("orders", retention_seconds=60)
        await town.keeper.keep(
            [Declared(Topic("uploads", retention_seconds=60), (MAIL, IMAGES)), Declared(other)]
        )
        # The consumer of the queue is there, and behind it what it does not ask for yet.
        await town.client.publish("orders", 1)
        await town.client.publish("uploads", 1)
        await town.bench.pass_time(5)
        late = Subscription("other", "images", "run")
        declared = [
            Declared(Topic("uploads", retention_seconds=60), (MAIL, IMAGES)),
            Declared(other, (late,)),
        ]
        await town.keeper.keep(declared)
        await town.client.publish("orders", 2)
        await town.bench.pass_time(200)
        assert await missed_by(town, "mail") == (0, 1)
        assert await missed_by(town, "images") == (0, 1)
        assert await missed_by(town, "images", "orders") == (0, 1)


def in_turn(seconds: float) -> Callable[[], float]:
    """Return what makes each message of a worker wait for those before it, on a machine that is that slow."""
    free_at = 0.0

    def wait() -> float:
        nonlocal free_at
        now = asyncio.get_running_loop().time()
        free_at = max(free_at, now) + seconds
        return free_at - now

    return wait


@in_virtual_time
async def test_events_are_copied_however_slowly_the_broker_answers() -> None:
    async with a_town() as town:
        await town.keep(IMAGES)
        for number in range(260):
            await town.client.publish("uploads", {"n": number})
        async with copying(town, town.images, delay=in_turn(0.1)):
            await town.settled()
        assert len(town.copies("images")) == 260


@in_virtual_time
async def test_events_that_take_longer_than_a_lease_to_copy_are_copied_by_one_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (namespace_streams, feed):
        monkeypatch.setattr(module, "LEASE_SECONDS", 2.0)
    monkeypatch.setattr(pipeline, "WINDOW", 64)  # a renewal does not wait long behind them
    async with a_town() as town:
        await town.keep(*(Subscription(f"s{number}", "images", "resize") for number in range(10)))
        for number in range(50):
            await town.client.publish("uploads", {"n": number})
        town.bench.mark()
        async with copying(town, town.images, town.images, delay=in_turn(0.004)):
            await town.settled()
        assert len(town.copies("images")) == 500
        assert {each.times for each in town.bench.seen("delivered")} == {1}


async def taken_by_a_worker_that_dies(town: Town, queue: str) -> None:
    """Have an event delivered to one that never says what became of it."""
    stream = topology.topics_stream(town.images.namespace)
    await town.bench.producer.request(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{queue}", b'{"batch":1}')


@in_virtual_time
async def test_an_event_that_a_dead_worker_had_is_not_removed_before_another_can_have_it() -> None:
    async with a_town() as town, counting(town):
        await town.keep(IMAGES, retention_seconds=60)
        await town.client.publish("uploads", 1)
        await taken_by_a_worker_that_dies(town, "images")
        await town.bench.pass_time(100)
        assert await missed_by(town, "images") == (0, 0)
        async with copying(town, town.images):
            await town.settled()
        assert len(town.copies("images")) == 1
        await town.client.publish("uploads", 2)
        await taken_by_a_worker_that_dies(town, "images")
        await town.bench.pass_time(60 + LATE_SECONDS / 2 + 20)
        assert await missed_by(town, "images") == (0, 1)


@in_virtual_time
async def test_what_was_counted_is_counted_once_when_the_owner_dies_before_it_removes_the_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_town() as town:
        await town.keep(IMAGES, retention_seconds=60)
        await town.client.publish("uploads", 1)
        await town.bench.pass_time(100)
        topics = await topics_of(town.bench.producer, "default")
        with monkeypatch.context() as patch:
            patch.setattr(missed_events, "purge", dies)
            with pytest.raises(BrokerUnreachable):
                await MissedEvents(town.bench.producer, "default").look(topics, town.server.now())
        for _ in range(2):
            await MissedEvents(town.bench.producer, "default").look(topics, town.server.now())
        assert await missed_by(town, "images") == (0, 1)
        assert (await town.client.topics.get("uploads")).events == 0


@in_virtual_time
async def test_a_full_topic_makes_room_and_what_was_missed_is_counted_all_the_same() -> None:
    async with a_town() as town:
        await town.keep(IMAGES, retention_seconds=60)
        for number in range(3):
            await town.client.publish("uploads", {"n": number})
        counted = Measures("default", "images", int, int)
        counted.copied("uploads", Copied.MISSED)
        outbox = Outbox(town.bench.producer, ("default", "images"), "w1", asyncio.get_running_loop().time)
        await outbox.hand_over(counted.totals(Counter()))
        await town.bench.pass_time(100)
        stream = town.server.streams[topology.topics_stream("default")]
        stream.definition["max_bytes"] = stream.bytes
        missed, topics = (
            MissedEvents(town.bench.producer, "default"), await topics_of(town.bench.producer, "default")
        )  # fmt: skip
        for _ in range(2):
            found = await missed.look(topics, town.server.now())
            assert found["uploads", "images"].total == 4
        assert await missed_by(town, "images") == (1, 3)
        assert (await town.client.topics.get("uploads")).events == 0


@in_virtual_time
async def test_what_a_full_topic_has_no_room_for_is_counted_when_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_town() as town:
        await town.keep(IMAGES, MAIL, retention_seconds=60)
        for number in range(3):
            await town.client.publish("uploads", {"n": number})
        await town.bench.pass_time(100)
        stream = town.server.streams[topology.topics_stream("default")]
        limit, stream.definition["max_bytes"] = stream.definition["max_bytes"], 1
        producer = town.bench.producer
        missed, topics = MissedEvents(producer, "default"), await topics_of(producer, "default")
        for _ in range(3):  # publishers take the room that is made
            found = await missed.look(topics, town.server.now())
            assert [found["uploads", queue].total for queue in ("images", "mail")] == [3, 3]
        assert await missed_by(town, "images") == (0, 0)
        stream.definition["max_bytes"] = limit
        await town.keep(IMAGES, retention_seconds=60)
        topics = await topics_of(producer, "default")
        for _ in range(2):
            assert (await missed.look(topics, town.server.now()))["uploads", "images"].total == 3
        assert await missed_by(town, "images") == (0, 3)
        assert [view.queue for view in (await town.client.topics.get("uploads")).queues] == ["images"]
        # Of two owners only one counts, and the other does not write over it.
        await town.client.publish("uploads", 4)
        await town.bench.pass_time(100)
        stream.definition["max_bytes"] = 1
        await missed.look(topics, town.server.now())
        stream.definition["max_bytes"] = limit
        await town.client.publish("uploads", 5)
        await town.bench.pass_time(100)
        await MissedEvents(producer, "default").look(topics, town.server.now())
        found = await missed.look(topics, town.server.now())
        assert found["uploads", "images"].total == 4
        assert await missed_by(town, "images") == (0, 4)


async def dies(*_arguments: object, **_rules: object) -> None:
    raise BrokerUnreachable("nats://tests", "raised by a test")
