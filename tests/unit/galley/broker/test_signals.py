"""Backlogs of a server that counts a task a moment after it has confirmed it."""

from datetime import timedelta

from galley.backlog import QueueBacklog, Unknown
from galley.broker import topology
from galley.broker.later import Door, send_later
from galley.broker.signals import SignalReader
from galley.broker.stream_listing import LISTING_SECONDS
from galley.envelope import Flags, encode
from tests.support.builders import an_address, an_envelope
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import a_bench


@in_virtual_time
async def test_a_task_that_was_not_counted_when_its_stream_changed_is_counted_at_the_next_sweep() -> None:
    async with a_bench() as bench:
        reader = SignalReader(bench.producer)
        assert await waiting(bench.layout.namespace, bench.layout.queue, reader) == 0
        await bench.submit()
        bench.server.uncounted = 1
        await bench.pass_time(LISTING_SECONDS)
        assert await waiting(bench.layout.namespace, bench.layout.queue, reader) == 0
        bench.server.uncounted = 0
        await bench.pass_time(LISTING_SECONDS)
        assert await waiting(bench.layout.namespace, bench.layout.queue, reader) == 1


@in_virtual_time
async def test_what_tasks_wait_for_under_their_keys_is_told() -> None:
    async with a_bench() as bench:
        name = bench.layout.namespace, bench.layout.queue
        work = bench.server.streams[topology.work_stream(*name)]
        work.definition["metadata"][topology.LIMITED_KEY] = "permit or rate"
        reader = SignalReader(bench.producer)
        for key in ("a", "a", "b"):
            await bench.submit(key=key)
        await bench.submit()
        await bench.pass_time(LISTING_SECONDS)
        backlog = await reader.read(*name)
        assert isinstance(backlog, QueueBacklog)
        assert (backlog.keyed, backlog.keyed_for) == (3, "permit or rate")


@in_virtual_time
async def test_tasks_under_keys_that_cannot_be_looked_for_are_unknown_and_not_none() -> None:
    async with a_bench() as bench:
        name = bench.layout.namespace, bench.layout.queue
        reader = SignalReader(bench.producer)
        await bench.submit(key="a")
        bench.server.consumers[topology.work_stream(*name), "normal"].pending.clear()
        await bench.pass_time(LISTING_SECONDS)
        asked = f"$JS.API.DIRECT.GET.{topology.work_stream(*name)}"
        bench.producer.line.lose(to_server=lambda subject: subject == asked)
        backlog = await reader.read(*name)
        assert isinstance(backlog, Unknown)
        assert "what waits under keys is not known" in backlog.why
        assert await reader.read(*name) == backlog, "since the same moment"
        bench.producer.line.lose()
        assert isinstance(await reader.read(*name), QueueBacklog)


@in_virtual_time
async def test_times_that_cannot_be_read_are_read_at_a_later_look() -> None:
    async with a_bench() as bench:
        name = bench.layout.namespace, bench.layout.queue
        reader = SignalReader(bench.producer)
        await bench.submit()
        due = bench.server.now() + timedelta(hours=1)
        body = encode(an_envelope())
        await (await send_later(bench.producer, an_address(of=bench.layout), body, Flags(), due, Door.FIRST))
        await bench.pass_time(LISTING_SECONDS)
        bench.producer.line.lose(to_server=lambda subject: "$JS.API.DIRECT.GET" in subject)
        backlog = await reader.read(*name)
        assert isinstance(backlog, QueueBacklog)
        assert (backlog.waiting, backlog.oldest_at) == (1, None)
        bench.producer.line.lose()
        await bench.pass_time(60)
        backlog = await reader.read(*name)
        assert isinstance(backlog, QueueBacklog)
        assert backlog.oldest_at is not None


async def waiting(namespace: str, queue: str, reader: SignalReader) -> int:
    backlog = await reader.read(namespace, queue)
    assert isinstance(backlog, QueueBacklog), backlog
    return backlog.waiting


@in_virtual_time
async def test_tasks_that_wait_under_keys_count_unless_their_queue_limits_them() -> None:
    for limited, expected in ((False, 6), (True, 1)):
        async with a_bench() as bench:
            work = bench.server.streams[topology.work_stream(bench.layout.namespace, bench.layout.queue)]
            if limited:
                work.definition["metadata"][topology.LIMITED_KEY] = "keys"
            reader = SignalReader(bench.producer)
            for _ in range(5):
                await bench.submit(key="customer")
            await bench.pass_time(LISTING_SECONDS)
            # The turn of the key is in the lane, too: without it no worker would come for the first task.
            assert await waiting(bench.layout.namespace, bench.layout.queue, reader) == expected
