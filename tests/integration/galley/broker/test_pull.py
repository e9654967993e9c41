"""Pulls on a real server: what they bring, and which of it was there before this connection."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import pytest

from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.publish import Publisher
from galley.broker.pull import Delivery, Pulls, Source
from galley.broker.topology import QueueLayout, work_stream
from galley.lanes import Lane
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue, an_address, an_envelope
from tests.support.eventually import eventually


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.reconnections = 0

    def delivered(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def changed(self) -> None:
        pass

    def reconnected(self) -> None:
        self.reconnections += 1

    @property
    def old(self) -> dict[str, bool]:
        """Which tasks came as old."""
        return {delivery.address.id: delivery.old for delivery in self.deliveries}


@dataclass
class Worker:
    """Pulls on one queue, and what they brought."""

    broker: Broker
    queue: QueueLayout
    heard: Heard
    pulls: Pulls

    @property
    def work(self) -> Source:
        return Source(work_stream(self.queue.namespace, self.queue.queue), Lane.NORMAL)

    async def submit(self, *names: str) -> None:
        for name in names:
            await Publisher(self.broker).publish(an_address(of=self.queue, id=name), an_envelope())

    async def sweep(self, batch: int) -> int:
        return await self.pulls.sweep(self.work, batch)

    async def has(self, *names: str) -> bool:
        """Sweep once more; returns whether all of these tasks have come."""
        await self.sweep(5)
        return self.heard.old.keys() >= {*names}


@pytest.fixture
async def worker(own_nats_server: NatsServer) -> AsyncIterator[Worker]:
    queue = a_queue(namespace="default", lanes=(Lane.NORMAL,))
    heard = Heard()
    async with Broker(own_nats_server.url, name="test") as broker:
        await ensure(broker, queue)
        yield Worker(broker, queue, heard, Pulls(broker, queue, heard))


async def test_what_was_there_before_the_connection_is_old_and_what_comes_then_is_new(worker: Worker) -> None:
    await worker.submit("before")
    async with worker.pulls:
        await worker.pulls.orient()
        await worker.submit("since")
        # A consumer may hear of a task a little after its producer does.
        await eventually(partial(worker.has, "before", "since"), within=5)
    assert worker.heard.old == {"before": True, "since": False}


async def test_without_knowing_what_was_there_everything_counts_as_old(worker: Worker) -> None:
    async with worker.pulls:
        await worker.submit("since")
        await eventually(partial(worker.has, "since"), within=5)
    assert worker.heard.old == {"since": True}


async def test_what_comes_during_a_pause_is_new_when_the_pause_is_over(worker: Worker) -> None:
    await worker.submit("before")
    async with worker.pulls:
        await worker.pulls.orient()
    await worker.submit("paused-1", "paused-2")
    async with worker.pulls:
        await worker.pulls.orient()
        await eventually(partial(worker.has, "before", "paused-1", "paused-2"), within=5)
    assert worker.heard.old == {"before": True, "paused-1": False, "paused-2": False}


@pytest.mark.parametrize("paused", [True, False], ids=["during a pause", "while pulling"])
async def test_a_connection_lost_makes_everything_old_that_was_there_before_the_next(
    worker: Worker, own_nats_server: NatsServer, paused: bool
) -> None:
    async with worker.pulls:
        await worker.pulls.orient()
        await worker.submit("first")
        if paused:
            await worker.pulls.end()
        own_nats_server.kill()
        await eventually(lambda: not worker.broker.connected, within=10)
        await own_nats_server.start()
        if paused:
            await eventually(lambda: worker.broker.connected, within=20)
        else:
            await eventually(lambda: worker.heard.reconnections == 1, within=20)
    async with worker.pulls:
        await worker.pulls.orient()
        await worker.submit("second")
        await eventually(partial(worker.has, "first", "second"), within=5)
    assert worker.heard.old == {"first": True, "second": False}


async def test_a_new_connection_takes_everything_for_old_until_it_has_looked(
    worker: Worker, own_nats_server: NatsServer
) -> None:
    async with worker.pulls:
        await worker.pulls.orient()
        await worker.submit("first")
        own_nats_server.kill()
        await own_nats_server.start()
        await eventually(lambda: worker.heard.reconnections == 1, within=20)
        # As a sweep over many lanes does that was under way when the connection broke.
        await eventually(partial(worker.has, "first"), within=5)
    assert worker.heard.old == {"first": True}


async def test_tasks_that_come_are_a_word_of_their_consumer(worker: Worker) -> None:
    async with worker.pulls:
        await worker.pulls.park(worker.work)
        worker.pulls.heard_at = 0.0
        await worker.submit("t1")
        await eventually(lambda: worker.heard.deliveries, within=5)
        assert worker.pulls.heard_at > 0.0


async def test_an_empty_lane_is_a_word_as_well(worker: Worker) -> None:
    async with worker.pulls:
        worker.pulls.heard_at = 0.0
        assert await worker.sweep(3) == 0
        assert worker.pulls.heard_at > 0.0


async def test_a_parked_pull_takes_the_next_task_and_no_second_one(worker: Worker) -> None:
    async with worker.pulls:
        await worker.pulls.orient()
        await worker.pulls.park(worker.work)
        assert worker.pulls.is_open(worker.work)
        await worker.submit("t1", "t2")
        await eventually(lambda: not worker.pulls.is_open(worker.work), within=5)
        assert list(worker.heard.old) == ["t1"]
        await eventually(partial(worker.has, "t2"), within=5)
    assert list(worker.heard.old) == ["t1", "t2"]


async def test_a_parked_pull_brings_nothing_after_its_end(worker: Worker) -> None:
    async with worker.pulls:
        await worker.pulls.park(worker.work)
    assert not worker.pulls.is_open(worker.work)
    await worker.submit("t1")
    async with worker.pulls:
        await worker.pulls.orient()
        await eventually(partial(worker.has, "t1"), within=5)
    assert [(delivery.address.id, delivery.delivered) for delivery in worker.heard.deliveries] == [("t1", 1)]
