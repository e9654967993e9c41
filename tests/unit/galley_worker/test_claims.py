"""The slow path over a server in memory: what a claim finds, and what it writes before an attempt begins."""

from datetime import timedelta
from typing import Final

import pytest
from msgspec import Raw

from galley.broker import topology
from galley.broker.pull import Delivery
from galley.envelope import Flags
from galley.history import WORKER_LOST, EndedBy
from galley.record import Claim, Failure, Outcome, Record, State, Stored
from galley.retry import RetryPolicy
from galley_worker.claim import Held
from galley_worker.verdict import KILLS_ITS_WORKER, Bury, HandBack, RetryAt, Succeed, Verdict
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import POLICY, Bench, Worker, a_bench
from tests.unit.galley_worker.deliveries import a_past

FAILURE: Final = Failure("ValueError", "no")


def a_run(delivery: Delivery, **changes: object) -> Record:
    """Return the claim of a message by a worker that is gone."""
    claim = Claim(delivery.source.stream, delivery.sequence, "h0")
    defaults: dict[str, object] = {"worker": "w0", "handler": "resize", "claim": claim}
    return Record(State.RUN, 1, **{**defaults, **changes})  # type: ignore[arg-type]


async def crashed(bench: Bench, worker: Worker, **changes: object) -> tuple[Held, Delivery]:
    """Return a task whose worker is gone, as it comes to another one."""
    await bench.submit(chosen_id=True)
    delivery = (await bench.take(worker))._replace(delivered=2)
    bench.put(delivery.address, a_run(delivery, **changes))
    bench.mark()
    return bench.held(delivery), delivery


def present(bench: Bench, delivery: Delivery) -> Stored:
    stored = bench.record(delivery.address)
    assert stored is not None
    return stored


@in_virtual_time
async def test_a_claim_names_the_message_and_its_holder_and_takes_nothing_away() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        await bench.submit(chosen_id=True)
        delivery = await bench.take(worker)
        held = bench.held(delivery)
        bench.mark()
        assert await worker.claimant.claim(held, POLICY)
        assert bench.writes() == ["result"]
        stored = present(bench, delivery)
        assert stored.record.state is State.RUN
        assert stored.record.claim == Claim(delivery.source.stream, delivery.sequence, "h1")
        assert (held.claimed, held.fence) == (True, stored.sequence)


@pytest.mark.parametrize("lost", ["write", "answer"])
@in_virtual_time
async def test_an_attempt_does_not_begin_before_its_claim_is_confirmed(lost: str) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        await bench.submit(chosen_id=True)
        held = bench.held(await bench.take(worker))
        if lost == "write":
            worker.broker.line.lose(to_server=lambda subject: subject.startswith("galley.result."))
        else:
            prefix = worker.broker.pipeline._prefix
            worker.broker.line.lose(to_client=lambda subject: subject.startswith(prefix))
        claiming = bench.start(worker.claimant.claim(held, POLICY))
        await bench.pass_time(30)
        assert not claiming.done()
        worker.broker.line.lose()
        assert await claiming
        assert held.fence == present(bench, held.delivery).sequence
        assert held.history == a_past(), "a claim of one's own is no crash"


@in_virtual_time
async def test_a_claim_whose_answer_was_lost_is_not_taken_for_one_that_another_worker_wrote() -> None:
    async with a_bench() as bench, bench.worker("w1", "h1") as first, bench.worker("w2", "h2") as second:
        await bench.submit(chosen_id=True)
        delivery = await bench.take(first)
        held = bench.held(delivery)
        prefix = first.broker.pipeline._prefix
        first.broker.line.lose(to_client=lambda subject: subject.startswith(prefix))
        claiming = bench.start(first.claimant.claim(held, POLICY))
        await bench.pass_time(1)
        other = bench.held(delivery._replace(delivered=2))
        assert await second.claimant.claim(other, POLICY)
        first.broker.line.lose()
        await claiming
        assert (held.fence, other.fence).count(present(bench, delivery).sequence) == 1
        settled = [await each.settler.settle(task, Succeed(Raw(b"1"))) for each, task in
                   ((first, held), (second, other)) if task.claimed]  # fmt: skip
        assert settled.count(True) == 1, "one of them may write the outcome, and only one"


# -- crashes


