"""Life events: what happens to tasks, as events of a topic."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from galley import call
from galley.broker import topology
from galley.broker.topic_keeper import Declared
from galley.broker.topics import StoredEvent, TopicPublisher
from galley.errors import QueueFull
from galley.event import event_of
from galley.history import NO_HISTORY
from galley.inside import LIFE_WORD
from galley.record import Failure
from galley.topic import Subscription, Topic, task_of, task_of_miss
from galley_worker.life import Life
from galley_worker.measures import Measures
from galley_worker.verdict import Bury, Cancel, HandBack, RetryAt, Succeed, Verdict
from tests.support.eventually import eventually
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Worker
from tests.unit.galley_worker.test_fanout import Town, a_town, copying

FAILURE = Failure("HandlerRaised", "the disk is green")


class Quarter(Town):
    """A town, and a worker whose queue asks for life events."""

    worker: Worker
    measures: Measures

    async def happened(self) -> list[StoredEvent]:
        return [each async for each in self.client.topics.events("life")]

    async def run(self, verdict: Verdict, **changes: Any) -> None:
        """Have a task started, and settled so."""
        await self.bench.submit(**changes)
        held = self.bench.held(await self.bench.take(self.worker))
        assert self.worker.settler.life is not None
        await self.worker.settler.life.started(held, "w1")
        await self.worker.settler.settle(held, verdict)


@asynccontextmanager
async def a_quarter(*, messages: bool = True, topic: str = "life") -> AsyncIterator[Quarter]:
    async with a_town() as town:
        quarter = Quarter(town.bench)
        await quarter.keeper.keep([Declared(Topic("life"), ())])
        quarter.measures = Measures("default", "images", int, int)
        publisher = TopicPublisher(town.bench.producer, town.images.namespace, 1.0)
        life = Life(publisher, topic, quarter.measures, town.server.now, messages=messages)
        async with town.bench.worker(life=life) as quarter.worker:
            yield quarter


def retry(quarter: Quarter) -> RetryAt:
    return RetryAt(quarter.server.now() + timedelta(seconds=9), FAILURE, NO_HISTORY)


@in_virtual_time
async def test_a_task_that_succeeds_has_two_events() -> None:
    async with a_quarter() as quarter:
        await quarter.run(Succeed(Raw(b"1")), labels={"team": "a"})
        started, succeeded = await quarter.happened()
        assert (started.event.type, succeeded.event.type) == (
            "dev.galley.task.started", "dev.galley.task.succeeded",
        )  # fmt: skip
        assert succeeded.event.source == "galley/default/images"
        assert succeeded.event.attributes["state"] == "succeeded"
        data = msgspec.json.decode(succeeded.event.data)
        assert data["task"] == succeeded.event.subject == succeeded.event.key
        assert (data["queue"], data["attempt"], data["labels"]) == ("images", 1, {"team": "a"})
        assert "reason" not in data


@in_virtual_time
async def test_retries_failures_and_cancels_are_told() -> None:
    async with a_quarter() as quarter:
        await quarter.run(retry(quarter))
        await quarter.run(Bury(FAILURE, NO_HISTORY))
        await quarter.run(Cancel())
        events = [each.event for each in await quarter.happened()]
        states = [event.attributes["state"] for event in events]
        assert [state for state in states if state != "started"] == ["retried", "failed", "cancelled"]
        retried = msgspec.json.decode(events[1].data)
        assert retried["reason"] == "HandlerRaised"
        assert retried["message"] == "the disk is green"
        assert (retried["attempt"], "dueAt" in retried) == (2, True)


@in_virtual_time
async def test_an_end_that_is_settled_again_is_the_same_event() -> None:
    async with a_quarter() as quarter:
        await quarter.bench.submit()
        delivery = await quarter.bench.take(quarter.worker)
        held = quarter.bench.held(delivery)
        await quarter.worker.settler.settle(held, Succeed(Raw(b"1")))
        stored = quarter.bench.record(delivery.address)
        assert stored is not None
        await quarter.bench.pass_time(1)
        await quarter.worker.settler.finish(delivery, stored.record)
        events = [each.event for each in await quarter.happened()]
        assert len(events) == 2
        assert len({(event.source, event.id) for event in events}) == 1


@in_virtual_time
async def test_what_is_handed_back_is_not_told() -> None:
    async with a_quarter() as quarter:
        await quarter.run(HandBack(NO_HISTORY))
        assert [each.event.attributes["state"] for each in await quarter.happened()] == ["started"]


@in_virtual_time
@pytest.mark.parametrize("verdict", [Succeed(Raw(b"1")), None])
async def test_a_task_that_came_of_a_life_event_has_none(verdict: Verdict | None) -> None:
    async with a_quarter() as quarter:
        await quarter.run(verdict or retry(quarter), ancestors=(LIFE_WORD,))
        assert await quarter.happened() == []


@in_virtual_time
async def test_a_queue_that_encrypts_does_not_tell_what_exceptions_say() -> None:
    async with a_quarter(messages=False) as quarter:
        await quarter.run(Bury(FAILURE, NO_HISTORY))
        assert all(b"green" not in bytes(each.event.data) for each in await quarter.happened())


@in_virtual_time
async def test_a_topic_that_is_not_there_holds_up_no_task() -> None:
    async with a_quarter(topic="elsewhere") as quarter:
        await quarter.run(Succeed(Raw(b"1")))
        await eventually(lambda: not quarter.copies("images"), within=5)
        assert b"galley_life_events_missed_total" in quarter.measures.text()
        (line,) = [
            line for line in quarter.measures.text().decode().splitlines()
            if line.startswith("galley_life_events_missed_total")
        ]  # fmt: skip
        assert line.endswith(" 2.0")


@in_virtual_time
async def test_the_copy_of_a_life_event_is_marked() -> None:
    async with a_town() as town:
        now = town.server.now()
        life = event_of({}, now, source="galley/default/mail", event_type="dev.galley.task.failed", hops=2)
        other = event_of({}, now, source="shop")
        asked = Subscription("s", "images", "h")
        assert task_of("life", asked, life, now).ancestors == (LIFE_WORD, "hops:2")
        assert task_of_miss("life", asked, life, now).ancestors == (LIFE_WORD, "hops:2")
        assert task_of("life", asked, other, now).ancestors == ()


def tells(quarter: Quarter, topic: str = "life") -> None:
    """Have the stream of the queue say which topic hears of its tasks."""
    stream = quarter.server.streams[topology.work_stream("default", "images")]
    stream.definition["metadata"][topology.LIFE_KEY] = topic


@in_virtual_time
async def test_who_submits_tells_of_each_task_that_was_accepted_and_of_no_other() -> None:
    async with a_quarter() as quarter:
        tells(quarter)
        await quarter.client.submit(call("images", "resize"), task_id="own")
        await quarter.client.submit(call("images", "resize"), task_id="own")
        await quarter.client.submit_many(call("images", "resize", n=n) for n in range(3))
        await quarter.client.submit(call("mail", "send"))
        (own,) = (each.event for each in await quarter.happened() if each.event.subject == "own")
        assert (own.type, own.attributes["attempt"]) == ("dev.galley.task.submitted", 0)
        assert msgspec.json.decode(own.data)["handler"] == "resize"
        assert len(await quarter.happened()) == 4
        quarter.server.streams[topology.work_stream("default", "images")].definition["max_msgs"] = 4
        with pytest.raises(QueueFull):
            await quarter.client.submit(call("images", "resize"))
        assert len(await quarter.happened()) == 4


@in_virtual_time
async def test_a_task_is_accepted_though_no_topic_hears_of_it(caplog: pytest.LogCaptureFixture) -> None:
    async with a_quarter() as quarter:
        tells(quarter, "nowhere")
        handle = await quarter.client.submit(call("images", "resize"))
        assert (await handle.status()).phase == "Queued"
        assert "life event missed" in caplog.text


@in_virtual_time
async def test_a_copy_of_a_life_event_has_no_event_when_it_is_stored() -> None:
    async with a_quarter() as quarter:
        tells(quarter)
        await quarter.keeper.keep([Declared(Topic("life"), (Subscription("tell", "images", "tell"),))])
        async with copying(quarter, quarter.images):
            await quarter.client.submit(call("images", "resize"))
            await quarter.settled()
        assert len(quarter.copies("images")) == 2
        assert len(await quarter.happened()) == 1
