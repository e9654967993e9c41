"""Topics on a real nats-server, each part with the rights of its role."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from galley import NotAllowed
from galley.backlog import QueueBacklog
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import ensure, stream_info
from galley.broker.missed_events import MissedEvents
from galley.broker.permissions import Role
from galley.broker.signals import SignalReader
from galley.broker.topic_keeper import Declared, TopicKeeper, code_body
from galley.broker.topics import declare_code, topics_of
from galley.client import AsyncClient
from galley.topic import LATE_SECONDS, Subscribe, Subscription, Topic
from galley_worker.fanout import Fanout
from galley_worker.ledger import Ledger
from galley_worker.measures import Measures
from tests.support.builders import a_queue
from tests.support.eventually import eventually
from tests.support.guarded_nats import GuardedNats

EUROPE = Subscription("resize", "images", "resize", 'attributes.region == "eu"')


def open_as(nats: GuardedNats, role: Role, namespace: str, queue: str) -> Broker:
    """Return the connection of a role, not yet opened."""
    return Broker(nats.url, name=role, credentials=nats.write_creds(role, namespace, queue))


def now() -> datetime:
    return datetime.now(UTC)


async def test_an_event_becomes_a_task_with_the_rights_of_each_role_and_no_others(
    own_guarded_nats: GuardedNats,
) -> None:
    nats, layout = own_guarded_nats, a_queue("images", namespace="shop")
    async with nats.operator() as operator:
        await ensure(operator, layout)
        keeper = TopicKeeper(operator, "shop", "tests")
        declared = [Declared(Topic("uploads", retention_seconds=600), (EUROPE,))]
        assert await keeper.keep(declared) == []
        async with (
            open_as(nats, Role.WORKER, "shop", "images") as worker,
            open_as(nats, Role.PRODUCER, "shop", "images") as producer,
            open_as(nats, Role.MANAGER, "shop", "images") as manager,
            open_as(nats, Role.PRODUCER, "elsewhere", "images") as stranger,
        ):
            fanout = Fanout(worker, layout, Ledger(worker), Measures("shop", "images", int, int), "w1", now)
            running = asyncio.create_task(fanout.run())
            client = AsyncClient.over(producer, "shop", 2.0)
            heard = asyncio.Event()

            async def hear(_message: object) -> None:
                heard.set()

            await producer.subscribe(topology.live_subject("shop", "uploads"), hear)
            await producer.reached(5)
            for region in ("eu", "us", "eu"):
                await client.publish("uploads", {"path": "a.png"}, {"region": region}, event_id=region)

            async def copied() -> bool:
                info = await stream_info(operator, topology.work_stream("shop", "images"))
                return info is not None and info["state"]["messages"] == 1

            await eventually(copied, within=20)
            async with asyncio.timeout(10):
                await heard.wait()
            body = code_body({"shrink": (Subscribe("uploads"),)}, {})
            assert await declare_code(worker, "shop", "images", body)
            await keeper.keep(declared)
            view = await client.topics.get("uploads")
            assert [one.name for each in view.queues for one in each.subscriptions] == [
                "resize", "images-shrink",
            ]  # fmt: skip
            boss = AsyncClient.over(manager, "shop", 2.0)
            assert [each.event.id async for each in boss.topics.events("uploads")] == ["eu", "us", "eu"]
            replayed = await boss.topics.replay("uploads", "images-shrink", datetime(2020, 1, 1, tzinfo=UTC))
            assert replayed.copied == 2
            with pytest.raises(NotAllowed):
                await client.topics.list()
            with pytest.raises(NotAllowed):
                await AsyncClient.over(stranger, "shop", 2.0).publish("uploads", 1)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            # Events that wait have a worker started, though the queue itself is empty.
            await operator.api("purge", f"STREAM.PURGE.{topology.work_stream('shop', 'images')}")
            await client.publish("uploads", 1, {"region": "eu"}, event_id="later")
            reader = SignalReader(operator)

            async def wanted() -> bool:
                backlog = await reader.read("shop", "images")
                return isinstance(backlog, QueueBacklog) and backlog.waiting == 1

            await eventually(wanted, within=20)
        await keeper.keep([])
        info = await stream_info(operator, topology.topics_stream("shop"))
        assert info is not None
        assert info["state"]["messages"] == 1, "what the code says stays, until its workers say otherwise"


async def test_events_are_counted_as_missed_before_they_are_removed(own_guarded_nats: GuardedNats) -> None:
    nats, layout = own_guarded_nats, a_queue("images", namespace="shop")
    async with nats.operator() as operator:
        for each in (layout, a_queue("mail", namespace="shop")):
            await ensure(operator, each)
        keeper, missed = TopicKeeper(operator, "shop", "tests"), MissedEvents(operator, "shop")
        subscriptions = (Subscription("a", "images", "run"), Subscription("b", "mail", "run"))
        await keeper.keep([Declared(Topic("uploads", retention_seconds=60), subscriptions)])
        topics = await topics_of(operator, "shop")
        client = AsyncClient.over(operator, "shop", 20.0)

        async def by_queue(after: float) -> dict[str, int]:
            found = await missed.look(topics, await keeper.time() + timedelta(seconds=after))
            return {queue: each.expired for (_, queue), each in found.items()}

        for number in range(4):
            await client.publish("uploads", {"n": number})
        async with open_as(nats, Role.WORKER, "shop", "images") as worker:
            stream = topology.topics_stream("shop")
            pull = worker.request_many(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.images", b'{"batch":1}')
            async for taken in pull:
                assert taken.data
                break
            assert await by_queue(30) == {}
            assert (await client.topics.get("uploads")).events == 4
            # A worker of one queue has the first, so all wait for it for a while.
            assert await by_queue(100) == {}
            assert (await client.topics.get("uploads")).events == 4
            # It was delivered and never acknowledged, the others were not even delivered.
            assert await by_queue(60 + LATE_SECONDS) == {"images": 4, "mail": 4}
            assert (await client.topics.get("uploads")).events == 0
            await client.publish("uploads", {"n": 5})
            fanout = Fanout(worker, layout, Ledger(worker), Measures("shop", "images", int, int), "w1", now)
            running = asyncio.create_task(fanout.run())

            async def copied() -> bool:
                info = await stream_info(operator, topology.work_stream("shop", "images"))
                return info is not None and info["state"]["messages"] == 1

            await eventually(copied, within=60)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        async with open_as(nats, Role.PRODUCER, "shop", "mail") as producer:
            view = await AsyncClient.over(producer, "shop", 20.0).topics.get("uploads")
            assert {each.queue: each.missed.expired for each in view.queues} == {"images": 4, "mail": 4}
            assert not any(each.full for each in view.queues)
        await keeper.keep([])
        assert await MissedEvents(operator, "shop").look([], await keeper.time()) == {}
