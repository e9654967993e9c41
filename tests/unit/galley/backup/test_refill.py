"""Writing a backup's messages while streams that were just made have no leader yet."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from galley.broker import topology
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerUnreachable
from galley.broker.refill import Outgoing, Refilled, make_stream, refill, remove_stranded
from galley.broker.stream_config import work_definition
from galley.record import Record, State, encode
from tests.support.builders import a_queue, an_address
from tests.support.memory_nats import MemoryServer
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, a_bench

RECORDS = topology.records_stream("default", "images")


@asynccontextmanager
async def no_leader(server: MemoryServer, seconds: float) -> AsyncIterator[None]:
    """Have the API answer that it is unavailable for a while."""
    server.leaderless = True
    asyncio.get_running_loop().call_later(seconds, setattr, server, "leaderless", False)
    yield
    assert not server.leaderless


def a_record(of: str, origin: int = 5) -> Outgoing:
    subject = topology.record_subject(an_address(id=of))
    return Outgoing(RECORDS, subject, [], encode(Record(State.RUN, 1)), origin, unfinished=True)


async def refilled(bench: Bench, *messages: Outgoing, newest: bool = True) -> Refilled:
    into = Refilled()
    await refill(bench.producer, messages, newest=newest, into=into)
    return into


@in_virtual_time
async def test_a_stream_is_made_when_the_servers_have_a_leader_and_not_after_a_minute() -> None:
    async with a_bench() as bench:
        config = work_definition(a_queue("new"), 1)
        async with no_leader(bench.server, 20):
            await make_stream(bench.producer, config)
        assert await stream_info(bench.producer, config["name"]) is not None
        bench.server.leaderless = True
        with pytest.raises(BrokerUnreachable):
            await make_stream(bench.producer, config)


@in_virtual_time
async def test_only_records_of_tasks_without_a_message_are_removed_leader_or_not() -> None:
    async with a_bench() as bench:
        kept, stranded = await bench.submit(), a_record("stranded")
        into = await refilled(bench, a_record(kept.id), stranded)
        async with no_leader(bench.server, 20):
            assert await remove_stranded(bench.producer, into.unfinished) == 1
        records = bench.server.streams[RECORDS]
        assert records.last(topology.record_subject(kept)) is not None
        assert records.last(stranded.subject) is None


@in_virtual_time
async def test_a_newer_message_of_the_archive_takes_the_place_of_an_older_one_leader_or_not() -> None:
    async with a_bench() as bench:
        await refilled(bench, a_record("task", origin=5))
        async with no_leader(bench.server, 20):
            into = await refilled(bench, a_record("task", origin=6))
        assert (into.written, into.kept) == (1, 0)
        assert (await refilled(bench, a_record("task", origin=4))).kept == 1
        assert len(bench.server.streams[RECORDS].messages) == 1
