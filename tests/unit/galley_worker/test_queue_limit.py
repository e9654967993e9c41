"""A queue's own limits over a server in memory: permits among workers, and starts in time."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import pytest

from galley.broker.queue_shares import ShareRecord, limit_use
from galley.key import Rate
from galley.queue_limit import QueueRules
from galley_worker.claim import Who
from galley_worker.queue_limit import QueueLimit
from tests.support.eventually import eventually
from tests.support.memory_nats import MemoryBroker
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, a_bench

LEASE = 30.0


@dataclass
class Crew:
    """A worker's slots, and what its limit tells it."""

    slots: int = 4
    busy: int = 0
    open: bool = True
    lost: list[str] = field(default_factory=list)
    limit: QueueLimit = field(init=False)

    @property
    def unlimited(self) -> int:
        return self.slots - self.busy

    @property
    def room(self) -> int:
        return self.limit.room(self.unlimited)

    def take(self, tasks: int = 1) -> None:
        assert self.room >= tasks
        self.busy += tasks
        self.limit.look()

    def leave(self, tasks: int = 1) -> None:
        self.busy -= tasks
        self.limit.look()

    async def fill(self, most: int = 100) -> int:
        """Take tasks as long as there is room for them, and a little longer; returns how many it runs."""
        for _ in range(most):
            for _ in range(20):
                if self.room > 0:
                    break
                await Bench.pass_time(0.01)
            else:
                break
            self.take()
        return self.busy


def _limit(bench: Bench, broker: MemoryBroker, name: str, rules: QueueRules, crew: Crew) -> QueueLimit:
    clock = asyncio.get_running_loop().time
    crew.limit = QueueLimit(
        broker, bench.layout, Who(name, f"h-{name}"), rules, crew, bench.server.now, clock, LEASE
    )
    crew.limit.open, crew.limit.lost = lambda: crew.open, crew.lost.append
    return crew.limit


@asynccontextmanager
async def a_crew(bench: Bench, name: str, rules: QueueRules, slots: int = 4) -> AsyncIterator[Crew]:
    crew = Crew(slots)
    async with MemoryBroker(bench.server, name) as broker, _limit(bench, broker, name, rules, crew).kept():
        yield crew


@in_virtual_time
async def test_no_more_tasks_run_than_the_queue_allows_over_all_workers() -> None:
    async with a_bench() as bench:
        rules = QueueRules(permits=5)
        async with a_crew(bench, "a", rules) as one, a_crew(bench, "b", rules) as two:
            await one.fill(2)
            assert (await one.fill(), await two.fill()) == (4, 1)
            # A permit stays where it is for the next task, without a write.
            await bench.pass_time(1)
            bench.mark()
            one.leave()
            one.take()
            assert bench.writes() == []
            # What one worker does not use goes to the other, which waits for it.
            one.leave(3)
            assert await eventually(lambda: two.room > 0, within=LEASE)
            assert await two.fill() == 3
            assert one.room == 1
            one.busy = two.busy = 0
        # Both gave back all they had.
        assert (await ShareRecord(bench.producer, "default", "images").read()).shares.permits == 0


@in_virtual_time
async def test_a_worker_that_takes_no_more_tasks_gives_its_permits_to_others() -> None:
    async with a_bench() as bench:
        rules = QueueRules(permits=1)
        async with a_crew(bench, "a", rules) as one, a_crew(bench, "b", rules) as two:
            assert await one.fill() == 1
            one.open = False
            one.limit.look()
            await bench.pass_time(0.1)
            assert two.room == 0, "its task still runs"
            one.leave()
            await bench.pass_time(0.1)
            assert two.room == 1


@in_virtual_time
async def test_the_permits_of_a_dead_worker_are_free_after_a_lease_and_not_before() -> None:
    async with a_bench() as bench:
        rules, dead = QueueRules(permits=2), Crew()
        async with MemoryBroker(bench.server, "dead") as broker:
            limit = _limit(bench, broker, "dead", rules, dead)
            keeping = bench.start(limit._keep())
            assert await dead.fill() == 2
            async with a_crew(bench, "b", rules) as two:
                await bench.pass_time(3 * LEASE)
                assert two.room == 0, "it confirms its permits"
                keeping.cancel()
                await bench.pass_time(LEASE / 3)
                assert two.room == 0
                await bench.pass_time(1.5 * LEASE)
                assert await two.fill() == 2