@in_virtual_time
async def test_a_worker_that_is_gone_is_one_crash_and_the_task_runs_again() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        held, delivery = await crashed(bench, worker)
        assert await worker.claimant.claim(held, POLICY)
        assert (held.history.crashes, held.history.errors) == (1, 0)
        (past,) = held.history.attempts
        assert (past.ended_by, past.reason, past.worker) == (EndedBy.CRASH, WORKER_LOST, "w0")
        assert present(bench, delivery).record.history == held.history, "it is written down with the claim"


@pytest.mark.parametrize("verdict", ["success", "failure", "retry", "hand-back"])
@in_virtual_time
async def test_a_crash_found_in_a_claim_stands_in_every_later_record(verdict: str) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        held, delivery = await crashed(bench, worker)
        assert await worker.claimant.claim(held, POLICY)
        found = held.history
        due = bench.server.now() + timedelta(seconds=1)
        verdicts: dict[str, Verdict] = {
            "success": Succeed(Raw(b"1")),
            "failure": Bury(FAILURE, found),
            "retry": RetryAt(due, FAILURE, found),
            "hand-back": HandBack(found),
        }
        assert await worker.settler.settle(held, verdicts[verdict])
        await worker.broker.nats.flush()
        assert present(bench, delivery).record.history.crashes == 1
        if verdict == "retry":
            again = await bench.take(worker, topology.later_stream("default", "images"))
            assert bench.held(again).history.crashes == 1, "and in the task that comes again"
        if verdict == "hand-back":
            again = await bench.take(worker)
            taken = bench.held(again)
            assert await worker.claimant.claim(taken, POLICY)
            assert taken.history.crashes == 1


@in_virtual_time
async def test_crashes_add_up_over_workers_until_the_task_is_buried() -> None:
    async with a_bench() as bench, bench.worker("w9", "h9") as last:
        await bench.submit(chosen_id=True)
        delivery = await bench.take(last)
        for number in range(POLICY.crashes + 1):
            async with bench.worker(f"w{number}", f"h{number}") as worker:
                held = bench.held(delivery._replace(delivered=number + 1))
                assert await worker.claimant.claim(held, POLICY)
                assert (held.history.crashes, held.alone) == (number, number == POLICY.crashes)
        bench.mark()
        held = bench.held(delivery._replace(delivered=9))
        assert not await last.claimant.claim(held, POLICY)
        await last.broker.nats.flush()
        assert [word for word in bench.writes() if word != "refused result"] == ["result", "dead", "ack"]
        final = bench.final(delivery.address)
        assert final.failure is not None
        assert (final.failure.reason, final.history.crashes) == (KILLS_ITS_WORKER, POLICY.crashes + 1)
        assert [past.worker for past in final.history.attempts] == ["w0", "w1", "w2", "w3"]


@in_virtual_time
async def test_a_run_that_has_to_be_alone_is_claimed_when_the_others_have_ended() -> None:
    """Those it waits for may take the worker down: nothing says then that it had begun."""
    async with a_bench() as bench, bench.worker() as worker:
        held, delivery = await crashed(bench, worker, history=a_past(crashes=2))
        held.delivery = held.delivery._replace(delivered=100)  # it gave way often enough
        for _ in range(2):
            await worker.solitude.enter()  # one is itself
        claiming = bench.start(worker.claimant.claim(held, POLICY))
        await bench.pass_time(60)
        assert not claiming.done()
        assert present(bench, delivery).record.history.crashes == 2, "as the worker left it that is gone"
        worker.solitude.leave()
        assert await claiming
        assert (held.alone, present(bench, delivery).record.history.crashes) == (True, 3)


@in_virtual_time
async def test_a_run_that_has_to_be_alone_gives_way_to_long_ones_and_counts_nothing_twice() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        held, delivery = await crashed(bench, worker, history=a_past(crashes=2))
        for _ in range(2):
            await worker.solitude.enter()  # one is itself
        assert await worker.claimant.claim(held, POLICY) is False
        assert not worker.solitude.closed
        assert present(bench, delivery).record.history.crashes == 2, "as the worker left it that is gone"
        worker.solitude.leave()
        again = bench.held(await bench.take(worker))
        assert await worker.claimant.claim(again, POLICY)
        assert (again.alone, present(bench, delivery).record.history.crashes) == (True, 3)


