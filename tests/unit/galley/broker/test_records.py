"""Reading records over a server in memory: all of them, none too old, and no queue mistaken for a task."""

import pytest

from galley.broker import topology
from galley.broker.errors import BrokerRefused, BrokerUnreachable
from galley.broker.records import Records
from galley.broker.waiting import wait_until_done
from galley.errors import QueueNotFound
from galley.record import Outcome, Record, State
from tests.support.builders import a_queue, an_address
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import a_bench

DONE = Record(State.DONE, 1, outcome=Outcome.SUCCEEDED)


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 512, 700])
@in_virtual_time
async def test_a_listing_holds_every_record_once(count: int) -> None:
    async with a_bench() as bench:
        written = {an_address(of=bench.layout, id=f"t{number}") for number in range(count)}
        for address in written:
            bench.put(address, DONE)
        found = [address async for address, _ in Records(bench.producer).all_of("default", "images")]
        assert len(found) == count
        assert set(found) == written


@in_virtual_time
async def test_a_record_is_read_with_the_sequence_it_has() -> None:
    async with a_bench() as bench:
        address = an_address(of=bench.layout)
        records = Records(bench.producer)
        assert await records.read(address) is None
        bench.put(an_address(of=bench.layout), DONE)
        sequence = bench.put(address, DONE)
        stored = await records.read(address, at_least=sequence)
        assert stored is not None
        assert (stored.sequence, stored.record) == (sequence, DONE)


@pytest.mark.parametrize("times", [9, 100])
@in_virtual_time
async def test_an_answer_older_than_what_is_known_to_exist_is_none(times: int) -> None:
    async with a_bench() as bench:
        address = an_address(of=bench.layout)
        bench.put(address, Record(State.RUN, 1))
        subject = topology.record_subject(address)
        old = bench.server.streams[topology.records_stream("default", "images")].last(subject)
        assert old is not None
        sequence = bench.put(address, DONE)
        bench.server.stale[subject] = old, times
        if times > 10:
            with pytest.raises(BrokerUnreachable, match="stale"):
                await Records(bench.producer).read(address, at_least=sequence)
        else:
            stored = await Records(bench.producer).read(address, at_least=sequence)
            assert stored is not None
            assert stored.sequence == sequence


@in_virtual_time
async def test_where_there_are_no_records_a_read_says_so_and_a_look_up_names_the_queue() -> None:
    async with a_bench() as bench:
        stranger = an_address(namespace="elsewhere")
        with pytest.raises(BrokerRefused):
            await Records(bench.producer).read(stranger)
        with pytest.raises(QueueNotFound):
            await Records(bench.producer).look_up(stranger)


@in_virtual_time
async def test_records_without_a_leader_are_waited_for() -> None:
    async with a_bench() as bench:
        address = an_address(of=bench.layout)
        bench.put(address, DONE)
        name = topology.records_stream("default", "images")
        away = bench.server.streams.pop(name)
        looking = bench.start(Records(bench.producer).look_up(address))
        await bench.pass_time(2)
        assert not looking.done()
        bench.server.streams[name] = away
        stored = await looking
        assert stored is not None
        assert stored.record == DONE


# -- waiting


@in_virtual_time
async def test_a_waiter_hears_of_the_end_at_once() -> None:
    async with a_bench() as bench:
        address = an_address(of=bench.layout)
        waiting = bench.start(wait_until_done(bench.producer, address))
        await bench.pass_time(3)
        bench.put(address, Record(State.RUN, 1))
        await bench.pass_time(3)
        assert not waiting.done()
        bench.put(address, DONE)
        await bench.pass_time(0.05)
        assert waiting.done()
        assert waiting.result().record == DONE


@in_virtual_time
async def test_news_that_got_lost_keep_a_waiter_for_half_a_minute_at_most() -> None:
    async with a_bench() as bench:
        address = an_address(of=bench.layout)
        waiting = bench.start(wait_until_done(bench.producer, address))
        await bench.pass_time(1)
        bench.producer.line.lose(to_client=lambda subject: subject.startswith("galley.done."))
        bench.put(address, DONE)
        await bench.pass_time(31)
        assert waiting.done()


@in_virtual_time
async def test_a_waiter_looks_when_its_connection_is_back() -> None:
    async with a_bench() as bench:
        address = an_address(of=bench.layout)
        waiting = bench.start(wait_until_done(bench.producer, address))
        await bench.pass_time(1)
        bench.producer.line.cut()
        bench.put(address, DONE)
        await bench.pass_time(3)
        assert waiting.done()


@in_virtual_time
async def test_an_end_that_was_there_before_needs_no_news() -> None:
    async with a_bench() as bench:
        layout = a_queue()
        address = an_address(of=layout)
        bench.put(address, DONE)
        assert (await wait_until_done(bench.producer, address)).record == DONE
