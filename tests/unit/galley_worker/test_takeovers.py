"""Asking the process that made a claim, over a server in memory: who runs it, who is gone, who is away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import pytest
from msgspec.structs import replace

from galley.broker import notes, topology
from galley.broker.control import Answer, Question, answering_as
from galley.broker.pull import Delivery
from galley.history import EndedBy
from galley.note import WorkerEnd
from galley.record import Claim, Record, State
from galley_worker.claim import Holder
from galley_worker.claimant import LOOK_AGAIN_SECONDS, RECONNECT_SECONDS, Claimant, Holders
from tests.support.memory_nats import MemoryBroker
from tests.support.virtual_time import in_virtual_time, virtual_loop
from tests.unit.galley_worker.bench import POLICY, Bench, Worker, a_bench

LEASE: Final = 5.0


@dataclass
class Pair:
    """A worker that has claimed a message, and another one the message comes to."""

    bench: Bench
    holder: MemoryBroker
    """The connection of the first."""
    second: Worker
    delivery: Delivery
    asking: Claimant
    running: bool = True
    """Whether the first still runs the attempt."""

    def answer(self, _question: Question) -> Answer:
        return Answer("w0", self.bench.server.now() if self.running else None)

    async def claim(self) -> tuple[bool, int, int]:
        """Have the second claim; returns whether it may run, and crashes and preemptions counted."""
        held = self.bench.held(self.delivery)
        began = await self.asking.claim(held, POLICY)
        return began, held.history.crashes, held.history.preemptions


@asynccontextmanager
async def a_pair(*, settled: bool = True) -> AsyncIterator[Pair]:
    """A pair, whose connections are old enough for silence to mean something, if `settled`."""
    async with a_bench() as bench, bench.worker("w1", "h1") as second:
        await bench.submit(chosen_id=True)
        delivery = (await bench.take(second))._replace(delivered=2)
        claim = Claim(delivery.source.stream, delivery.sequence, "h0")
        bench.put(delivery.address, Record(State.RUN, 1, worker="w0", handler="resize", claim=claim))
        bench.mark()
        holders = Holders(second.broker, virtual_loop().time, LEASE)
        asking = Claimant(
            second.ledger, second.settler, second.who, bench.server.now, holders.ask, second.solitude
        )
        async with MemoryBroker(bench.server, "w0") as first:
            pair = Pair(bench, first, second, delivery, asking)
            async with answering_as(first, "default", "images", "h0", pair.answer):
                await bench.pass_time(max(LEASE, RECONNECT_SECONDS) + 1 if settled else 0.1)
                yield pair


@in_virtual_time
async def test_what_another_runs_is_left_to_it_with_its_message_and_its_record() -> None:
    async with a_pair() as pair:
        before = pair.bench.record(pair.delivery.address)
        assert await pair.claim() == (False, 0, 0)
        await pair.second.broker.nats.flush()
        assert pair.bench.writes() == ["refused result"]
        assert pair.bench.record(pair.delivery.address) == before


@in_virtual_time
async def test_what_another_lives_and_does_not_run_is_taken_over_at_no_cost() -> None:
    async with a_pair() as pair:
        pair.running = False
        assert await pair.claim() == (True, 0, 1)


@in_virtual_time
async def test_who_has_no_connection_is_gone_and_that_is_a_crash() -> None:
    async with a_pair() as pair:
        await pair.holder.nats.close()
        assert await pair.claim() == (True, 1, 0)
        stored = pair.bench.record(pair.delivery.address)
        assert stored is not None
        assert stored.record.history.attempts[0].ended_by is EndedBy.CRASH


@pytest.mark.parametrize("earlier", [False, True])
@in_virtual_time
async def test_how_the_worker_ended_is_in_the_history_unless_it_was_before_the_attempt(
    earlier: bool,
) -> None:
    async with a_pair() as pair:
        began = pair.bench.server.now()
        record = pair.bench.record(pair.delivery.address)
        assert record is not None
        pair.bench.put(pair.delivery.address, replace(record.record, started_at=began))
        at = began - timedelta(minutes=1) if earlier else began + timedelta(seconds=1)
        said = "worker w0 was killed for want of memory (OOMKilled)"
        await notes.put_end(pair.second.broker, "default", "images", "w0", WorkerEnd(at, said))
        await pair.holder.nats.close()
        assert await pair.claim() == (True, 1, 0)
        stored = pair.bench.record(pair.delivery.address)
        assert stored is not None
        assert ("OOMKilled" in stored.record.history.attempts[0].message) is not earlier


@in_virtual_time
async def test_an_end_that_cannot_be_read_or_had_decides_nothing() -> None:
    async with a_pair() as pair:
        broker, address = pair.second.broker, pair.delivery.address
        assert await pair.second.ledger.end_of(address, "w0") is None
        subject = topology.worker_end_subject("default", "images", "w0")
        await (await broker.pipeline.send(subject, b"{}"))
        assert await pair.second.ledger.end_of(address, "w0") is None
        await broker.nats.close()
        assert await pair.second.ledger.end_of(address, "w0") is None


@in_virtual_time
async def test_who_is_connected_and_silent_is_no_crash() -> None:
    async with a_pair() as pair:
        pair.holder.line.lose(to_client=lambda _subject: True)
        assert await pair.claim() == (True, 0, 1)


@pytest.mark.parametrize("gone", [False, True])
@in_virtual_time
async def test_on_a_young_connection_no_answer_proves_nothing_and_the_message_comes_again_soon(
    gone: bool,
) -> None:
    async with a_pair(settled=False) as pair:
        if gone:
            await pair.holder.nats.close()
        else:
            pair.holder.line.reconnect_seconds = 4
            pair.holder.line.cut()
        assert await pair.claim() == (False, 0, 0)
        await pair.second.broker.nats.flush()
        assert pair.bench.writes() == ["refused result", "nak"]
        began = virtual_loop().time()
        again = await pair.bench.take(pair.second)
        assert virtual_loop().time() - began <= LOOK_AGAIN_SECONDS + 0.1
        pair.delivery = again
        await pair.bench.pass_time(max(LEASE, RECONNECT_SECONDS))
        assert await pair.claim() == ((True, 1, 0) if gone else (False, 0, 0))


@in_virtual_time
async def test_after_a_reconnection_of_one_s_own_the_others_have_time_to_come_back() -> None:
    async with a_pair() as pair:
        pair.second.broker.line.cut()
        pair.holder.line.reconnect_seconds = 4
        pair.holder.line.cut()
        await pair.bench.pass_time(1.5)
        assert await pair.claim() == (False, 0, 0)


@in_virtual_time
async def test_who_answers_late_is_asked_again_before_anything_is_decided() -> None:
    async with a_pair(settled=False) as pair:
        pair.holder.line.reconnect_seconds = 1
        pair.holder.line.cut()
        assert await pair.claim() == (False, 0, 0)
        await pair.second.broker.nats.flush()
        assert pair.bench.writes() == ["refused result"], "it answered the second time"


@in_virtual_time
async def test_what_is_known_of_a_holder_has_a_name() -> None:
    async with a_pair() as pair:
        holders = Holders(pair.second.broker, virtual_loop().time, LEASE)
        await pair.bench.pass_time(6)
        claim = Claim(pair.delivery.source.stream, pair.delivery.sequence, "h0")
        assert await holders.ask(pair.delivery.address, claim) is Holder.RUNNING
        pair.running = False
        assert await holders.ask(pair.delivery.address, claim) is Holder.IDLE
        unknown = Claim(claim.stream, claim.sequence, "h9")
        assert await holders.ask(pair.delivery.address, unknown) is Holder.GONE


# -- what was said and may have been lost


@pytest.mark.parametrize("word", ["ack", "nak"])
@in_virtual_time
async def test_what_was_said_just_before_a_connection_broke_is_said_again(word: str) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        await bench.submit()
        delivery = await bench.take(worker)
        worker.broker.line.lose(to_server=lambda subject: subject.startswith("$JS.ACK."))
        say = worker.ledger.acknowledge if word == "ack" else worker.ledger.give_back
        say(delivery.reply)
        await bench.pass_time(0.1)
        worker.broker.line.lose()
        worker.broker.line.cut()
        await bench.pass_time(3)
        assert word in bench.writes()


@in_virtual_time
async def test_what_is_said_without_a_connection_is_said_on_the_next_one() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        await bench.submit()
        delivery = await bench.take(worker)
        worker.broker.line.reconnect_seconds = 20
        worker.broker.line.cut()
        worker.ledger.acknowledge(delivery.reply)
        await bench.pass_time(21)
        assert bench.in_work == 0
