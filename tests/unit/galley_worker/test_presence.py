"""What a worker says of itself, and when."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from galley.broker.control import HEARTBEAT_SECONDS, Heartbeat, Request, Verb, ask_workers, hearing
from galley.faults import Faults
from galley_worker.claim import Who
from galley_worker.leases import LeaseKeeper
from galley_worker.ledger import Replies
from galley_worker.presence import Presence
from galley_worker.puller import Puller
from galley_worker.roster import Roster
from galley_worker.runners.runners import Runners
from galley_worker.slots import Changes, WorkerSlots
from galley_worker.stop import Stop
from tests.support.memory_nats import MemoryBroker
from tests.support.virtual_time import in_virtual_time, virtual_loop
from tests.unit.galley_worker.bench import Bench, a_bench
from tests.unit.galley_worker.test_slots import Shared


@asynccontextmanager
async def beats(bench: Bench) -> AsyncIterator[list[tuple[float, Heartbeat]]]:
    """Yield the heartbeats of a worker, each with the time at which it was heard."""
    heard: list[tuple[float, Heartbeat]] = []
    where = bench.layout.namespace, bench.layout.queue
    async with MemoryBroker(bench.server, "w1") as broker:
        slots = WorkerSlots(cast("Runners", Shared(batched=False)), 2, Changes())
        roster = Roster(LeaseKeeper(broker, virtual_loop().time, 30.0))
        async with Puller(broker, bench.layout, slots, Replies(broker).give_back) as puller:
            presence = Presence(broker, Who("w1", "h1"), roster, puller, slots, Stop(), Faults())

            def hear(beat: Heartbeat) -> None:
                heard.append((virtual_loop().time(), beat))

            async with hearing(bench.producer, *where, hear), presence.shown(*where):
                yield heard


async def drain(bench: Bench, seconds: float) -> None:
    where = bench.layout.namespace, bench.layout.queue
    request = Request(workers=("w1",), seconds=seconds)
    assert await ask_workers(bench.producer, *where, Verb.DRAIN, request) is not None


@in_virtual_time
async def test_a_worker_says_at_once_that_it_drains_and_that_it_does_not_any_more() -> None:
    async with a_bench() as bench, beats(bench) as heard:
        await asyncio.sleep(3.5 * HEARTBEAT_SECONDS)
        assert 4 <= len(heard) <= 5, "one a second"
        for seconds in (60.0, 0.0):
            before, asked_at = len(heard), virtual_loop().time()
            await drain(bench, seconds)
            await asyncio.sleep(0.1)
            assert len(heard) == before + 1
            at, beat = heard[-1]
            assert at - asked_at < HEARTBEAT_SECONDS / 10
            assert beat.draining == bool(seconds)
            await asyncio.sleep(0.15 * HEARTBEAT_SECONDS)
        before = len(heard)
        await asyncio.sleep(3 * HEARTBEAT_SECONDS)
        assert len(heard) == before + 3, "and then one a second, as before"
