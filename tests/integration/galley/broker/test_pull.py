"""Pulls on a real server: what they bring, and of which of it a delivery may have been forgotten."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import pytest

from galley.broker.connection import Broker
from galley.broker.ensure import ensure, stream_info
from galley.broker.mark import remove_mark, write_mark
from galley.broker.publish import Publisher
from galley.broker.pull import Delivery, Pulls, Source
from galley.broker.topology import MARK_KEY, RESTORING_KEY, QueueLayout, work_stream
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

    async def unmark(self) -> None:
        """Have the queue as a cluster has it, or an operator that was not there since the last start."""
        await remove_mark(self.broker, self.work.stream)

    async def metadata(self) -> dict[str, str]:
        info = await stream_info(self.broker, self.work.stream)
        assert info is not None
        return dict(info["config"]["metadata"])

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


async def test_what_was_stored_in_this_life_of_the_server_is_new_to_every_worker(
    worker: Worker, own_nats_server: NatsServer
) -> None:
    await worker.submit("early")
    own_nats_server.kill()
    await eventually(lambda: not worker.broker.connected, within=30)
    await own_nats_server.start()
    await eventually(lambda: worker.broker.connected, within=20)
    await worker.submit("unmarked")
    await ensure(worker.broker, worker.queue)
    await worker.submit("since")
    async with worker.pulls:
        await worker.pulls.orient()
        await eventually(partial(worker.has, "early", "unmarked", "since"), within=30)
    assert worker.heard.old == {"early": True, "unmarked": True, "since": False}


async def test_a_mark_stays_through_a_change_of_the_queue(worker: Worker) -> None:
    await worker.submit("before")
    before = (await worker.metadata())[MARK_KEY]
    await ensure(worker.broker, a_queue(namespace="default", lanes=(Lane.NORMAL,), backlog=7))
    assert (await worker.metadata())[MARK_KEY] == before
    assert before.endswith(" 0")


async def test_a_consumer_that_is_made_again_moves_the_mark_up(worker: Worker) -> None:
    await worker.submit("before")
    work = worker.work
    async with worker.pulls:
        await worker.pulls.orient()
        await eventually(partial(worker.has, "before"), within=30)
        await worker.broker.api("delete", f"CONSUMER.DELETE.{work.stream}.{work.consumer}")
        await worker.pulls.park(work)
        await eventually(lambda: worker.pulls.refusals, within=30)
        await ensure(worker.broker, worker.queue)
        worker.heard.deliveries.clear()
        await worker.pulls.orient()
        await eventually(partial(worker.has, "before"), within=30)
    (again,) = worker.heard.deliveries
    assert (again.delivered, again.old) == (1, True)


async def test_a_mark_of_another_life_or_that_cannot_be_read_means_nothing(worker: Worker) -> None:
    await worker.submit("before")
    stream = worker.work.stream
    for text in ("ANOTHER 0", worker.broker.nats.life, f"{worker.broker.nats.life} x", ""):
        info = await stream_info(worker.broker, stream)
        assert info is not None
        config = {**info["config"], "metadata": info["config"]["metadata"] | {MARK_KEY: text}}
        await worker.broker.api("mark", f"STREAM.UPDATE.{stream}", config)
        async with Broker(worker.broker.server, name="another") as broker:
            other = Worker(broker, worker.queue, heard := Heard(), Pulls(broker, worker.queue, heard))
            async with other.pulls:
                await other.pulls.orient()
                await eventually(partial(other.has, "before"), within=30)
            assert heard.old == {"before": True}
            broker.publish(heard.deliveries[0].reply, b"-NAK")


async def test_a_stream_that_is_being_restored_gets_no_mark(worker: Worker) -> None:
    info = await stream_info(worker.broker, worker.work.stream)
    assert info is not None
    metadata = {**info["config"]["metadata"], RESTORING_KEY: "an archive"}
    del metadata[MARK_KEY]
    config = {**info["config"], "metadata": metadata}
    await worker.broker.api("restore", f"STREAM.UPDATE.{worker.work.stream}", config)
    await write_mark(worker.broker, worker.work.stream, worker.broker.nats.life)
    assert MARK_KEY not in await worker.metadata()


async def test_without_a_mark_what_was_there_before_the_connection_is_old(worker: Worker) -> None:
    await worker.unmark()
    await worker.submit("before")
    async with worker.pulls:
        await worker.pulls.orient()
        await worker.submit("since")
        # A consumer may hear of a task a little after its producer does.
        await eventually(partial(worker.has, "before", "since"), within=30)
    assert worker.heard.old == {"before": True, "since": False}


async def test_without_knowing_what_was_there_everything_counts_as_old(worker: Worker) -> None:
    async with worker.pulls:
        await worker.submit("since")
        await eventually(partial(worker.has, "since"), within=30)
    assert worker.heard.old == {"since": True}


async def test_what_comes_during_a_pause_is_new_when_the_pause_is_over(worker: Worker) -> None:
    await worker.unmark()
    await worker.submit("before")
    async with worker.pulls:
        await worker.pulls.orient()
    await worker.submit("paused-1", "paused-2")
    async with worker.pulls:
        await worker.pulls.orient()
        await eventually(partial(worker.has, "before", "paused-1", "paused-2"), within=30)
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
        await eventually(lambda: not worker.broker.connected, within=30)
        await own_nats_server.start()
        if paused:
            await eventually(lambda: worker.broker.connected, within=20)
        else:
            await eventually(lambda: worker.heard.reconnections == 1, within=20)
    async with worker.pulls:
        await worker.pulls.orient()
        await worker.submit("second")
        await eventually(partial(worker.has, "first", "second"), within=30)
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
        await eventually(partial(worker.has, "first"), within=30)
    assert worker.heard.old == {"first": True}


async def test_tasks_that_come_are_a_word_of_their_consumer(worker: Worker) -> None:
    async with worker.pulls:
        await worker.pulls.park(worker.work)
        worker.pulls.heard_at = 0.0
        await worker.submit("t1")
        await eventually(lambda: worker.heard.deliveries, within=30)
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
        await eventually(lambda: not worker.pulls.is_open(worker.work), within=30)
        assert list(worker.heard.old) == ["t1"]
        await eventually(partial(worker.has, "t2"), within=30)
    assert list(worker.heard.old) == ["t1", "t2"]


async def test_a_parked_pull_brings_nothing_after_its_end(worker: Worker) -> None:
    async with worker.pulls:
        await worker.pulls.park(worker.work)
    assert not worker.pulls.is_open(worker.work)
    await worker.submit("t1")
    async with worker.pulls:
        await worker.pulls.orient()
        await eventually(partial(worker.has, "t1"), within=30)
    assert [(delivery.address.id, delivery.delivered) for delivery in worker.heard.deliveries] == [("t1", 1)]
