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
