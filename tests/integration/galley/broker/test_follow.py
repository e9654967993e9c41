"""Following records: each change is heard once and in order, whatever becomes of consumer and stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.follow import Follower
from galley.broker.listing import messages_of
from galley.broker.records import Records
from galley.lanes import Lane
from galley.record import Record, State, Stored
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue
from tests.support.eventually import eventually


class Following:
    """A queue whose records are followed."""

    def __init__(self, broker: Broker, namespace: str) -> None:
        self.broker, self.namespace = broker, namespace
        self.layout = a_queue("images", namespace=namespace)
        self.stream = topology.records_stream(namespace, "images")
        self.heard: list[str] = []
        self.follower = Follower(broker, (namespace, "images"), self._hear)

    def _hear(self, address: TaskAddress, _stored: Stored) -> None:
        self.heard.append(address.id)

    async def write(self, *tasks: str) -> None:
        for task in tasks:
            address = TaskAddress(self.namespace, "images", Lane.NORMAL, Kind.DIRECT, task)
            ack = await Records(self.broker).write(address, Record(State.RUN, 1, lane=Lane.NORMAL), 0)
            assert ack.stored

    async def has_heard(self, *tasks: str) -> None:
        await eventually(lambda: len(self.heard) >= len(tasks), within=20, why=f"{tasks} are heard")
        assert self.heard == list(tasks)

    async def lose_consumers(self) -> None:
        names = await self.broker.api("look", f"CONSUMER.NAMES.{self.stream}")
        assert names["consumers"]
        for name in names["consumers"]:
            await self.broker.api("delete", f"CONSUMER.DELETE.{self.stream}.{name}")


@pytest.fixture
async def following(nats_server: NatsServer, namespace: str) -> AsyncIterator[Following]:
    async with Broker(nats_server.url, name="test") as broker:
        it = Following(broker, namespace)
        await ensure(broker, it.layout)
        running = asyncio.create_task(it.follower.run())
        await it.follower.started.wait()
        yield it
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_what_is_written_while_there_is_no_consumer_is_heard_once_and_in_order(
    following: Following,
) -> None:
    await following.write("a", "b")
    await following.has_heard("a", "b")
    await following.lose_consumers()
    await following.write("c", "d")
    await following.has_heard("a", "b", "c", "d")


async def test_a_stream_that_was_made_again_is_followed_from_its_first_record(following: Following) -> None:
    await following.write("a", "b")
    await following.has_heard("a", "b")
    await following.broker.api("delete", f"STREAM.DELETE.{following.stream}")
    await ensure(following.broker, following.layout)
    await following.write("c")
    await following.has_heard("a", "b", "c")


async def test_large_records_do_not_cost_the_connection_they_are_read_on(
    nats_server: NatsServer, namespace: str
) -> None:
    """A worker's records were sent 256 at once: of a megabyte each, the server cut the operator off."""
    layout = a_queue("images", namespace=namespace)
    heard: list[str] = []
    async with (
        Broker(nats_server.url, name="tenant") as tenant,
        Broker(nats_server.url, name="operator") as operator,
    ):
        await ensure(tenant, layout)
        names = [f"t{number}" for number in range(200)]
        for name in names:
            subject = topology.record_subject(
                TaskAddress(namespace, "images", Lane.NORMAL, Kind.DIRECT, name)
            )
            ack = await (await tenant.pipeline.send(subject, b"x" * 1_000_000))
            assert ack.stored

        def known(_namespace: str, task: str) -> bool:
            heard.append(task)
            return False

        follower = Follower(operator, (namespace, "images"), lambda *_: None, known)
        follower._position = 0
        running = asyncio.create_task(follower.run())
        await eventually(lambda: len(heard) >= len(names), within=60)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert heard == names
        stream = topology.records_stream(namespace, "images")
        listed = [one.subject.rpartition(".")[2] async for one in messages_of(operator, stream, ">")]
        assert listed == names
        assert operator.nats.stats["reconnects"] == 0
