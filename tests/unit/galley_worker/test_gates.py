"""A task whose gate cannot be asked, since the broker does not answer, is delivered again."""

import pytest
from msgspec.structs import replace

from galley.address import Kind
from galley.broker.pull import Delivery
from galley.key import Rate
from galley.queue_limit import QueueRules
from galley_worker.claim import Held
from galley_worker.gates import Gates
from galley_worker.leases import Lease
from galley_worker.turns import KeyRules
from galley_worker.under_way import UnderWay
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, Worker, a_bench
from tests.unit.galley_worker.test_queue_limit import Crew, _limit
from tests.unit.galley_worker.test_turns import _submit, _turns


def silent(subject: str) -> bool:
    return subject.startswith("$JS.API.")


async def let(gates: Gates, delivery: Delivery, held: Held) -> bool:
    return await gates.let(UnderWay(delivery, Lease(delivery.reply, 0.0, lambda: None), 0.0), held)


async def with_key(bench: Bench, worker: Worker, gates: Gates) -> tuple[Delivery, Held]:
    """Return a task of a key that is tried again, so that its permit has to be looked up."""
    turns = gates._turns
    assert turns is not None
    await _submit(bench, "k", 1)
    await turns.take(await bench.take(worker))
    delivery = await bench.take_any(worker)
    held = bench.held(delivery)
    held.flags = replace(held.flags, attempt=2)
    return delivery, held


async def with_rate(bench: Bench, worker: Worker, gates: Gates) -> tuple[Delivery, Held]:
    """Return a task of a queue that limits how many start in a time."""
    gates.limit = _limit(bench, worker.broker, "w1", QueueRules(rate=Rate(1, 1.0, 1)), Crew())
    await bench.submit()
    delivery = await bench.take(worker)
    return delivery, bench.held(delivery)


@in_virtual_time
async def test_a_task_begins_when_the_rate_of_its_queue_lets_it() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        gates = Gates(worker.settler, None, None, bench.server.now)
        gates.limit = _limit(bench, worker.broker, "w1", QueueRules(rate=Rate(1, 10.0, 1)), Crew())
        began = []
        for _ in range(2):
            await bench.submit()
            delivery = await bench.take(worker)
            held = bench.held(delivery)
            assert await let(gates, delivery, held)
            began.append((bench.server.now(), held.started_at))
        (first, _), (second, said) = began
        assert (second - first).total_seconds() == pytest.approx(10, abs=1)
        assert said == second


@pytest.mark.parametrize("task", [with_key, with_rate])
@in_virtual_time
async def test_a_task_whose_gate_is_not_answered_comes_again_and_passes(task: object) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, KeyRules(permits=1))
        gates = Gates(worker.settler, turns, None, bench.server.now)
        delivery, held = await task(bench, worker, gates)  # type: ignore[operator]
        worker.broker.line.lose(to_server=silent)
        assert not await let(gates, delivery, held)
        worker.broker.line.lose()
        while (again := await bench.take_any(worker)).address.kind is Kind.TURN:
            await turns.take(again)
        assert again.address == delivery.address
        assert await let(gates, again, bench.held(again))
