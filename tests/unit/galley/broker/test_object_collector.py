"""The one who always runs deletes objects of queues without workers, and costs little."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from galley.broker import topology
from galley.broker.ensure import ensure
from galley.broker.object_collector import LONGEST_REST, LOOK_SECONDS, ObjectCollector
from galley.broker.object_sweep import Sweep, Swept
from galley.broker.objects import Place
from galley.record import Outcome, Record, State
from galley_worker.objects import Sweeper
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley.broker.test_objects import place, stored, stream_of
from tests.unit.galley_worker.bench import Bench, a_bench

HOUR = 3600.0


@asynccontextmanager
async def collected(bench: Bench, install: str = "", ours: str = "default") -> AsyncIterator[ObjectCollector]:
    """Have objects collected for the time of the block."""
    collector = ObjectCollector(
        bench.producer, install or bench.layout.install, lambda namespace: namespace == ours,
        lambda: LOOK_SECONDS, now=bench.server.now,
    )  # fmt: skip
    running = bench.start(collector.run())
    yield collector
    running.cancel()


async def unused(bench: Bench, data: bytes = b"data") -> None:
    """Store an object whose task has ended."""
    address, _ = await stored(bench, data)
    bench.put(address, Record(State.DONE, 1, outcome=Outcome.SUCCEEDED))


def looks(bench: Bench) -> int:
    """Return how often the objects of the queue were looked through."""
    return len([each for each in bench.seen("stored", "object") if each.subject.endswith("sweep")])


@in_virtual_time
async def test_objects_of_a_queue_without_workers_go() -> None:
    async with a_bench() as bench:
        await unused(bench)
        kept, reference = await stored(bench, b"in use")
        await bench.submit(kept)
        async with collected(bench):
            await bench.pass_time(4 * LOOK_SECONDS)
        left = {subject.split(".")[5] for subject in stream_of(bench).subjects("galley.object.*.*.part.>")}
        assert left == {reference.digest}


@pytest.mark.parametrize("of", ["another installation", "another namespace", "a restore"])
@in_virtual_time
async def test_objects_of_others_and_of_a_restore_under_way_stay(of: str) -> None:
    async with a_bench() as bench:
        await unused(bench)
        if of == "a restore":
            stream_of(bench).definition["metadata"][topology.RESTORING_KEY] = "an archive"
        install, ours = ("other" if "install" in of else ""), ("other" if "namespace" in of else "default")
        before = len(stream_of(bench).messages)
        async with collected(bench, install, ours):
            await bench.pass_time(HOUR)
        assert len(stream_of(bench).messages) == before


@in_virtual_time
async def test_a_queue_of_which_nothing_can_go_is_looked_at_ever_less_often() -> None:
    async with a_bench() as bench:
        address, _ = await stored(bench)
        await bench.submit(address)
        async with collected(bench):
            await bench.pass_time(10 * HOUR)
        assert 10 < looks(bench) < 10 * HOUR / LOOK_SECONDS / LONGEST_REST + 6


@in_virtual_time
async def test_an_empty_queue_costs_its_place_in_a_listing_alone() -> None:
    async with a_bench() as bench:
        async with collected(bench):
            await bench.pass_time(HOUR)
        assert looks(bench) == 0


@in_virtual_time
async def test_workers_that_look_keep_it_from_looking() -> None:
    async with a_bench() as bench:
        await unused(bench)
        subject = topology.sweep_subject(*place(bench))
        async with collected(bench) as collector:
            stream_of(bench).store(subject, {}, b"", bench.server.now())
            assert await collector.once() == 0
        assert looks(bench) == 0


@in_virtual_time
async def test_a_queue_that_cannot_be_looked_at_keeps_no_other_from_it() -> None:
    async with a_bench() as bench:
        other = replace(bench.layout, queue="texts")
        await ensure(bench.producer, other)
        there = topology.object_stream(*Place("default", "texts"))
        await unused(bench)
        bench.server.streams[there].store(
            topology.leaving_subject("default", "texts", "a" * 64), {}, b"", bench.server.now()
        )
        bench.producer.line.lose(to_server=lambda subject: "GO_default_images" in subject)
        async with collected(bench):
            await bench.pass_time(3 * LOOK_SECONDS)
        assert "leaving" not in str(bench.server.streams[there].subjects("galley.object.>"))
        bench.producer.line.lose(to_server=lambda subject: subject.startswith("$JS.API.STREAM.LIST"))
        async with collected(bench):
            await bench.pass_time(3 * LOOK_SECONDS)
        bench.producer.line.lose()
        async with collected(bench):
            await bench.pass_time(4 * LOOK_SECONDS)
        assert not list(stream_of(bench).subjects("galley.object.*.*.part.>"))


@in_virtual_time
async def test_what_no_one_expected_of_one_queue_costs_its_turn_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_bench() as bench:
        await unused(bench)
        run, failures = Sweep.run, [ZeroDivisionError("one"), ZeroDivisionError("two")]

        async def failing(sweep: Sweep) -> Swept:
            if failures:
                raise failures.pop()
            return await run(sweep)

        monkeypatch.setattr(Sweep, "run", failing)
        looking = bench.start(Sweeper(bench.producer, place(bench), lambda: 1.0).run())
        await bench.pass_time(2)
        assert (len(failures), looking.done()) == (1, False)
        looking.cancel()
        async with collected(bench):
            await bench.pass_time(4 * LOOK_SECONDS)
        assert not failures
        assert not stream_of(bench).subjects("galley.object.*.*.part.>")
        assert caplog.text.count("ZeroDivisionError") == 2
