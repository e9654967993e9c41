"""What a worker holds: never more than it has slots and waiting pulls, and never for long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.publish import Publisher
from galley.broker.pull import Delivery, Pulls
from galley.broker.stream_config import consumer_definitions
from galley.broker.topology import QueueLayout
from galley.lanes import HIGHEST_FIRST, Lane
from galley_local.nats_server import NatsServer
from galley_worker.ledger import Replies
from galley_worker.puller import Puller
from tests.support.builders import a_queue, an_address, an_envelope
from tests.support.eventually import eventually

SOON = 30.0


class Seats:
    """A worker's slots, taken by attempts that end when the test says so."""

    brisk = False
    supplied = False

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.begun: list[Delivery] = []
        self.ended = 0

    @property
    def free(self) -> int:
        return self.capacity - (len(self.begun) - self.ended)

    def have_begun(self, number: int) -> bool:
        return len(self.begun) == number

    @property
    def ids(self) -> list[str]:
        return [delivery.address.id for delivery in self.begun]


class Tray:
    """A listener that keeps what comes."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def delivered(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def changed(self) -> None:
        pass

    def reconnected(self) -> None:
        pass


class Desk:
    """A queue, and workers at it that begin tasks and do nothing with them."""

    def __init__(self, broker: Broker, queue: QueueLayout) -> None:
        self.broker = broker
        self.queue = queue

    def puller(self, seats: Seats) -> Puller:
        return Puller(self.broker, self.queue, seats, Replies(self.broker).give_back)

    @asynccontextmanager
    async def worker(self, seats: Seats) -> AsyncIterator[Puller]:
        async with asyncio.timeout(30), self.puller(seats) as puller:

            async def begin() -> None:
                async for delivery in puller.deliveries():
                    seats.begun.append(delivery)

            beginning = asyncio.create_task(begin())
            try:
                yield puller
            finally:
                puller.stop()
                await beginning

    async def submit(self, *names: str, lane: Lane = Lane.NORMAL) -> None:
        for name in names:
            await Publisher(self.broker).publish(an_address(of=self.queue, id=name, lane=lane), an_envelope())

    async def take(self, lane: Lane) -> Delivery:
        """Return the next task of a lane as it comes from the broker."""
        tray = Tray()
        async with Pulls(self.broker, self.queue, tray) as pulls:
            (_, work) = pulls.sources[lane]

            async def swept() -> bool:
                # A task that was stored this moment may not be the consumer's yet.
                return await pulls.sweep(work, 1) == 1

            await eventually(swept, within=SOON)
        return tray.deliveries[0]

    async def _sum(self, of: str) -> int:
        total = 0
        for stream, consumer in consumer_definitions(self.queue):
            info = await self.broker.api("look", f"CONSUMER.INFO.{stream}.{consumer['name']}")
            total += info[of]
        return total

    async def in_hand(self) -> int:
        """Return how many tasks were delivered and not acknowledged; those given back still count."""
        return await self._sum("num_ack_pending")

    async def in_hand_are(self, number: int) -> bool:
        return await self.in_hand() == number

    async def pulls_wait(self, number: int) -> bool:
        return await self._sum("num_waiting") == number


ALL_PULLS = 2 * len(HIGHEST_FIRST)
"""One for each lane of the work and of the later stream."""


@pytest.fixture
async def desk(nats_server: NatsServer, namespace: str) -> AsyncIterator[Desk]:
    queue = a_queue(namespace=namespace, lanes=HIGHEST_FIRST)
    async with Broker(nats_server.url, name="test") as broker:
        await ensure(broker, queue)
        yield Desk(broker, queue)


async def test_a_worker_takes_as_many_tasks_as_it_has_slots(desk: Desk) -> None:
    await desk.submit(*(f"t{number}" for number in range(10)))
    seats = Seats(2)
    async with desk.worker(seats) as puller:
        await eventually(lambda: len(seats.begun) == 2, within=SOON)
        assert await desk.in_hand() == 2
        for count in range(3, 11):
            seats.ended += 1
            puller.slots_changed()
            await eventually(partial(seats.have_begun, count), within=SOON)
            assert await desk.in_hand() == count, "nothing is fetched ahead"
    assert seats.ids == [f"t{number}" for number in range(10)]


async def test_what_waiting_pulls_bring_beyond_its_slots_goes_to_another_worker_at_once(desk: Desk) -> None:
    seats, others = Seats(1), Seats(0)
    async with desk.worker(seats), desk.worker(others) as other:
        await eventually(lambda: desk.pulls_wait(ALL_PULLS), within=SOON)
        for lane in HIGHEST_FIRST:
            await desk.submit(f"in-{lane}", lane=lane)
        await eventually(lambda: len(seats.begun) == 1, within=SOON)
        await eventually(lambda: desk.in_hand_are(4), within=SOON)
        others.capacity = 10
        other.slots_changed()
        await eventually(lambda: len(others.begun) == 3, within=SOON)
    assert sorted(seats.ids + others.ids) == sorted(f"in-{lane}" for lane in HIGHEST_FIRST)
    assert [delivery.delivered for delivery in others.begun] == [2, 2, 2], "each was given back once"


async def test_a_slot_that_goes_away_as_its_task_arrives_does_not_keep_the_task(desk: Desk) -> None:
    # Handlers that turn out slow make a worker's slots fewer, at any moment.
    await desk.submit("t1")
    seats, others = Seats(0), Seats(1)
    async with desk.worker(seats) as puller:
        delivery = await desk.take(Lane.NORMAL)
        seats.capacity = 1
        puller.delivered(delivery)
        seats.capacity = 0
        async with desk.worker(others):
            await eventually(partial(others.have_begun, 1), within=SOON)
    assert others.begun[0].delivered == 2
    assert seats.begun == []


async def test_what_waits_for_a_slot_begins_when_slots_grow_though_no_attempt_has_ended(desk: Desk) -> None:
    await desk.submit("t1")
    seats = Seats(0)
    seats.brisk = True
    async with desk.worker(seats) as puller:
        puller.delivered(await desk.take(Lane.NORMAL))
        await asyncio.sleep(0)
        seats.capacity = 1
        puller.slots_changed()
        await eventually(partial(seats.have_begun, 1), within=SOON)
    assert seats.begun[0].delivered == 1, "it was not given back for that"


async def test_of_those_that_wait_for_a_slot_the_highest_lane_begins_first(desk: Desk) -> None:
    seats = Seats(1)
    seats.brisk = True
    async with desk.worker(seats) as puller:
        await eventually(lambda: desk.pulls_wait(ALL_PULLS), within=SOON)
        await desk.submit("first")
        await eventually(lambda: seats.ids == ["first"], within=SOON)
        await eventually(lambda: desk.pulls_wait(ALL_PULLS - 1), within=SOON)
        await asyncio.gather(
            desk.submit("low", lane=Lane.LOW),
            desk.submit("high", lane=Lane.HIGH),
            desk.submit("critical", lane=Lane.CRITICAL),
        )
        await eventually(lambda: desk.in_hand_are(4), within=SOON)
        seats.ended += 1
        seats.capacity = 3
        puller.slots_changed()
        await eventually(lambda: len(seats.begun) == 4, within=SOON)
    assert seats.ids[1:] == ["critical", "high", "low"]


async def test_a_task_that_a_waiting_pull_brings_is_followed_by_a_pull_for_the_next(desk: Desk) -> None:
    seats = Seats(4)
    async with desk.worker(seats):
        await eventually(lambda: desk.pulls_wait(ALL_PULLS), within=SOON)
        await desk.submit("t1", "t2", "t3", "t4")
        # Well before pulls are looked at by the clock, and though no attempt ends.
        await eventually(partial(seats.have_begun, 4), within=30)


async def test_slots_that_grow_are_filled_though_no_attempt_ends(desk: Desk) -> None:
    await desk.submit("t1", "t2", "t3")
    seats = Seats(1)
    async with desk.worker(seats) as puller:
        await eventually(partial(seats.have_begun, 1), within=SOON)
        seats.capacity = 3
        puller.slots_changed()
        await eventually(partial(seats.have_begun, 3), within=30)


async def test_without_a_slot_the_lowest_lanes_are_returned_first(desk: Desk) -> None:
    await desk.submit("low", lane=Lane.LOW)
    await desk.submit("high", lane=Lane.HIGH)
    taken = [await desk.take(Lane.LOW), await desk.take(Lane.HIGH)]
    seats, others = Seats(0), Seats(0)
    seats.brisk = True
    async with desk.worker(seats) as puller:
        for delivery in taken:
            puller.delivered(delivery)
        seats.capacity = 1
        seats.brisk = False
        puller.slots_changed()
        await eventually(partial(seats.have_begun, 1), within=SOON)
        async with desk.worker(others) as other:
            others.capacity = 1
            other.slots_changed()
            await eventually(partial(others.have_begun, 1), within=SOON)
    assert (seats.ids, others.ids) == (["high"], ["low"])


async def test_a_paused_worker_takes_nothing_and_leaves_no_pull_behind(desk: Desk) -> None:
    seats = Seats(3)
    async with desk.worker(seats) as puller:
        await eventually(lambda: desk.pulls_wait(ALL_PULLS), within=SOON)
        puller.pause()
        await eventually(lambda: desk.pulls_wait(0), within=SOON)
        await desk.submit("t1", "t2")
        assert await desk.in_hand() == 0
        puller.resume()
        await eventually(lambda: seats.ids == ["t1", "t2"], within=SOON)
    assert [(delivery.delivered, delivery.old) for delivery in seats.begun] == [(1, False)] * 2


async def test_what_still_arrives_while_pulls_are_taken_back_goes_to_another_worker(desk: Desk) -> None:
    await desk.submit("t1")
    delivery = await desk.take(Lane.NORMAL)
    seats, others = Seats(3), Seats(1)
    async with desk.worker(seats) as puller:
        await eventually(lambda: desk.pulls_wait(ALL_PULLS), within=SOON)
        puller.pause()
        puller.delivered(delivery)
        await eventually(lambda: desk.pulls_wait(0), within=SOON)
        async with desk.worker(others):
            await eventually(partial(others.have_begun, 1), within=SOON)
        puller.resume()
        await eventually(lambda: desk.pulls_wait(ALL_PULLS), within=SOON)
    assert (seats.ids, others.ids) == ([], ["t1"])
    assert others.begun[0].delivered == 2


async def test_a_drain_gives_back_what_has_not_begun_once_and_keeps_what_has(desk: Desk) -> None:
    seats, others = Seats(1), Seats(0)
    async with desk.worker(others) as other:
        async with desk.worker(seats) as puller:
            await eventually(lambda: desk.pulls_wait(ALL_PULLS), within=SOON)
            await desk.submit("begun", lane=Lane.HIGH)
            await eventually(lambda: seats.ids == ["begun"], within=SOON)
            await asyncio.gather(*(desk.submit(f"in-{lane}", lane=lane) for lane in HIGHEST_FIRST))
            await eventually(lambda: desk.in_hand_are(4), within=SOON)
            for _ in range(3):
                puller.pause()
                puller.pause()
                await eventually(lambda: desk.pulls_wait(0), within=SOON)
                puller.resume()
            puller.pause()
        others.capacity = 10
        other.slots_changed()
        await eventually(lambda: len(others.begun) == len(HIGHEST_FIRST), within=SOON)
    assert seats.ids == ["begun"]
    assert sorted(others.ids) == sorted(f"in-{lane}" for lane in HIGHEST_FIRST)
    times = {delivery.address.lane: delivery.delivered for delivery in others.begun}
    assert times == {Lane.CRITICAL: 2, Lane.HIGH: 1, Lane.NORMAL: 2, Lane.LOW: 2}, "given back once"


async def test_a_worker_told_to_stop_while_it_hands_a_task_out_hands_out_no_other(desk: Desk) -> None:
    await desk.submit("t1", "t2")
    async with asyncio.timeout(10), desk.puller(Seats(2)) as puller:
        handed_out = []
        async for delivery in puller.deliveries():
            handed_out.append(delivery.address.id)
            await eventually(lambda: desk.in_hand_are(2), within=SOON)
            puller.stop()
            await asyncio.sleep(0)
    assert handed_out == ["t1"]
    others = Seats(1)
    async with desk.worker(others):
        await eventually(partial(others.have_begun, 1), within=SOON)
    assert [(delivery.address.id, delivery.delivered) for delivery in others.begun] == [("t2", 2)]
