"""Listening to topics on a real nats-server: rights, a broker that dies, the sync client."""

import asyncio

import msgspec
import pytest

from galley import Client, NotAllowed, connect
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.permissions import Role
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.client import AsyncClient
from galley.errors import ClientClosed, EventInvalid, TopicNotFound
from galley.topic import Topic
from galley_local.nats_server import NatsServer
from tests.integration.topics.test_topics import open_as
from tests.support.builders import a_queue
from tests.support.eventually import eventually
from tests.support.guarded_nats import GuardedNats


async def test_producers_and_managers_of_a_namespace_may_listen_and_no_others(
    own_guarded_nats: GuardedNats,
) -> None:
    nats = own_guarded_nats
    async with nats.operator() as operator:
        for namespace in ("shop", "elsewhere"):
            await ensure(operator, a_queue("images", namespace=namespace))
            assert await TopicKeeper(operator, namespace, "tests").keep([Declared(Topic("orders"))]) == []
        # The gateway is a user of the account of the streams, where each message enters once.
        gateway = Broker(nats.url, name="gateway", credentials=nats.write_gateway_creds())
        async with (
            open_as(nats, Role.WORKER, "shop", "images") as worker,
            open_as(nats, Role.PRODUCER, "shop", "images") as producer,
            open_as(nats, Role.MANAGER, "shop", "images") as manager,
            open_as(nats, Role.PRODUCER, "elsewhere", "images") as stranger,
            gateway,
        ):
            mine = [AsyncClient.over(each, "shop").topics.listen("orders") for each in (producer, manager)]
            listeners = [*mine, AsyncClient.over(gateway, "shop").topics.listen("orders")]
            theirs = AsyncClient.over(stranger, "elsewhere").topics.listen("orders")
            async with listeners[0], listeners[1], listeners[2], theirs:
                # A publisher's own headers are not the server's.
                forged = {"Nats-Sequence": "9", "Nats-Last-Sequence": "8", "Nats-Time-Stamp": "x"}
                await producer.nats.publish(
                    "galley.event.shop.orders",
                    b'{"specversion":"1.0","id":"forged","source":"s","type":"t"}',
                    headers=forged,
                )
                await AsyncClient.over(worker, "shop").publish("orders", 1, event_id="one")
                async with asyncio.timeout(20):
                    for each in listeners:
                        both = [await anext(each), await anext(each)]
                        assert [(stored.event.id, stored.sequence) for stored in both] == [
                            ("forged", 2), ("one", 3),
                        ]  # fmt: skip
                        assert (each.dropped, each.gaps, each.failed) == (0, 0, 0)
                await AsyncClient.over(stranger, "elsewhere").publish("orders", 1, event_id="other")
                async with asyncio.timeout(20):
                    assert (await anext(theirs)).event.id == "other"
            for broker, namespace in ((worker, "shop"), (stranger, "shop"), (worker, "elsewhere")):
                with pytest.raises(NotAllowed) as refused:
                    async with AsyncClient.over(broker, namespace).topics.listen("orders"):
                        pass
                assert "orders" in str(refused.value)
            # What was refused costs nothing: the connection goes on.
            assert (await AsyncClient.over(worker, "shop").publish("orders", 2)).sequence == 4


async def test_listening_goes_on_with_a_broker_that_was_killed(own_nats_server: NatsServer) -> None:
    server = own_nats_server
    async with Broker(server.url, name="operator") as operator:
        assert await TopicKeeper(operator, "default", "tests").keep([Declared(Topic("orders"))]) == []
        async with connect(server.url, "default") as client, client.topics.listen("orders") as events:
            await client.publish("orders", "before")
            async with asyncio.timeout(30):
                assert msgspec.json.decode((await anext(events)).event.data) == "before"
            server.kill()
            await server.start()
            await eventually(lambda: events.gaps == 1, within=60)
            await client.publish("orders", "after")
            async with asyncio.timeout(60):
                assert msgspec.json.decode((await anext(events)).event.data) == "after"


async def test_programs_without_an_event_loop_listen(nats_server: NatsServer, namespace: str) -> None:
    async with Broker(nats_server.url, name="operator") as operator:
        assert await TopicKeeper(operator, namespace, "tests").keep([Declared(Topic("orders"))]) == []

        def program() -> None:
            client = Client(nats_server.url, namespace)
            with client:
                events = client.topics.listen("orders", 'attributes.region == "eu"', buffer=2)
                assert (events.dropped, events.gaps, events.failed) == (0, 0, 0)
                with pytest.raises(EventInvalid, match="does not listen"):
                    next(events)
                with events:
                    for number in range(4):
                        client.publish("orders", number, {"region": "eu"})
                    client.publish("orders", 4)
                    client.topics.get("orders")
                    found = [msgspec.json.decode(next(events).event.data) for _ in range(2)]
                    assert found == [2, 3]
                    assert (events.dropped, events.gaps, events.failed) == (2, 0, 1)
                with pytest.raises(TopicNotFound), client.topics.listen("none"):
                    pass
                left_open = client.topics.listen("orders")
                left_open.__enter__()
            with pytest.raises(ClientClosed):
                next(left_open)
            left_open.__exit__(None, None, None)

        await asyncio.to_thread(program)