@in_virtual_time
async def test_a_worker_that_cannot_confirm_its_permits_stops_before_others_have_them() -> None:
    async with a_bench() as bench:
        rules = QueueRules(permits=1)
        async with a_crew(bench, "a", rules) as one, a_crew(bench, "b", rules) as two:
            assert await one.fill() == 1
            line = cast("MemoryBroker", one.limit._broker).line
            line.reconnect_seconds = 2 * LEASE
            line.cut()
            while not one.lost:
                assert two.room == 0
                await bench.pass_time(0.5)
            assert one.room <= 0
            assert await eventually(lambda: two.room == 1, within=2 * LEASE)
            assert one.lost == ["the permits of its queue could not be confirmed"]
            one.busy = 0
            assert one.room == 0, "what it had is another one's now"


@in_virtual_time
async def test_a_limit_that_was_lowered_holds_as_tasks_end() -> None:
    async with a_bench() as bench, a_crew(bench, "a", QueueRules(permits=4)) as old:
        assert await old.fill() == 4
        async with a_crew(bench, "b", QueueRules(permits=2)) as new:
            old.open = False
            for left in (3, 2):
                old.leave()
                await bench.pass_time(1)
                assert new.room == 0, f"{left} tasks run yet"
            old.leave()
            await bench.pass_time(1)
            assert await new.fill() == 1


@in_virtual_time
async def test_why_tells_who_has_the_permits_and_when_the_next_task_may_start() -> None:
    async with a_bench() as bench:
        rules = QueueRules(permits=2, rate=Rate(1, 60.0, 1))
        async with a_crew(bench, "a", rules) as crew:
            assert (await limit_use(bench.producer, "default", "images")).sentences == ()
            await crew.limit.start()
            crew.busy = 1
            crew.limit.look()
            await bench.pass_time(0.1)
            use = await limit_use(bench.producer, "default", "images")
            assert use.workers == (("a", 2),)
            [permits] = use.sentences[:1]
            assert permits == (
                "spec.limits.concurrency lets 2 tasks run at once, and workers have all permits: a (2); "
                "others wait without a slot"
            )


@pytest.mark.parametrize("seed", range(4))
@in_virtual_time
async def test_in_no_time_do_more_tasks_start_than_the_rate_allows(seed: int) -> None:
    choice = random.Random(seed)
    rate = Rate(choice.randint(1, 9), choice.choice((1.0, 7.0)), choice.randint(1, 6))
    starts = []
    async with a_bench() as bench:
        rules = QueueRules(rate=rate)
        async with a_crew(bench, "a", rules) as one, a_crew(bench, "b", rules) as two:
            for _ in range(40):
                crew = choice.choice((one, two))
                if choice.random() < 0.1:
                    await bench.pass_time(choice.random() * 3 * rate.seconds)
                begun = bench.server.now()
                starts.append(begun + timedelta(seconds=await crew.limit.start()))
            ready = rate.next_at(one.limit._full_at) - bench.server.now().timestamp()
            if ready > 0:
                assert one.room <= 0, "who knows that none may start pulls none"
    each = rate.seconds / rate.tasks
    starts.sort()
    for first in range(len(starts)):
        for last in range(first, len(starts)):
            seconds = (starts[last] - starts[first]).total_seconds()
            assert last - first + 1 <= rate.burst + seconds / each + 0.01
    # Nothing is lost either: the last one starts when its turn is.
    assert (starts[-1] - starts[0]).total_seconds() <= 40 * each + 40 * 0.1 * 3 * rate.seconds + 1


@in_virtual_time
async def test_a_record_of_permits_that_is_none_costs_a_look_and_no_worker(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_bench() as bench:
        read, left = ShareRecord.read, [2]

        async def unlucky(record: ShareRecord) -> Any:
            if left[0]:
                left[0] -= 1
                raise RuntimeError("out of luck")
            return await read(record)

        monkeypatch.setattr(ShareRecord, "read", unlucky)
        async with a_crew(bench, "a", QueueRules(permits=2)) as crew:
            await eventually(lambda: crew.room > 0, within=3 * LEASE)
            assert await crew.fill() == 2
            crew.busy = 0
    assert [one.message for one in caplog.records if one.exc_info] == ["unexpected error"] * 2


@in_virtual_time
async def test_permits_that_cannot_be_asked_for_are_had_once_the_broker_answers() -> None:
    async with a_bench() as bench:
        silent, crew = [True], Crew()
        async with MemoryBroker(bench.server, "a") as broker:
            broker.line.lose(to_server=lambda subject: silent[0] and subject.startswith("$JS.API.DIRECT"))
            async with _limit(bench, broker, "a", QueueRules(permits=2), crew).kept():
                await bench.pass_time(20)
                assert crew.room == 0
                silent[0] = False
                await eventually(lambda: crew.room > 0, within=3 * LEASE)
                assert await crew.fill() == 2
                crew.busy = 0
