"""Store first, then acknowledge: what a worker writes, in which order, and what it waits for.

A worker that dies between two writes must leave the message, never a hole. The real Ledger, Settler and
Claimant write to a server in memory, which notes the order.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

import pytest
from msgspec import Raw

from galley.address import Kind
from galley.broker import topology
from galley.envelope import Flags
from galley.record import Claim, Failure, Outcome, Record, State
from galley_worker.verdict import Bury, Cancel, HandBack, RetryAt, Succeed, Verdict
from tests.support.builders import an_address
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import KEEP_SECONDS, Bench, Worker, a_bench
from tests.unit.galley_worker.deliveries import a_past

FAILURE: Final = Failure("ValueError", "no")


@in_virtual_time
async def test_a_success_is_stored_and_then_acknowledged() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit()
        held = bench.held(await bench.take(worker))
        bench.mark()
        assert await worker.settler.settle(held, Succeed(Raw(b"5")))
        await worker.broker.nats.flush()
        assert bench.writes() == ["result", "ack"]
        final = bench.final(address)
        assert (final.outcome, bytes(final.result), final.worker) == (Outcome.SUCCEEDED, b"5", "w1")
        assert bench.in_work == 0


@in_virtual_time
async def test_a_dead_task_has_its_record_then_its_letter_and_then_is_acknowledged() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit()
        held = bench.held(await bench.take(worker))
        bench.mark()
        assert await worker.settler.settle(held, Bury(FAILURE, a_past(errors=3)))
        await worker.broker.nats.flush()
        assert bench.writes() == ["result", "dead", "ack"]
        assert bench.final(address).outcome is Outcome.FAILED
        assert bench.final(address).history == a_past(errors=3)


@in_virtual_time
async def test_a_retry_has_its_record_then_its_schedule_and_then_is_acknowledged() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit()
        held = bench.held(await bench.take(worker))
        bench.mark()
        due = bench.server.now() + timedelta(seconds=60)
        assert await worker.settler.settle(held, RetryAt(due, FAILURE, a_past(errors=1)))
        await worker.broker.nats.flush()
        assert bench.writes() == ["result", "again", "ack"]
        stored = bench.record(address)
        assert stored is not None
        assert (stored.record.state, stored.record.attempt, stored.record.due_at) == (State.RETRY, 2, due)
        (schedule,) = bench.seen("stored", "again")
        assert Flags.decode(schedule.headers[topology.FLAGS_HEADER]) == Flags(2, stored.sequence)


@in_virtual_time
async def test_a_cancelled_attempt_is_recorded_and_then_acknowledged() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit()
        held = bench.held(await bench.take(worker))
        bench.mark()
        assert await worker.settler.settle(held, Cancel())
        await worker.broker.nats.flush()
        assert bench.writes() == ["result", "ack"]
        assert bench.final(address).outcome is Outcome.CANCELLED


@in_virtual_time
async def test_a_claimed_attempt_is_handed_back_in_the_record_before_the_message_goes_back() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit(chosen_id=True)
        held = await bench.claimed(worker, await bench.take(worker))
        bench.mark()
        assert await worker.settler.settle(held, HandBack(a_past(preemptions=1)))
        await worker.broker.nats.flush()
        assert bench.writes() == ["result", "nak"]
        stored = bench.record(address)
        assert stored is not None
        assert (stored.record.state, stored.record.handed_back) == (State.RUN, True)
        assert stored.record.history == a_past(preemptions=1)


@in_virtual_time
async def test_an_attempt_that_claimed_nothing_is_handed_back_without_a_record() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit()
        held = bench.held(await bench.take(worker))
        bench.mark()
        assert await worker.settler.settle(held, HandBack(a_past(preemptions=1)))
        await worker.broker.nats.flush()
        assert bench.writes() == ["nak"]
        assert bench.record(address) is None


@in_virtual_time
async def test_what_cannot_be_read_is_kept_as_it_came_before_it_is_acknowledged() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit()
        delivery = (await bench.take(worker))._replace(body=b"\xff not JSON", header="nonsense")
        bench.mark()
        await worker.settler.bury_unreadable(delivery, Failure("EnvelopeInvalid", "no"))
        await worker.broker.nats.flush()
        assert bench.writes() == ["result", "dead", "ack"]
        assert bench.final(address).outcome is Outcome.FAILED
        assert b"nonsense" in bench.seen("stored", "dead")[0].body


@in_virtual_time
async def test_what_cannot_be_read_does_not_replace_the_word_of_a_task_of_that_id() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit()
        bench.put(address, Record(State.DONE, 1, outcome=Outcome.SUCCEEDED))
        await worker.settler.bury_unreadable(await bench.take(worker), Failure("EnvelopeInvalid", "no"))
        await worker.broker.nats.flush()
        assert bench.final(address).outcome is Outcome.SUCCEEDED
        assert bench.in_work == 0


@in_virtual_time
async def test_what_cannot_be_read_stays_while_dead_letters_have_no_room() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit()
        letters = bench.server.streams[topology.dead_stream(address.namespace, address.queue)]
        letters.definition |= {"discard": "new", "max_bytes": 1}
        await worker.settler.bury_unreadable(await bench.take(worker), Failure("EnvelopeInvalid", "no"))
        assert (bench.in_work, bench.letters(address)) == (1, 0)
        letters.definition["max_bytes"] = -1
        await worker.settler.bury_unreadable(await bench.take(worker), Failure("EnvelopeInvalid", "no"))
        await worker.broker.nats.flush()
        assert (bench.in_work, bench.letters(address)) == (0, 1)


VERDICTS: Final[dict[str, Callable[[Bench], Verdict]]] = {
    "success": lambda _bench: Succeed(Raw(b"1")),
    "failure": lambda _bench: Bury(FAILURE, a_past(errors=1)),
    "cancel": lambda _bench: Cancel(),
    "retry": lambda bench: RetryAt(bench.server.now() + timedelta(seconds=60), FAILURE, a_past(errors=1)),
    "hand-back": lambda _bench: HandBack(a_past(preemptions=1)),
}


def steps_of(verdict: str) -> list[str]:
    """Return the kinds of subject a verdict writes to before the message may go."""
    return {"failure": ["result", "dead"], "retry": ["result", "again"]}.get(verdict, ["result"])


@pytest.mark.parametrize(
    ("verdict", "step"), [(verdict, step) for verdict in VERDICTS for step in steps_of(verdict)]
)
@pytest.mark.parametrize("lost", ["write", "answer"])
@in_virtual_time
async def test_the_message_stays_for_as_long_as_a_write_before_it_is_not_confirmed(
    verdict: str, step: str, lost: str
) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit(chosen_id=True)
        held = await bench.claimed(worker, await bench.take(worker))
        bench.mark()
        lose(worker, step, lost)
        settling = bench.start(worker.settler.settle(held, VERDICTS[verdict](bench)))
        await bench.pass_time(20)
        assert not settling.done(), "it waits for an answer for as long as that takes"
        assert not {"ack", "nak"} & set(bench.writes())
        worker.broker.line.lose()
        await bench.pass_time(20)
        assert await settling, "it is our own write that stands there"
        await worker.broker.nats.flush()
        assert bench.writes()[-1] in ("ack", "nak")
        expected = [*steps_of(verdict), "nak" if verdict == "hand-back" else "ack"]
        done = [word for word in dict.fromkeys(bench.writes()) if not word.startswith("refused")]
        assert done == expected
        assert bench.letters(address) == (verdict == "failure")
        assert bench.scheduled(address) == (verdict == "retry")


def lose(worker: Worker, kind: str, lost: str) -> None:
    """Lose what a worker writes of a kind, or else the answers to all it publishes."""
    if lost == "write":
        worker.broker.line.lose(to_server=lambda subject: subject.startswith(f"galley.{kind}."))
        return
    sent: list[bool] = []

    def after(subject: str) -> bool:
        sent.append(subject.startswith(f"galley.{kind}."))
        return False

    worker.broker.line.lose(
        to_server=after,
        to_client=lambda subject: any(sent) and subject.startswith(worker.broker.pipeline._prefix),
    )


# -- beaten


@pytest.mark.parametrize("verdict", VERDICTS)
@in_virtual_time
async def test_beaten_by_a_record_that_is_not_final_the_message_is_left_alone(verdict: str) -> None:
    """The worker that wrote it still needs this message, or has one of its own."""
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit(chosen_id=True)
        held = await bench.claimed(worker, await bench.take(worker))
        other = Record(State.RUN, 1, worker="w2", claim=Claim(held.delivery.source.stream, 1, "h2"))
        sequence = bench.put(address, other)
        bench.mark()
        assert not await worker.settler.settle(held, VERDICTS[verdict](bench))
        await worker.broker.nats.flush()
        assert bench.writes() == ["refused result"]
        stored = bench.record(address)
        assert stored is not None
        assert (stored.sequence, stored.record) == (sequence, other)
        assert bench.in_work == 1


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("outcome", list(Outcome))
@in_virtual_time
async def test_beaten_by_a_final_record_the_message_goes_once_all_that_end_calls_for_is_there(
    verdict: str, outcome: Outcome
) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit(chosen_id=True)
        held = await bench.claimed(worker, await bench.take(worker))
        bench.put(address, ended(outcome))
        bench.mark()
        assert not await worker.settler.settle(held, VERDICTS[verdict](bench))
        await worker.broker.nats.flush()
        letter = ["dead"] if outcome is Outcome.FAILED else []
        assert bench.writes() == ["refused result", *letter, "ack"]
        assert bench.final(address).outcome is outcome, "the first word stands"


def ended(outcome: Outcome) -> Record:
    """Return the last record of a task that another worker has ended."""
    failure = FAILURE if outcome is Outcome.FAILED else None
    now = a_past(errors=1).attempts[0].ended_at
    return Record(State.DONE, 1, worker="w2", outcome=outcome, failure=failure, ended_at=now)


@in_virtual_time
async def test_a_record_that_aged_out_does_not_keep_a_task_from_its_end() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit(chosen_id=True)
        held = await bench.claimed(worker, await bench.take(worker))
        stream = bench.server.streams[topology.records_stream(address.namespace, address.queue)]
        stream.remove(stream.last_sequence)
        assert await worker.settler.settle(held, Succeed(Raw(b"1")))
        assert bench.final(address).outcome is Outcome.SUCCEEDED


@in_virtual_time
async def test_final_records_are_kept_for_their_time_and_others_until_they_are_replaced() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        await bench.submit(chosen_id=True)
        held = await bench.claimed(worker, await bench.take(worker))
        await worker.settler.settle(held, Succeed(Raw(b"1")))
        claim, final = bench.seen("stored", "result")
        assert topology.TTL not in claim.headers
        assert final.headers[topology.TTL] == str(KEEP_SECONDS)


@pytest.mark.parametrize("declared", ["kind", "uid"])
@in_virtual_time
async def test_the_end_of_a_declared_task_is_kept_for_a_day_at_least(declared: str) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        kind = Kind.DECLARED if declared == "kind" else Kind.DIRECT
        address = an_address(of=bench.layout, kind=kind)
        await bench.submit(address, uid="u1" if declared == "uid" else "")
        await worker.settler.settle(bench.held(await bench.take(worker)), Succeed(Raw(b"1")))
        (final,) = bench.seen("stored", "result")
        assert final.headers[topology.TTL] == str(topology.DECLARED_KEPT_SECONDS)


@in_virtual_time
async def test_one_s_own_write_is_recognized_although_the_record_cannot_be_read_for_a_while() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit()
        held = bench.held(await bench.take(worker))
        lose(worker, "result", "answer")
        settling = bench.start(worker.settler.settle(held, Succeed(Raw(b"1"))))
        await bench.pass_time(1)
        worker.broker.line.lose(to_server=lambda subject: subject.startswith("$JS.API.DIRECT.GET."))
        await bench.pass_time(30)
        assert not settling.done()
        worker.broker.line.lose()
        assert await settling
        await worker.broker.nats.flush()
        assert (bench.final(address).outcome, bench.in_work) == (Outcome.SUCCEEDED, 0)


@in_virtual_time
@pytest.mark.parametrize("verdict", [Succeed(Raw(b"5")), Bury(FAILURE, a_past(errors=3)), Cancel()])
async def test_each_record_of_a_task_has_its_labels(verdict: Verdict) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        labels = {"team": "billing"}
        address = await bench.submit(labels=labels)
        held = await bench.claimed(worker, await bench.take(worker))
        claimed = bench.record(address)
        assert claimed is not None
        assert claimed.record.labels == labels
        await worker.settler.settle(held, verdict)
        assert bench.final(address).labels == labels
