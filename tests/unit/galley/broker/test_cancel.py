"""Cancelling over a server in memory: the record decides, in whatever order the rest happens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import pytest

from galley.broker import topology
from galley.broker.cancel import Cancelled, cancel
from galley.broker.control import Answer, Request, Verb, answering
from galley.broker.errors import BrokerRefused, BrokerUnreachable
from galley.envelope import Flags
from galley.record import Claim, Outcome, Record, State
from galley.retry import RetryPolicy
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, a_bench

ABOUT: Final = Record(State.RUN, 0, handler="resize")
KEEP: Final = 7200


@asynccontextmanager
async def a_worker_that_runs_it(bench: Bench, seen: list[Verb]) -> AsyncIterator[None]:
    """Answer requests as a worker does that runs the task."""

    async def answer(verb: Verb, request: Request) -> Answer | None:
        seen.append(verb)
        stored = next(
            iter(bench.server.streams[topology.records_stream("default", "images")].messages.values())
        )
        assert b"cancelled" in stored.body, "the workers are told before the record says it"
        return Answer("w1", datetime.now(UTC))

    async with answering(bench.producer, "default", "images", answer):
        yield


@in_virtual_time
async def test_a_waiting_task_is_cancelled_in_its_record_before_its_messages_go() -> None:
    async with a_bench() as bench:
        address = await bench.submit()
        bench.mark()
        assert await cancel(bench.producer, address, ABOUT, KEEP) is Cancelled.BEFORE_START
        assert bench.writes() == ["result", "count", "purged"]
        assert bench.in_work == 0
        final = bench.final(address)
        assert (final.outcome, final.handler) == (Outcome.CANCELLED, "resize")
        assert bench.seen("stored", "result")[0].headers[topology.TTL] == str(KEEP)


@in_virtual_time
async def test_a_running_task_is_cancelled_in_its_record_before_its_worker_is_told() -> None:
    async with a_bench() as bench:
        address = await bench.submit()
        heard: list[Verb] = []
        async with a_worker_that_runs_it(bench, heard):
            assert await cancel(bench.producer, address, ABOUT, KEEP) is Cancelled.RUNNING
        assert heard == [Verb.CANCEL]


@pytest.mark.parametrize("lost", ["write", "answer"])
@in_virtual_time
async def test_a_cancel_without_an_answer_is_not_reported_as_done_and_takes_nothing_away(lost: str) -> None:
    async with a_bench() as bench:
        address = await bench.submit()
        bench.mark()
        prefix = bench.producer.pipeline._prefix
        if lost == "write":
            bench.producer.line.lose(to_server=lambda subject: subject.startswith("galley.result."))
        else:
            bench.producer.line.lose(to_client=lambda subject: subject.startswith(prefix))
        with pytest.raises(BrokerUnreachable):
            await cancel(bench.producer, address, ABOUT, KEEP)
        assert "purged" not in bench.writes()
        assert bench.in_work == 1
        bench.producer.line.lose()
        again = await cancel(bench.producer, address, ABOUT, KEEP)
        assert again is (Cancelled.BEFORE_START if lost == "write" else Cancelled.TOO_LATE)
        assert bench.final(address).outcome is Outcome.CANCELLED
        assert bench.in_work == 0, "or a worker would begin it"


@in_virtual_time
async def test_a_cancel_whose_canceller_died_after_the_record_is_completed_by_the_next_one() -> None:
    async with a_bench() as bench:
        address = await bench.submit()
        bench.put(address, Record(State.DONE, 1, outcome=Outcome.CANCELLED))
        heard: list[Verb] = []
        async with a_worker_that_runs_it(bench, heard):
            assert await cancel(bench.producer, address, ABOUT, KEEP) is Cancelled.TOO_LATE
        assert heard == [Verb.CANCEL]
        assert bench.in_work == 0


@in_virtual_time
async def test_a_cancel_that_the_broker_refuses_is_not_reported_as_done() -> None:
    async with a_bench() as bench:
        address = await bench.submit()
        bench.server.full = ("galley.result.",)
        with pytest.raises(BrokerRefused):
            await cancel(bench.producer, address, ABOUT, KEEP)
        assert bench.in_work == 1


@pytest.mark.parametrize("outcome", list(Outcome))
@in_virtual_time
async def test_a_task_that_has_ended_keeps_its_outcome(outcome: Outcome) -> None:
    async with a_bench() as bench:
        address = await bench.submit()
        sequence = bench.put(address, Record(State.DONE, 1, outcome=outcome))
        assert await cancel(bench.producer, address, ABOUT, KEEP) is Cancelled.TOO_LATE
        stored = bench.record(address)
        assert stored is not None
        assert (stored.sequence, stored.record.outcome) == (sequence, outcome)


@pytest.mark.parametrize("state", [State.RUN, State.RETRY])
@in_virtual_time
async def test_a_cancel_that_races_a_claim_is_written_in_the_place_of_it(state: State) -> None:
    """The claim comes between the look and the write, and however often that happens."""
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit(chosen_id=True)
        held = bench.held(await bench.take(worker))
        stale = topology.record_subject(address)
        first = bench.put(address, Record(state, 1, claim=Claim("GW_default_images", 1, "h0")))
        old = bench.server.streams[topology.records_stream("default", "images")].last(stale)
        assert old is not None
        assert old.sequence == first
        if state is State.RUN:
            assert await worker.claimant.claim(held, RetryPolicy())
        else:
            bench.put(address, Record(State.RETRY, 2, due_at=bench.server.now()))
        bench.server.stale[stale] = old, 3
        cancelled = await cancel(bench.producer, address, ABOUT, KEEP)
        assert cancelled in (Cancelled.BEFORE_START, Cancelled.RUNNING)
        final = bench.final(address)
        assert (final.outcome, final.claim, final.due_at, final.handed_back) == (
            Outcome.CANCELLED, None, None, False)  # fmt: skip


@in_virtual_time
async def test_a_task_that_waits_for_a_retry_loses_its_schedule() -> None:
    async with a_bench() as bench:
        address = await bench.submit()
        await bench.schedule(address, Flags(2, 1))
        assert bench.scheduled(address) == 1
        await cancel(bench.producer, address, ABOUT, KEEP)
        assert bench.scheduled(address) == 0
        await bench.pass_time(60)
        assert not bench.seen("stored", "due")
