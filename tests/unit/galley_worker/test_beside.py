"""What a worker does beside its attempts goes on after the broker was silent, refused, or had no room.

An error that left one of these loops would count as a fault of the worker, and have it begin again.
"""

import asyncio
import logging
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from galley.broker import counts, topology
from galley.broker import schedules as stored
from galley.broker.counts import CountReader, Outbox
from galley.broker.objects import Place
from galley.client import AsyncClient
from galley.faults import Faults
from galley.lanes import Lane
from galley.record import Outcome, Record, State
from galley.repeat import Repeat
from galley.topic import Subscribe
from galley_worker import code_schedules
from galley_worker.code_subscriptions import subscribe
from galley_worker.measures import Measures
from galley_worker.objects import Sweeper
from galley_worker.runners.frames import HandlerRules
from galley_worker.tally import Tally
from tests.support.builders import an_address
from tests.support.eventually import eventually
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley.encryption.keys import payloads
from tests.unit.galley_worker.bench import a_bench
from tests.unit.galley_worker.test_fanout import IMAGES, Town, a_town
from tests.unit.galley_worker.test_planner import planning, submit_later

EVERY_HOUR = HandlerRules(repeat=Repeat("@every 1h"))


def said(log: pytest.LogCaptureFixture, event: str) -> int:
    return sum(record.message == event for record in log.records)


@in_virtual_time
async def test_a_worker_ends_though_its_last_counts_get_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        queue, clock = (bench.layout.namespace, bench.layout.queue), asyncio.get_running_loop().time
        measures = Measures(*queue, lambda: 1, lambda: 0)
        outbox = Outbox(worker.broker, queue, "w1", clock)
        async with Tally(outbox, measures, worker.settler, Faults()).kept():
            worker.settler.ended[Lane.NORMAL, counts.SUCCEEDED] += 1
            worker.broker.line.lose(to_client=lambda _subject: True)
            ends = clock()
        assert 1 < clock() - ends < 5
        assert said(caplog, "last counts not handed over") == 1
        # It was stored, and the next worker of that name would not count it again.
        assert (await CountReader(bench.producer).read(*queue)).totals["normal", counts.SUCCEEDED] == 1


def silent(town: Town) -> Callable[[], None]:
    line = town.bench.producer.line
    line.lose(to_server=lambda subject: subject.startswith("$JS.API."))
    return line.lose


def full(town: Town) -> Callable[[], None]:
    town.server.full = ("galley.subscribe.",)
    return lambda: setattr(town.server, "full", ())


@pytest.mark.parametrize("trouble", [silent, full])
@in_virtual_time
async def test_subscriptions_of_code_are_declared_once_the_broker_takes_them(
    trouble: Callable[[Town], Callable[[], None]], caplog: pytest.LogCaptureFixture
) -> None:
    async with a_town() as town:
        await town.keep(IMAGES)
        over = trouble(town)
        rules = {"resize": HandlerRules(subscribes=(Subscribe("uploads"),))}
        declaring = town.bench.start(subscribe(town.bench.producer, town.images, rules))
        await eventually(lambda: said(caplog, "subscriptions not declared yet"), within=60)
        assert not declaring.done()
        over()
        await asyncio.wait_for(declaring, 60)
        subject = topology.code_subscriptions_subject("default", "images")
        assert town.server.streams[topology.topics_stream("default")].last(subject) is not None


@in_virtual_time
async def test_schedules_of_code_are_made_once_the_broker_answers_and_one_that_cannot_be_keeps_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_bench() as bench:
        bench.server.leaderless = True
        rules = {
            # A lane that the queue does not have.
            "wrong": replace(EVERY_HOUR, lane=Lane.CRITICAL), "right": EVERY_HOUR, "plain": HandlerRules(),
        }  # fmt: skip
        caplog.set_level(logging.INFO)
        declaring = bench.start(code_schedules.declare(bench.producer, bench.layout, rules))
        await eventually(lambda: said(caplog, "schedule not declared yet"), within=60)
        bench.server.leaderless = False
        await asyncio.wait_for(declaring, 120)
        assert said(caplog, "schedule not declared") == 1
        client = AsyncClient.over(bench.producer, "default")
        assert [one.name for one in await client.schedules.list("images")] == ["right"]
        found = stored.schedules_of(bench.producer, "default", "images")
        assert [kept.schedule.handler async for kept in found] == ["right"]


@in_virtual_time
async def test_schedules_that_code_no_longer_has_are_removed_once_the_broker_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_bench() as bench:
        await code_schedules.declare(bench.producer, bench.layout, {"first": EVERY_HOUR})
        client = AsyncClient.over(bench.producer, "default")
        bench.producer.line.lose(to_server=lambda subject: subject.startswith("$JS.API."))
        declaring = bench.start(code_schedules.declare(bench.producer, bench.layout, {}))
        await eventually(lambda: said(caplog, "schedules not declared yet"), within=60)
        bench.producer.line.lose()
        await asyncio.wait_for(declaring, 120)
        assert [one.name for one in await client.schedules.list("images")] == []


@in_virtual_time
async def test_a_schedule_of_code_that_is_refused_each_time_keeps_no_other_and_is_tried_ever_less(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_bench() as bench:
        bench.server.full = (topology.timer_subject("default", "images", "first"),)
        rules = {"first": EVERY_HOUR, "second": EVERY_HOUR}
        bench.start(code_schedules.declare(bench.producer, bench.layout, rules))
        client = AsyncClient.over(bench.producer, "default")

        async def declared() -> list[str]:
            return [one.name for one in await client.schedules.list("images")]

        await eventually(declared, within=4)
        assert await declared() == ["second"]
        await bench.pass_time(600)
        assert 5 < said(caplog, "schedule not declared yet") < 15
        bench.server.full = ()
        await bench.pass_time(61)
        assert await declared() == ["first", "second"]


@in_virtual_time
async def test_schedules_of_code_that_the_credentials_do_not_permit_are_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_bench() as bench:
        subject = topology.timer_subject("default", "images", "first")
        bench.producer.line.may_not = subject.__eq__
        declaring = code_schedules.declare(bench.producer, bench.layout, {"first": EVERY_HOUR})
        await asyncio.wait_for(declaring, 10)
        assert said(caplog, "schedules not declared") == 1


@in_virtual_time
async def test_objects_are_looked_through_again_after_a_look_that_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_bench() as bench:
        sweeper = Sweeper(bench.producer, Place("default", "images"), lambda: 60.0)
        bench.server.leaderless = True
        sweeping = bench.start(sweeper.run())
        await eventually(lambda: said(caplog, "objects not looked through") > 1, within=600)
        assert not sweeping.done()


@in_virtual_time
async def test_a_record_whose_payload_was_altered_is_used_as_it_is_stored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        worker.broker.payloads = payloads()
        address = an_address(of=bench.layout)
        bench.put(address, Record(State.DONE, 1, outcome=Outcome.SUCCEEDED, v=2, sealed="A" * 40))
        found = await worker.ledger.read(address)
        assert found is not None
        assert (found.record.outcome, said(caplog, "record not decrypted")) == (Outcome.SUCCEEDED, 1)


@in_virtual_time
async def test_a_delayed_task_that_is_too_large_for_the_later_stream_is_a_dead_letter() -> None:
    async with a_bench() as bench, planning(bench) as worker:
        worker.broker.nats._max_payload = 4096
        address = await submit_later(bench, input="x" * 5000)
        await eventually(lambda: bench.in_work == 0, within=30)
        assert bench.letters(address) == 1
        failure = bench.final(address).failure
        assert failure is not None
        assert failure.reason == "TooLarge"
