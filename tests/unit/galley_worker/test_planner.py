"""Delayed tasks are moved to the server's schedules once, while there is room; nothing is lost if not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from galley.address import TaskAddress
from galley.broker import topology
from galley.record import Failure, Outcome
from galley_worker.planner import Planner
from galley_worker.settle import NO_ROOM_SECONDS
from galley_worker.verdict import Bury, RetryAt
from tests.support.builders import an_address
from tests.support.eventually import eventually
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import POLICY, Bench, Worker, a_bench
from tests.unit.galley_worker.deliveries import a_past

HOUR = timedelta(hours=1)


@asynccontextmanager
async def planning(bench: Bench) -> AsyncIterator[Worker]:
    async with bench.worker() as worker:
        planner = Planner(worker.broker, bench.layout, worker.ledger, worker.settler, bench.server.now)
        bench.start(planner.run())
        yield worker


async def submit_later(bench: Bench, **changes: Any) -> TaskAddress:
    return await bench.submit(not_before=bench.server.now() + HOUR, **changes)


def limit(bench: Bench, stream: str, most: int) -> None:
    definition = bench.server.streams[stream].definition
    definition["max_bytes"] = most


def later(bench: Bench) -> str:
    return topology.later_stream(bench.layout.namespace, bench.layout.queue)


@in_virtual_time
async def test_a_delayed_task_is_moved_and_comes_when_it_is_due() -> None:
    async with a_bench() as bench, planning(bench) as worker:
        address = await submit_later(bench)
        await eventually(lambda: bench.in_work == 0, within=5)
        [schedule] = bench.seen("stored", "schedule")
        assert schedule.subject == topology.schedule_subject(address)
        assert schedule.headers[topology.SCHEDULE_TARGET] == topology.due_subject(address)
        assert bench.seen("stored", "due") == []
        await bench.pass_time(HOUR.total_seconds() + 1)
        assert (await bench.take(worker, later(bench))).address == address


@in_virtual_time
async def test_a_task_whose_acknowledgement_is_lost_is_not_scheduled_twice() -> None:
    async with a_bench() as bench, planning(bench) as worker:
        worker.broker.line.lose(to_server=lambda subject: subject.startswith("$JS.ACK."))
        await submit_later(bench)
        await eventually(lambda: bench.seen("stored", "schedule"), within=5)
        worker.broker.line.lose()
        await eventually(lambda: bench.in_work == 0, within=120)
        assert len(bench.seen("stored", "schedule")) == 1
        assert [each.times for each in bench.seen("delivered", "plan")] == [1, 2]


@in_virtual_time
async def test_many_delayed_tasks_are_all_moved() -> None:
    async with a_bench() as bench, planning(bench):
        for _ in range(150):
            await submit_later(bench)
        await eventually(lambda: bench.in_work == 0, within=30)
        assert len(bench.seen("stored", "schedule")) == 150


@in_virtual_time
async def test_without_room_delayed_tasks_stay_where_they_are_and_a_retry_has_some() -> None:
    async with a_bench() as bench:
        limit(bench, later(bench), 20_000)
        async with planning(bench) as worker:
            for _ in range(4):
                await submit_later(bench, input="x" * 4000)
            await eventually(lambda: bench.in_work == 2, within=5)
            await bench.pass_time(3 * NO_ROOM_SECONDS)
            assert (bench.in_work, len(bench.seen("stored", "schedule"))) == (2, 2)

            await bench.submit(input="x" * 4000)
            held = bench.held(await bench.take(worker))
            due = RetryAt(bench.server.now() + HOUR, Failure("ValueError", "no"), a_past(errors=1))
            assert await worker.settler.settle(held, due)
            assert len(bench.seen("stored", "again")) == 1

            stream = bench.server.streams[later(bench)]
            for sequence in list(stream.messages):
                stream.remove(sequence)
            await eventually(lambda: bench.in_work == 0, within=60)


@in_virtual_time
async def test_a_retry_without_room_keeps_its_message_until_there_is_some() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        limit(bench, later(bench), 500)
        address = await bench.submit()
        held = await bench.claimed(worker, await bench.take(worker))
        due = RetryAt(bench.server.now(), Failure("ValueError", "no"), a_past(errors=1))
        assert await worker.settler.settle(held, due)
        assert (bench.in_work, bench.scheduled(address)) == (1, 0)

        limit(bench, later(bench), 100_000)
        again = bench.held(await bench.take(worker))
        assert not await worker.claimant.claim(again, POLICY)
        await eventually(lambda: bench.in_work == 0, within=5)
        assert len(bench.seen("stored", "again")) == 1


@in_virtual_time
async def test_a_dead_letter_without_room_keeps_its_message_until_there_is_some() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        dead = topology.dead_stream(bench.layout.namespace, bench.layout.queue)
        limit(bench, dead, 10)
        address = await bench.submit()
        held = await bench.claimed(worker, await bench.take(worker))
        assert await worker.settler.settle(held, Bury(Failure("ValueError", "no"), a_past(errors=3)))
        assert (bench.in_work, bench.letters(address)) == (1, 0)
        assert bench.final(address).outcome is Outcome.FAILED

        limit(bench, dead, 100_000)
        again = bench.held(await bench.take(worker))
        assert not await worker.claimant.claim(again, POLICY)
        await eventually(lambda: bench.in_work == 0, within=5)
        assert bench.letters(address) == 1


@pytest.mark.parametrize("body", [b"", b"\xff", b'{"handler":"a"}'])
@in_virtual_time
async def test_what_is_no_task_is_a_dead_letter(body: bytes) -> None:
    async with a_bench() as bench, planning(bench):
        address = an_address(of=bench.layout)
        stream = bench.server.streams[topology.work_stream(address.namespace, address.queue)]
        bench.server._store(stream, topology.plan_subject(address), {topology.FLAGS_HEADER: "v=1"}, body)
        await eventually(lambda: bench.in_work == 0, within=5)
        assert bench.letters(address) == 1
        assert bench.seen("stored", "schedule") == []


@in_virtual_time
async def test_an_error_costs_one_task_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_bench() as bench, planning(bench) as worker:
        real = worker.ledger.plan
        failed: list[TaskAddress] = []

        async def plan(address: TaskAddress, *rest: Any) -> None:
            if not failed:
                failed.append(address)
                raise ZeroDivisionError
            await real(address, *rest)

        monkeypatch.setattr(worker.ledger, "plan", plan)
        first, second = [await submit_later(bench) for _ in range(2)]
        await eventually(lambda: bench.in_work == 1, within=5)
        await eventually(lambda: bench.in_work == 0, within=60)
        assert failed == [first]
        assert len(bench.seen("stored", "schedule")) == 2
        assert first != second
