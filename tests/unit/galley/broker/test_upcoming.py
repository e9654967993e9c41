"""When tasks for later fall due: what was added is read, once, and what is gone does not count."""

from datetime import UTC, datetime, timedelta

from galley.backlog import QueueBacklog
from galley.broker import topology
from galley.broker.later import Door, send_later
from galley.broker.signals import SignalReader
from galley.broker.stream_listing import LISTING_SECONDS
from galley.broker.upcoming import LISTED_SECONDS, Upcoming
from galley.envelope import Flags, encode
from tests.support.builders import an_address, an_envelope
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, a_bench


class Look:
    """A queue, and what is known of its tasks for later."""

    def __init__(self, bench: Bench, at_once: int = 100) -> None:
        self.bench, self.name = bench, (bench.layout.namespace, bench.layout.queue)
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.stream = topology.later_stream(*self.name)
        self.upcoming = Upcoming(*self.name, at_once)

    async def later(self, seconds: float, door: Door = Door.FIRST) -> None:
        address, at = an_address(of=self.bench.layout), self.now + timedelta(seconds=seconds)
        await (await send_later(self.bench.producer, address, encode(an_envelope()), Flags(), at, door))

    async def known(self, most: int = 10_000) -> list[tuple[float, int]]:
        state = (await self.bench.producer.api("look", f"STREAM.INFO.{self.stream}"))["state"]
        await self.upcoming.refresh(self.bench.producer, state["messages"], state["last_seq"])
        return [((at - self.now).total_seconds(), n) for at, n in self.upcoming.listed(self.now, most)]


@in_virtual_time
async def test_what_is_added_is_read_once_first_attempts_and_retries() -> None:
    async with a_bench() as bench:
        it = Look(bench)
        assert await it.known() == []
        await it.later(300)
        await it.later(60)
        await it.later(60, Door.AGAIN)
        assert await it.known() == [(60, 2), (300, 1)]
        assert await it.known() == [(60, 2), (300, 1)]
        await it.later(61)
        assert await it.known() == [(60, 2), (61, 1), (300, 1)]


@in_virtual_time
async def test_more_than_a_batch_is_read_over_several_looks() -> None:
    async with a_bench() as bench:
        it = Look(bench, at_once=3)
        for second in range(7):
            await it.later(100 + second)
        assert [len(await it.known()) for _ in range(4)] == [3, 6, 7, 7]


@in_virtual_time
async def test_no_more_tasks_are_due_than_there_are_messages() -> None:
    async with a_bench() as bench:
        it = Look(bench)
        for second in (100, 200, 300):
            await it.later(second)
        assert await it.known(most=2) == [(100, 1), (200, 1)]
        await bench.producer.api("purge", f"STREAM.PURGE.{it.stream}")
        assert await it.known() == []
        await it.later(400)
        assert await it.known() == [(400, 1)]


@in_virtual_time
async def test_times_that_are_past_are_forgotten_and_those_far_ahead_are_one() -> None:
    async with a_bench() as bench:
        it = Look(bench)
        for second in (50, 60, LISTED_SECONDS + 100, LISTED_SECONDS + 200):
            await it.later(second)
        await it.known()
        assert [n for _, n in it.upcoming.listed(it.now, 10)] == [1, 1]
        assert [n for _, n in it.upcoming.listed(it.now + timedelta(seconds=70), 10)] == [1]
        assert [n for _, n in it.upcoming.listed(it.now + timedelta(seconds=250), 10)] == [1, 1]


@in_virtual_time
async def test_a_backlog_has_the_times_and_keeps_them_while_the_broker_is_away() -> None:
    async with a_bench() as bench:
        it = Look(bench)
        reader = SignalReader(bench.producer)
        for second in (100, 200):
            await it.later(second)
        times = [await _coming(reader, it)]
        bench.producer.line.cut()
        await bench.pass_time(LISTING_SECONDS)
        times.append(await _coming(reader, it))
        assert times == [2, 2]


async def _coming(reader: SignalReader, it: Look) -> int:
    backlog = await reader.read(*it.name)
    assert isinstance(backlog, QueueBacklog)
    return sum(tasks for _, tasks in backlog.coming)
