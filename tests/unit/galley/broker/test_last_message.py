"""The last message of a subject over a server in memory: there, absent, elsewhere, or not known."""

import pytest

from galley.broker import topology
from galley.broker.errors import BrokerRefused
from galley.broker.last_message import last_message
from galley.broker.notes import checkpoint_of, progress_of
from galley.broker.pipeline import NO_RESPONDERS
from tests.support.builders import an_address
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, a_bench


def stored(bench: Bench, subject: str, body: bytes) -> str:
    name = topology.dead_stream(bench.layout.namespace, bench.layout.queue)
    bench.server.streams[name].store(subject, {}, body, bench.server.now())
    return name


@in_virtual_time
async def test_the_last_message_has_its_sequence_and_no_message_is_none() -> None:
    async with a_bench() as bench:
        subject = topology.dead_subject(an_address(of=bench.layout))
        stored(bench, subject, b"first")
        name = stored(bench, subject, b"second")
        found = await last_message(bench.producer, name, subject)
        assert found is not None
        assert (found.body, found.sequence) == (b"second", bench.server.streams[name].last_sequence)
        other = topology.dead_subject(an_address(of=bench.layout))
        assert await last_message(bench.producer, name, other) is None


@in_virtual_time
async def test_the_fallback_is_asked_only_where_there_is_no_such_stream() -> None:
    async with a_bench() as bench:
        subject = topology.dead_subject(an_address(of=bench.layout))
        name = stored(bench, subject, b"there")
        found = await last_message(bench.producer, "NO_SUCH", subject, name)
        assert found is not None
        assert found.body == b"there"
        records = topology.records_stream(bench.layout.namespace, bench.layout.queue)
        assert await last_message(bench.producer, records, subject, name) is None


@in_virtual_time
async def test_no_stream_and_an_error_are_refusals_and_not_an_absent_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_bench() as bench:
        with pytest.raises(BrokerRefused) as refused:
            await last_message(bench.producer, "NO_SUCH", "galley.x", "NONE_EITHER")
        assert refused.value.code == NO_RESPONDERS
        monkeypatch.setattr(
            bench.server, "_direct_get", lambda client, _n, reply, _b: client.deliver_status(reply, "408", "")
        )
        with pytest.raises(BrokerRefused) as refused:
            await last_message(bench.producer, "ANY", "galley.x")
        assert refused.value.code == 408


@in_virtual_time
async def test_a_checkpoint_that_cannot_be_read_is_not_one_that_is_not_there() -> None:
    async with a_bench() as bench:
        address = an_address(of=bench.layout)
        assert await checkpoint_of(bench.producer, address) is None
        del bench.server.streams[topology.notes_stream(bench.layout.namespace, bench.layout.queue)]
        assert await progress_of(bench.producer, address) is None
        with pytest.raises(BrokerRefused):
            await checkpoint_of(bench.producer, address)
