"""Turns over a server in memory: any arrival mix is shared fairly, and permits survive a lost worker."""

import random
from collections import Counter

import pytest

from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.key_permits import KeyPermits
from galley.key import digest_of_key
from galley_worker.turns import LEASE_SECONDS, QUANTUM, KeyRules, Turns
from tests.support.builders import an_address
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, Worker, a_bench


def _turns(bench: Bench, worker: Worker, rules: KeyRules) -> Turns:
    return Turns(worker.broker, bench.layout, worker.ledger, rules, bench.server.now)


async def _submit(bench: Bench, key: str, number: int) -> TaskAddress:
    address = an_address(of=bench.layout, id=f"{key}-{number}")
    return await bench.submit(address, key=key)


@pytest.mark.parametrize("seed", range(4))
@in_virtual_time
async def test_a_single_task_starts_after_at_most_a_quantum_of_each_other_key(seed: int) -> None:
    choice = random.Random(seed)
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, KeyRules())
        keys = [f"k{n}" for n in range(choice.randint(1, 4))]
        for number in range(choice.randint(20, 40)):
            await _submit(bench, choice.choice(keys), number)
        started: list[str] = []
        lonely_after = choice.randint(0, 10)
        came_at = -1
        while "lonely-1" not in started:
            if len(started) >= lonely_after and came_at < 0:
                came_at = len(started)
                await _submit(bench, "lonely", 1)
            delivery = await _take_in_order(bench, worker)
            if delivery.address.kind is Kind.TURN:
                await turns.take(delivery)
            else:
                started.append(delivery.address.id)
                worker.ledger.acknowledge(delivery.reply)
        before = Counter(each.partition("-")[0] for each in started[came_at:-1])
        # What was in the lane already when it came belongs to the turn under way.
        assert max(before.values(), default=0) <= 2 * QUANTUM
        assert sum(before.values()) <= QUANTUM * (len(keys) + 1)


async def _take_in_order(bench: Bench, worker: Worker):  # type: ignore[no-untyped-def]
    """Return what a free slot gets next: from the later stream first, as a worker asks."""
    later = topology.later_stream(bench.layout.namespace, bench.layout.queue)
    consumer = bench.server.consumers[later, "normal"]
    if consumer.waiting and not worker.hands.came:
        return await bench.take(worker, later)
    return await bench.take_any(worker)


@in_virtual_time
async def test_a_permit_whose_task_is_gone_is_free_after_a_lease() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, KeyRules(permits=1))
        permits = KeyPermits(worker.broker, bench.layout.namespace, bench.layout.queue)
        digest = digest_of_key("k")
        for number in range(2):
            await _submit(bench, "k", number)
        await turns.take(await bench.take(worker))
        first = await bench.take_any(worker)
        assert first.address.id == "k-0"
        # It ends, and its worker dies before it gives the permit back.
        worker.ledger.acknowledge(first.reply)
        assert (await permits.read(digest)).permits.held == ("k-0",)
        await bench.pass_time(LEASE_SECONDS + 1)
        await turns.take(await bench.take_any(worker))
        second = await bench.take_any(worker)
        assert second.address.id == "k-1"
        assert (await permits.read(digest)).permits.held == ("k-1",)
        worker.ledger.acknowledge(second.reply)
        await turns.give_back(second.address, "k")
        assert (await permits.read(digest)).permits.held == ()


@in_virtual_time
async def test_who_gives_a_permit_back_moves_the_next_task() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, KeyRules(permits=2))
        for number in range(5):
            await _submit(bench, "k", number)
        await turns.take(await bench.take(worker))
        running = [await bench.take_any(worker) for _ in range(2)]
        assert [each.address.id for each in running] == ["k-0", "k-1"]
        worker.ledger.acknowledge(running[0].reply)
        await turns.give_back(running[0].address, "k")
        assert (await bench.take_any(worker)).address.id == "k-2"