@in_virtual_time
async def test_the_last_crash_is_buried_in_the_very_order_of_a_burial_while_answers_are_lost() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        held, delivery = await crashed(bench, worker, history=a_past(crashes=3))
        worker.broker.line.lose(to_server=lambda subject: subject.startswith("galley.dead."))
        claiming = bench.start(worker.claimant.claim(held, POLICY))
        await bench.pass_time(20)
        assert not claiming.done()
        assert bench.in_work == 1, "no other may take the message before its letter is there"
        worker.broker.line.lose()
        assert await claiming is False
        await worker.broker.nats.flush()
        assert (bench.letters(delivery.address), bench.in_work) == (1, 0)


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("handed back", {"handed_back": True}),
        ("claimed by this very process", {"worker": "w1", "claim": None}),
    ],
)
@in_virtual_time
async def test_no_crash_is_counted_without_a_crash(what: str, changes: dict[str, object]) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        await bench.submit(chosen_id=True)
        delivery = (await bench.take(worker))._replace(delivered=2)
        if changes.get("claim", 0) is None:
            changes = {**changes, "claim": Claim(delivery.source.stream, delivery.sequence, "h1")}
        bench.put(delivery.address, a_run(delivery, **changes))
        held = bench.held(delivery)
        assert await worker.claimant.claim(held, POLICY), what
        assert held.history.crashes == 0
        assert present(bench, delivery).record.history.crashes == 0
        assert not present(bench, delivery).record.handed_back


@in_virtual_time
async def test_the_history_of_a_run_that_was_taken_over_is_kept() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        held, _ = await crashed(bench, worker, history=a_past(errors=1, crashes=1))
        assert await worker.claimant.claim(held, RetryPolicy(crashes=10))
        assert (held.history.errors, held.history.crashes) == (1, 2)


# -- what else a claim can find


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("lost", [False, True])
@in_virtual_time
async def test_an_ended_task_is_not_begun_and_its_message_goes_once_its_letter_is_there(
    outcome: Outcome, lost: bool
) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        await bench.submit(chosen_id=True)
        delivery = await bench.take(worker)
        failure = FAILURE if outcome is Outcome.FAILED else None
        done = Record(State.DONE, 1, outcome=outcome, failure=failure, ended_at=bench.server.now())
        bench.put(delivery.address, done)
        bench.mark()
        if lost:
            worker.broker.line.lose(to_server=lambda subject: subject.startswith("galley.dead."))
        claiming = bench.start(worker.claimant.claim(bench.held(delivery), POLICY))
        await bench.pass_time(20)
        assert claiming.done() == (not lost or outcome is not Outcome.FAILED)
        assert bench.in_work == (0 if claiming.done() else 1)
        worker.broker.line.lose()
        assert await claiming is False
        await worker.broker.nats.flush()
        assert bench.letters(delivery.address) == (outcome is Outcome.FAILED)
        assert bench.in_work == 0
        assert bench.final(delivery.address).outcome is outcome


@pytest.mark.parametrize("attempt", [2, 4])
@in_virtual_time
async def test_a_failed_attempt_whose_worker_died_before_it_scheduled_the_next_is_scheduled(
    attempt: int,
) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        await bench.submit(chosen_id=True)
        delivery = await bench.take(worker)
        due = bench.server.now() + timedelta(seconds=60)
        past = a_past(errors=attempt - 1)
        sequence = bench.put(delivery.address, Record(State.RETRY, attempt, due_at=due, history=past))
        bench.mark()
        worker.broker.line.lose(to_server=lambda subject: subject.startswith("galley.again."))
        claiming = bench.start(worker.claimant.claim(bench.held(delivery), POLICY))
        await bench.pass_time(20)
        assert not claiming.done()
        assert bench.in_work == 1
        worker.broker.line.lose()
        assert await claiming is False
        await worker.broker.nats.flush()
        assert bench.writes() == ["refused result", "again", "ack"]
        again = await bench.take(worker, topology.later_stream("default", "images"))
        assert Flags.decode(again.header) == Flags(attempt, sequence)
        assert bench.held(again).history == past
        assert bench.server.now() >= due - timedelta(milliseconds=2)


@in_virtual_time
async def test_another_message_s_run_is_left_to_it_and_this_message_goes() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        await bench.submit(chosen_id=True)
        delivery = await bench.take(worker)
        other = a_run(delivery, claim=Claim(delivery.source.stream, 99, "h0"))
        bench.put(delivery.address, other)
        bench.mark()
        assert not await worker.claimant.claim(bench.held(delivery), POLICY)
        await worker.broker.nats.flush()
        assert bench.writes() == ["refused result", "ack"]
        assert present(bench, delivery).record == other


