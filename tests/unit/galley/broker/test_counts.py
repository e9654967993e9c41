"""Handing counts over on a line that loses messages and answers: what is stored was counted, and once."""

import asyncio
import random
from collections import Counter

import pytest

from galley.broker import counts, topology
from galley.broker.cancel import cancel
from galley.broker.counts import Counted, CountReader, Name, Outbox, Times
from galley.broker.stream_config import COUNT_REPEAT_SECONDS
from galley.record import Record, State
from tests.support.builders import a_queue, an_address
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, a_bench

QUEUE = a_queue().namespace, a_queue().queue
ENDED: Name = ("normal", counts.SUCCEEDED)
FAILED: Name = ("low", counts.FAILED)


def outbox_of(bench: Bench, token: str = "w1") -> Outbox:
    return Outbox(bench.producer, QUEUE, token, asyncio.get_running_loop().time)


def nothing(_subject: str) -> bool:
    return False


def anything(_subject: str) -> bool:
    return True


async def stored(bench: Bench) -> dict[Name, int]:
    return (await CountReader(bench.producer).read(*QUEUE)).totals


@in_virtual_time
async def test_only_what_is_new_is_handed_over() -> None:
    async with a_bench() as bench:
        outbox = outbox_of(bench)
        assert await outbox.hand_over(Counter({ENDED: 3}))
        assert await outbox.hand_over(Counter({ENDED: 3}))
        assert len(bench.seen("stored", "count")) == 1
        assert await outbox.hand_over(Counter({ENDED: 10}))
        assert await stored(bench) == {ENDED: 10}


@in_virtual_time
async def test_the_counts_of_all_processes_that_ever_were_are_one_sum() -> None:
    async with a_bench() as bench:
        for number in range(3):
            await outbox_of(bench, f"w{number}").hand_over(Counter({ENDED: 7}))
        assert await stored(bench) == {ENDED: 21}


@pytest.mark.parametrize("seed", range(8))
@in_virtual_time
async def test_whatever_gets_lost_nothing_is_counted_twice_and_all_of_it_in_the_end(seed: int) -> None:
    chance = random.Random(seed)
    async with a_bench() as bench:
        outbox, totals = outbox_of(bench), Counter[Name]()
        for _ in range(10):
            totals[ENDED] += chance.randrange(5)
            totals["high", counts.FAILED] += chance.randrange(2)
            bench.producer.line.lose(*(chance.choice((nothing, anything)) for _ in range(2)))
            await outbox.hand_over(totals)
            bench.producer.line.lose()
            assert all(number <= totals[name] for name, number in (await stored(bench)).items())
        assert await outbox.hand_over(totals)
        assert await stored(bench) == {name: number for name, number in totals.items() if number}
        assert outbox.given_up == 0


@in_virtual_time
async def test_what_was_not_answered_for_longer_than_ids_are_known_is_given_up() -> None:
    async with a_bench() as bench:
        outbox = outbox_of(bench)
        bench.producer.line.lose(to_client=anything)
        assert not await outbox.hand_over(Counter({ENDED: 3}))
        await bench.pass_time(COUNT_REPEAT_SECONDS)
        bench.producer.line.lose()
        assert await outbox.hand_over(Counter({ENDED: 5}))
        assert await stored(bench) == {ENDED: 5}, "the first had arrived"
        assert outbox.given_up == 1


@in_virtual_time
async def test_counts_wait_for_their_stream() -> None:
    async with a_bench() as bench:
        outbox = outbox_of(bench)
        stream = bench.server.streams.pop(topology.counts_stream(*QUEUE))
        assert not await outbox.hand_over(Counter({ENDED: 3}))
        bench.server.streams[stream.name] = stream
        await outbox.hand_over(Counter({ENDED: 4}))
        assert await stored(bench) == {ENDED: 4}


@in_virtual_time
async def test_what_is_no_count_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    async with a_bench() as bench:
        await outbox_of(bench).hand_over(Counter({ENDED: 3}))
        stream = bench.server.streams[topology.counts_stream(*QUEUE)]
        del stream.definition["allow_msg_counter"]
        for body in (b"no json", b'{"val":"many"}'):
            stream.store(topology.count_subject(*QUEUE, *FAILED), {}, body, bench.server.now())
            assert await stored(bench) == {ENDED: 3}
        assert "counts not readable" in caplog.text


@in_virtual_time
async def test_no_name_a_worker_makes_up_becomes_a_count(caplog: pytest.LogCaptureFixture) -> None:
    """Each would be a series of Prometheus; `wait-\u00b2` ended the page of all namespaces."""
    async with a_bench() as bench:
        stream, reader = bench.server.streams[topology.counts_stream(*QUEUE)], CountReader(bench.producer)
        three = {topology.INCREMENT: "+3"}
        good: list[Name] = [ENDED, ("low", "wait-11"), ("high", "attempt-ms"), ("events", "missed_orders")]
        odd = [
            ("low", "x"), ("nowhere", counts.FAILED), ("low", "wait-\u00b2"), ("low", "wait-12"),
            ("low", "wait--1"), ("low", "missed_orders"), ("events", counts.FAILED), ("events", "missed_A"),
            ("events", "missed_"),
        ]  # fmt: skip
        for name in good + odd:
            stream.store(topology.count_subject(*QUEUE, *name), three, b"", bench.server.now())
        found = await reader.read(*QUEUE)
        assert found.totals == dict.fromkeys(good, 3)
        assert found.times(counts.WAIT)["low"].counts[11] == 3
        assert [(each.levelname, each.__dict__["count"]) for each in caplog.records] == [
            ("WARNING", len(odd))
        ]
        for number in range(5000):
            subject = topology.count_subject(*QUEUE, "events", f"missed_t{number}")
            stream.store(subject, three, b"", bench.server.now())
        assert len((await reader.read(*QUEUE)).totals) == 4096


@in_virtual_time
async def test_a_reader_begins_again_with_a_stream_that_was_made_again() -> None:
    async with a_bench() as bench:
        reader = CountReader(bench.producer)
        await outbox_of(bench).hand_over(Counter({ENDED: 3}))
        assert (await reader.read(*QUEUE)).totals == {ENDED: 3}
        bench.server.streams.clear()
        bench.server.create(bench.layout)
        await outbox_of(bench, "w2").hand_over(Counter({ENDED: 1}))
        reader.forget(*QUEUE)
        assert (await reader.read(*QUEUE)).totals == {ENDED: 1}


@in_virtual_time
async def test_a_task_cancelled_before_it_ran_is_counted() -> None:
    async with a_bench() as bench:
        address = await bench.submit(an_address(of=bench.layout))
        await cancel(bench.producer, address, Record(State.DONE, 1), 60)
        await cancel(bench.producer, address, Record(State.DONE, 1), 60)
        assert await stored(bench) == {("normal", counts.CANCELLED): 1}


def test_times_come_back_as_they_were_counted() -> None:
    times = Times()
    for seconds in (0.001, 0.2, 0.2, 9000.0):
        times.add(seconds)
    counted = Counted({("high", name): count for name, count in times.named(counts.WAIT)})
    again = counted.times(counts.WAIT)["high"]
    assert again.counts == times.counts
    assert again.seconds == pytest.approx(times.seconds, abs=0.001)
    assert not counted.times(counts.ATTEMPT)