@in_virtual_time
async def test_a_record_of_before_this_attempt_is_left_alone_with_its_message() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit(chosen_id=True)
        delivery = (await bench.take(worker))._replace(header=Flags(3, 0).encode())
        earlier = Record(State.RETRY, 2, due_at=bench.server.now())
        bench.put(address, earlier)
        bench.mark()
        assert not await worker.claimant.claim(bench.held(delivery), POLICY)
        await worker.broker.nats.flush()
        assert bench.writes() == ["refused result"]
        assert (present(bench, delivery).record, bench.in_work) == (earlier, 1)


@in_virtual_time
async def test_a_retry_claims_in_the_place_of_the_record_that_announced_it() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        await bench.submit(chosen_id=True)
        held = await bench.claimed(worker, await bench.take(worker))
        due = bench.server.now() + timedelta(seconds=1)
        await worker.settler.settle(held, RetryAt(due, FAILURE, a_past(errors=1)))
        again = await bench.take(worker, topology.later_stream("default", "images"))
        bench.mark()
        retried = await bench.claimed(worker, again)
        assert bench.writes() == ["result"], "its fence saves it a refusal"
        assert retried.history == a_past(errors=1)


@in_virtual_time
async def test_a_record_older_than_the_one_that_refused_a_claim_is_not_believed() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        held, delivery = await crashed(bench, worker)
        stream = bench.server.streams[topology.records_stream("default", "images")]
        old = stream.last(topology.record_subject(delivery.address))
        assert old is not None
        done = Record(State.DONE, 1, outcome=Outcome.SUCCEEDED, ended_at=bench.server.now())
        bench.put(delivery.address, done)
        bench.server.stale[topology.record_subject(delivery.address)] = old, 25
        assert not await worker.claimant.claim(held, POLICY)
        assert bench.final(delivery.address) == done
        await worker.broker.nats.flush()
        assert bench.in_work == 0


@in_virtual_time
async def test_an_old_record_of_another_message_does_not_take_the_only_copy_away() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        await bench.submit(chosen_id=True)
        delivery = (await bench.take(worker))._replace(delivered=2)
        bench.put(delivery.address, a_run(delivery, claim=Claim(delivery.source.stream, 99, "h0")))
        subject = topology.record_subject(delivery.address)
        old = bench.server.streams[topology.records_stream("default", "images")].last(subject)
        assert old is not None
        bench.put(delivery.address, a_run(delivery, handed_back=True))
        bench.server.stale[subject] = old, 5
        assert await worker.claimant.claim(bench.held(delivery), POLICY)
        assert bench.in_work == 1


@in_virtual_time
async def test_a_cancel_that_wins_over_a_claim_keeps_the_attempt_from_beginning() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        held, delivery = await crashed(bench, worker)
        bench.put(delivery.address, Record(State.DONE, 1, outcome=Outcome.CANCELLED))
        assert not await worker.claimant.claim(held, POLICY)
        assert bench.final(delivery.address).outcome is Outcome.CANCELLED


# -- a broker that does not take it


@in_virtual_time
async def test_what_the_broker_has_no_room_for_is_tried_until_it_has_and_complained_about_seldom(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        await bench.submit()
        held = bench.held(await bench.take(worker))
        bench.server.full = ("galley.result.", "galley.dead.")
        settling = bench.start(worker.settler.settle(held, Bury(FAILURE, a_past(errors=1))))
        await bench.pass_time(15)
        assert not settling.done()
        bench.server.full = ("galley.dead.",)
        await bench.pass_time(15)
        assert not settling.done()
        assert bench.in_work == 1
        bench.server.full = ()
        assert await settling
        said = [one for one in caplog.records if one.message == "broker does not store it yet"]
        assert 2 <= len(said) <= 6, "about every ten seconds of thirty"


@in_virtual_time
async def test_a_record_that_cannot_be_read_now_is_asked_for_again() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        held, delivery = await crashed(bench, worker)
        worker.broker.line.lose(to_server=lambda subject: subject.startswith("$JS.API.DIRECT.GET."))
        claiming = bench.start(worker.claimant.claim(held, POLICY))
        await bench.pass_time(30)
        assert not claiming.done()
        assert bench.in_work == 1
        worker.broker.line.lose()
        assert await claiming
        assert present(bench, delivery).record.history.crashes == 1
