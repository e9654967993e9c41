"""Attempts over a server in memory: what may begin, what may be written, and what becomes of a lost lease."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import pytest
from msgspec import Raw

from galley.address import TaskAddress
from galley.broker.cancel import cancel
from galley.broker.control import Answer, Request, Verb, answering
from galley.broker.pull import Delivery
from galley.broker.unique_keys import Keys
from galley.calls import call
from galley.client import AsyncClient
from galley.envelope import encode
from galley.lanes import Lane
from galley.record import Failure, Outcome, Record, State
from galley.schedule import address_of
from galley_worker.attempts import Attempts, Parts
from galley_worker.ending import Crashed, CutOff, Raised, Returned, TimedOut
from galley_worker.judge import Rules
from galley_worker.leases import LeaseKeeper
from galley_worker.measures import Measures
from galley_worker.notebook import Notebook
from galley_worker.roster import REMEMBERED_CANCELS
from galley_worker.runners.execution import Execution, Service
from galley_worker.runners.frames import HandlerRules
from galley_worker.under_way import message_of
from galley_worker.uniqueness import Uniqueness
from galley_worker.work import Work
from tests.support.builders import an_address, an_envelope
from tests.support.eventually import eventually
from tests.support.one_attempt import run_attempt
from tests.support.virtual_time import in_virtual_time, virtual_loop
from tests.unit.galley_worker.bench import POLICY, Bench, Worker, a_bench
from tests.unit.galley_worker.deliveries import a_past

LEASE: Final = 30.0
TIMEOUT: Final = 60.0
PATIENCE: Final = 120.0
RETURNED: Final = Returned(Raw(b"1"))


@dataclass
class Handlers:
    """Runs nothing: each work goes on until the test ends it, or it is told to stop."""

    handlers: frozenset[str] = frozenset({"resize"})
    rules: dict[str, HandlerRules] = field(default_factory=dict)
    started: list[Execution] = field(default_factory=list)
    deaf: bool = False
    """Whether what is told to stop goes on."""

    def start(self, work: Work) -> Execution:
        execution = Execution(work, Service(), self._stop)
        self.started.append(execution)
        return execution

    def _stop(self, execution: Execution) -> None:
        if not self.deaf:
            assert execution.because is not None
            execution.end(execution.because)

    async def running(self) -> Execution:
        await eventually(lambda: self.started, within=60)
        return self.started[-1]


@dataclass
class Shop:
    """A worker whose attempts are real and whose handlers are a test's."""

    bench: Bench
    worker: Worker
    handlers: Handlers
    leases: LeaseKeeper
    attempts: Attempts
    measures: Measures

    def begin(self, delivery: Delivery) -> "asyncio.Task[None]":
        return self.bench.start(run_attempt(self.attempts, delivery))

    async def answer(self, verb: Verb, request: Request) -> Answer | None:
        """Answer as the supervisor does."""
        present = self.attempts.roster.cancel(request.task) if verb is Verb.CANCEL else None
        return Answer("w1") if present is not None else None


@asynccontextmanager
async def a_shop() -> AsyncIterator[Shop]:
    async with a_bench() as bench, bench.worker() as worker:
        handlers, clock = Handlers(), asyncio.get_running_loop().time
        leases = LeaseKeeper(worker.broker, clock, LEASE)
        measures = Measures("default", "images", lambda: 4, lambda: 0)
        parts = Parts(
            handlers, worker.claimant, worker.settler, leases, measures,  # type: ignore[arg-type]
            Uniqueness(Keys(worker.broker, bench.server.now)),
            Notebook("default", worker.who, bench.server.now, worker.broker), worker.solitude,
            clock=clock, now=bench.server.now, jitter=lambda: 0.5,
        )  # fmt: skip
        attempts = Attempts(Rules("default", "images", worker.who, POLICY, TIMEOUT, PATIENCE), parts)
        shop = Shop(bench, worker, handlers, leases, attempts, measures)
        keeping = bench.start(leases.run())
        async with answering(worker.broker, "default", "images", shop.answer):
            yield shop
        keeping.cancel()


def let_go(shop: Shop, address: TaskAddress) -> tuple[bool, int, list[str]]:
    """Return whether a record says that its attempt was handed back, crashes counted, and past attempts."""
    stored = shop.bench.record(address)
    assert stored is not None
    history = stored.record.history
    return stored.record.handed_back, history.crashes, [past.reason for past in history.attempts]


@in_virtual_time
async def test_an_attempt_runs_is_settled_and_leaves_nothing_behind() -> None:
    async with a_shop() as shop:
        address = await shop.bench.submit()
        attempt = shop.begin(await shop.bench.take(shop.worker))
        (await shop.handlers.running()).end(RETURNED)
        await attempt
        await shop.worker.broker.nats.flush()
        assert shop.bench.final(address).outcome is Outcome.SUCCEEDED
        assert (shop.bench.in_work, shop.attempts.roster.under_way) == (0, {})
        await asyncio.sleep(LEASE)
        assert not shop.bench.seen("renewal"), "and no lease is renewed any longer"


@in_virtual_time
async def test_a_task_costs_no_more_words_the_more_tasks_have_ended() -> None:
    async with a_shop() as shop:
        said: list[str] = []

        def hear(subject: str) -> bool:
            said.append(".".join(subject.split(".")[:3]))
            return False

        async def run(name: str) -> list[str]:
            said.clear()
            await shop.bench.submit(an_address(of=shop.bench.layout, id=name), chosen_id=True)
            attempt = shop.begin(await shop.bench.take(shop.worker))
            (await shop.handlers.running()).end(RETURNED)
            shop.handlers.started.clear()
            await attempt
            await shop.worker.broker.nats.flush()
            return sorted(said)

        shop.worker.broker.line.lose(to_server=hear)
        shop.bench.producer.line.lose(to_server=hear)
        alone = await run("first")
        for number in range(2000):
            address = an_address(of=shop.bench.layout, id=f"ended-{number}")
            shop.bench.put(address, Record(State.DONE, 1, outcome=Outcome.SUCCEEDED))
        assert await run("second") == alone


@in_virtual_time
async def test_a_message_with_the_id_of_a_tick_to_come_does_not_run_and_is_a_dead_letter() -> None:
    async with a_shop() as shop:
        client = AsyncClient.over(shop.bench.producer, "default")
        await client.schedules.create("nightly", call("images", "resize", width=3), "@every 1h")
        soon = int(shop.bench.server.now().timestamp()) + 3600
        address = address_of("default", "images", Lane.NORMAL, f"nightly-{soon}")
        shop.bench.publish_raw(address, encode(an_envelope("resize")), "1")
        await shop.begin(await shop.bench.take(shop.worker))
        assert shop.handlers.started == []
        assert shop.bench.record(address) is None
        assert shop.bench.letters(address) == 1
        await shop.worker.broker.nats.flush()
        assert shop.bench.in_work == 0


@in_virtual_time
async def test_what_a_handler_returned_is_written_although_its_lease_was_lost() -> None:
    """The record is fenced: if no other worker decided meanwhile, the outcome is worth having."""
    async with a_shop() as shop:
        address = await shop.bench.submit()
        shop.handlers.deaf = True
        attempt = shop.begin(await shop.bench.take(shop.worker))
        execution = await shop.handlers.running()
        shop.worker.broker.line.lose(to_client=lambda _subject: True)
        await shop.bench.pass_time(LEASE)
        assert isinstance(execution.because, CutOff)
        shop.worker.broker.line.lose()
        execution.end(RETURNED)
        await attempt
        assert shop.bench.final(address).outcome is Outcome.SUCCEEDED


@in_virtual_time
async def test_an_attempt_stopped_for_want_of_its_lease_marks_its_claim_and_nothing_else() -> None:
    async with a_shop() as shop:
        address = await shop.bench.submit(chosen_id=True)
        attempt = shop.begin(await shop.bench.take(shop.worker))
        await shop.handlers.running()
        shop.bench.mark()
        shop.worker.broker.line.lose(to_client=lambda _subject: True)
        await shop.bench.pass_time(LEASE)
        shop.worker.broker.line.lose()
        await attempt
        await shop.worker.broker.nats.flush()
        assert shop.bench.writes() == ["result", "refused result"], (
            "one write, repeated for want of an answer"
        )
        assert shop.bench.in_work == 1
        assert let_go(shop, address) == (True, 0, ["LeaseLost"])


@in_virtual_time
async def test_an_attempt_dropped_on_the_fast_path_has_no_claim_to_mark() -> None:
    async with a_shop() as shop:
        await shop.bench.submit()
        attempt = shop.begin(await shop.bench.take(shop.worker))
        await shop.handlers.running()
        shop.bench.mark()
        shop.worker.broker.line.lose(to_client=lambda _subject: True)
        await shop.bench.pass_time(LEASE)
        shop.worker.broker.line.lose()
        await attempt
        assert shop.bench.writes() == []


@in_virtual_time
async def test_a_dropped_attempt_leaves_the_record_of_the_worker_that_took_over() -> None:
    async with a_shop() as shop:
        address = await shop.bench.submit(chosen_id=True)
        attempt = shop.begin(await shop.bench.take(shop.worker))
        await shop.handlers.running()
        shop.worker.broker.line.lose(to_client=lambda _subject: True)
        await shop.bench.pass_time(LEASE - 1)
        other = Record(State.RUN, 1, worker="w2", handler="resize")
        shop.bench.put(address, other)
        shop.worker.broker.line.lose()
        await attempt
        stored = shop.bench.record(address)
        assert stored is not None
        assert stored.record == other


@in_virtual_time
async def test_an_attempt_whose_lease_ended_while_it_was_claimed_does_not_begin() -> None:
    async with a_shop() as shop:
        address = await shop.bench.submit(chosen_id=True)
        delivery = await shop.bench.take(shop.worker)
        shop.worker.broker.line.lose(to_client=lambda _subject: True)
        attempt = shop.begin(delivery)
        await shop.bench.pass_time(LEASE)
        shop.worker.broker.line.lose()
        await attempt
        assert shop.handlers.started == []
        assert shop.bench.in_work == 1
        assert let_go(shop, address) == (True, 0, ["LeaseLost"])


@in_virtual_time
async def test_a_process_that_slept_through_the_answer_to_its_claim_does_not_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_shop() as shop:
        await shop.bench.submit(chosen_id=True)
        delivery = await shop.bench.take(shop.worker)
        claim = shop.worker.claimant.claim

        async def sleep_and_claim(*arguments: Any) -> bool:
            claimed = await claim(*arguments)
            virtual_loop().freeze(LEASE)
            return claimed

        monkeypatch.setattr(shop.worker.claimant, "claim", sleep_and_claim)
        await run_attempt(shop.attempts, delivery)
        assert shop.handlers.started == []


@in_virtual_time
async def test_a_start_has_the_time_of_the_last_look_at_its_lease(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "galley_worker.attempts")
    async with a_shop() as shop:
        await shop.bench.submit()
        delivery = await shop.bench.take(shop.worker)
        looked_at, start = shop.bench.server.now(), shop.handlers.start

        def sleep_and_start(work: Work) -> Execution:
            virtual_loop().freeze(LEASE)
            return start(work)

        monkeypatch.setattr(shop.handlers, "start", sleep_and_start)
        attempt = shop.begin(delivery)
        await shop.handlers.running()
        await attempt
        [started] = [line for line in caplog.records if line.message == "attempt started"]
        assert started.__dict__["time"] == looked_at


@in_virtual_time
async def test_what_was_read_after_a_long_sleep_is_neither_begun_nor_acknowledged() -> None:
    async with a_shop() as shop:
        await shop.bench.submit()
        delivery = await shop.bench.take(shop.worker)
        virtual_loop().freeze(2 * LEASE)
        shop.bench.mark()
        await run_attempt(shop.attempts, delivery)
        assert shop.handlers.started == []
        assert shop.bench.writes() == []


@in_virtual_time
async def test_a_message_that_comes_again_while_its_attempt_runs_does_not_run_twice() -> None:
    async with a_shop() as shop:
        address = await shop.bench.submit()
        delivery = await shop.bench.take(shop.worker)
        attempt = shop.begin(delivery)
        execution = await shop.handlers.running()
        shop.bench.server.consumers[delivery.source.stream, "normal"].pending[delivery.sequence] = 0.0
        again = await shop.bench.take(shop.worker)
        assert again.delivered == 2
        assert shop.attempts.roster.known(again)
        await shop.bench.pass_time(LEASE)
        execution.end(RETURNED)
        await attempt
        await shop.worker.broker.nats.flush()
        assert len(shop.handlers.started) == 1
        assert (shop.bench.final(address).outcome, shop.bench.in_work) == (Outcome.SUCCEEDED, 0)
        assert not shop.attempts.roster.known(again), "once it has ended, it is a message like any other"


@in_virtual_time
async def test_a_message_whose_attempt_lost_its_lease_is_not_leant_on() -> None:
    async with a_shop() as shop:
        shop.handlers.deaf = True
        await shop.bench.submit()
        delivery = await shop.bench.take(shop.worker)
        shop.begin(delivery)
        await shop.handlers.running()
        assert shop.attempts.roster.holds(message_of(delivery))
        shop.worker.broker.line.lose(to_client=lambda _subject: True)
        await shop.bench.pass_time(LEASE)
        shop.worker.broker.line.lose()
        assert not shop.attempts.roster.known(delivery._replace(delivered=2))
        assert not shop.attempts.roster.holds(message_of(delivery))


@pytest.mark.parametrize("outcome", list(Outcome))
@in_virtual_time
async def test_a_copy_of_a_task_that_has_ended_does_not_run(outcome: Outcome) -> None:
    async with a_shop() as shop:
        address = await shop.bench.submit(chosen_id=True)
        failure = Failure("ValueError", "no") if outcome is Outcome.FAILED else None
        ended = Record(State.DONE, 1, outcome=outcome, failure=failure, ended_at=shop.bench.server.now())
        shop.bench.put(address, ended)
        attempt = shop.begin(await shop.bench.take(shop.worker))
        await asyncio.wait([attempt], timeout=20)
        assert attempt.done()
        await shop.worker.broker.nats.flush()
        assert shop.handlers.started == []
        assert (shop.bench.final(address), shop.bench.in_work) == (ended, 0)


# -- cancels


@in_virtual_time
async def test_a_running_attempt_is_stopped_by_a_cancel() -> None:
    async with a_shop() as shop:
        address = await shop.bench.submit()
        attempt = shop.begin(await shop.bench.take(shop.worker))
        await shop.handlers.running()
        about = Record(State.RUN, 0)
        await cancel(shop.bench.producer, address, about, 3600)
        await attempt
        assert shop.bench.final(address).outcome is Outcome.CANCELLED


@in_virtual_time
async def test_a_message_in_hand_when_its_task_is_cancelled_is_not_begun() -> None:
    async with a_shop() as shop:
        address = await shop.bench.submit()
        delivery = await shop.bench.take(shop.worker)
        await cancel(shop.bench.producer, address, Record(State.RUN, 0), 3600)
        await run_attempt(shop.attempts, delivery)
        assert shop.handlers.started == []
        assert shop.bench.final(address).outcome is Outcome.CANCELLED


@pytest.mark.parametrize("after", [0.0, 0.5, 1.5, 2.5, 3.5, 4.5, 6.0, 9.0])
@in_virtual_time
async def test_a_cancel_that_races_a_claim_keeps_the_handler_from_running(after: float) -> None:
    """The line is slow, so that the cancel falls before, between and after each step of the claim."""
    async with a_shop() as shop:
        address = await shop.bench.submit(chosen_id=True)
        delivery = await shop.bench.take(shop.worker)
        shop.worker.broker.line._delay = lambda: 1.0
        attempt = shop.begin(delivery)
        await shop.bench.pass_time(after)
        await cancel(shop.bench.producer, address, Record(State.RUN, 0), 3600)
        await asyncio.wait([attempt], timeout=30)
        assert attempt.done(), "a handler that began is stopped"
        assert shop.bench.final(address).outcome is Outcome.CANCELLED
        assert shop.bench.in_work == 0


@in_virtual_time
async def test_cancels_are_remembered_up_to_a_number_the_oldest_forgotten_first() -> None:
    async with a_shop() as shop:
        for number in range(REMEMBERED_CANCELS + 5):
            shop.attempts.roster.cancel(f"sdk.t{number}")
        assert len(shop.attempts.roster._cancelled) == REMEMBERED_CANCELS
        assert "sdk.t4" not in shop.attempts.roster._cancelled
        assert "sdk.t5" in shop.attempts.roster._cancelled


# -- what an attempt is given


@pytest.mark.parametrize(
    ("own", "left", "given"),
    [(None, None, TIMEOUT), (7.0, None, 7.0), (None, 20.0, 20.0), (7.0, 20.0, 7.0), (50.0, 20.0, 20.0)],
)
@in_virtual_time
async def test_an_attempt_has_its_own_time_or_the_queue_s_and_none_after_its_deadline(
    own: float | None, left: float | None, given: float
) -> None:
    async with a_shop() as shop:
        deadline = None if left is None else shop.bench.server.now() + timedelta(seconds=left)
        await shop.bench.submit(timeout_seconds=own, deadline=deadline)
        shop.begin(await shop.bench.take(shop.worker))
        execution = await shop.handlers.running()
        assert execution.work.timeout == pytest.approx(given, abs=0.1)


@in_virtual_time
async def test_a_task_past_its_deadline_is_buried_without_a_run() -> None:
    async with a_shop() as shop:
        deadline = shop.bench.server.now() + timedelta(seconds=5)
        address = await shop.bench.submit(deadline=deadline)
        delivery = await shop.bench.take(shop.worker)
        await shop.bench.pass_time(6)
        await run_attempt(shop.attempts, delivery)
        assert shop.handlers.started == []
        final = shop.bench.final(address)
        assert final.failure is not None
        assert (final.outcome, final.failure.reason) == (Outcome.FAILED, "DeadlineExceeded")


@in_virtual_time
async def test_a_timeout_at_the_deadline_is_the_end_and_one_before_it_is_tried_again() -> None:
    for after, state in ((5.0, State.DONE), (1.0, State.RETRY)):
        async with a_shop() as shop:
            deadline = shop.bench.server.now() + timedelta(seconds=5)
            address = await shop.bench.submit(deadline=deadline)
            attempt = shop.begin(await shop.bench.take(shop.worker))
            execution = await shop.handlers.running()
            await shop.bench.pass_time(after)
            execution.end(TimedOut(after))
            await attempt
            stored = shop.bench.record(address)
            assert stored is not None
            assert stored.record.state is state


@in_virtual_time
async def test_what_cannot_be_read_is_buried_without_a_run() -> None:
    async with a_shop() as shop:
        address = await shop.bench.submit()
        delivery = await shop.bench.take(shop.worker)
        for broken in ({"body": b"nonsense"}, {"header": "v=9;a=1"}):
            await run_attempt(shop.attempts, delivery._replace(**broken))
        assert shop.handlers.started == []
        assert shop.bench.letters(address) == 1
        assert shop.bench.final(address).outcome is Outcome.FAILED


@in_virtual_time
async def test_a_failure_is_tried_again_by_the_task_s_own_policy_or_else_its_queue_s() -> None:
    async with a_shop() as shop:
        address = await shop.bench.submit(retry=POLICY.__class__(attempts=1))
        attempt = shop.begin(await shop.bench.take(shop.worker))
        failed = Raised(Failure("ValueError", "no"), retryable=True)
        (await shop.handlers.running()).end(failed)
        await attempt
        assert shop.bench.final(address).outcome is Outcome.FAILED
        other = await shop.bench.submit()
        attempt = shop.begin(await shop.bench.take(shop.worker))
        await eventually(lambda: len(shop.handlers.started) == 2, within=5)
        (await shop.handlers.running()).end(failed)
        await attempt
        stored = shop.bench.record(other)
        assert stored is not None
        assert stored.record.state is State.RETRY


# -- handing back


@pytest.mark.parametrize("chosen_id", [False, True])
@in_virtual_time
async def test_what_is_cut_off_is_handed_back_at_once_and_costs_nothing(chosen_id: bool) -> None:
    async with a_shop() as shop:
        address = await shop.bench.submit(chosen_id=chosen_id)
        attempt = shop.begin(await shop.bench.take(shop.worker))
        await shop.handlers.running()
        shop.attempts.roster.cut("the worker is shutting down")
        await attempt
        async with shop.bench.worker("w2", "h2") as other:
            again = await shop.bench.take(other)
            assert again.address == address
            held = shop.bench.held(again)
            assert await other.claimant.claim(held, POLICY)
            assert held.history.crashes == 0
            assert held.history.preemptions == (1 if chosen_id else 0)


@in_virtual_time
async def test_a_task_that_crashed_too_often_runs_while_no_other_does() -> None:
    async with a_shop() as shop:
        neighbour = await shop.bench.submit()
        beside = shop.begin(await shop.bench.take(shop.worker))
        await shop.handlers.running()
        suspect = await shop.bench.submit(history=a_past(crashes=POLICY.crashes), chosen_id=True)
        attempt = shop.begin(await shop.bench.take(shop.worker))
        later = await shop.bench.submit()
        waiting = shop.begin(await shop.bench.take(shop.worker))
        await shop.bench.pass_time(0.5)
        assert len(shop.handlers.started) == 1, "the neighbour alone"
        shop.handlers.started[0].end(RETURNED)
        await beside
        await shop.bench.pass_time(10)
        assert [one.work.task_id for one in shop.handlers.started] == [neighbour.id, suspect.id]
        shop.handlers.started[1].end(Crashed("signal 9 (SIGKILL)"))
        await attempt
        assert shop.bench.final(suspect).failure.reason == "KillsItsWorker"  # type: ignore[union-attr]
        await shop.bench.pass_time(1)
        shop.handlers.started[2].end(RETURNED)
        await waiting
        assert shop.bench.final(later).outcome is Outcome.SUCCEEDED


@in_virtual_time
async def test_quick_tasks_run_while_one_that_crashed_too_often_waits_for_a_long_neighbour() -> None:
    async with a_shop() as shop:
        await shop.bench.submit()
        beside = shop.begin(await shop.bench.take(shop.worker))
        await shop.handlers.running()
        suspect = await shop.bench.submit(history=a_past(crashes=POLICY.crashes), chosen_id=True)
        attempt = shop.begin(await shop.bench.take(shop.worker))
        quick = await shop.bench.submit()
        behind = shop.begin(await shop.bench.take(shop.worker))
        await shop.bench.pass_time(2)
        await attempt
        assert [one.work.task_id for one in shop.handlers.started][1:] == [quick.id]
        shop.handlers.started[1].end(RETURNED)
        await behind
        shop.handlers.started[0].end(RETURNED)
        await beside
        again = shop.begin(await shop.bench.take(shop.worker))
        await shop.bench.pass_time(1)
        assert shop.handlers.started[2].work.task_id == suspect.id
        shop.handlers.started[2].end(RETURNED)
        await again
        assert shop.bench.final(suspect).outcome is Outcome.SUCCEEDED


@in_virtual_time
async def test_an_attempt_that_is_cancelled_while_another_is_alone_leaves_nothing_behind() -> None:
    async with a_shop() as shop:
        solitude = shop.worker.solitude
        await solitude.enter()
        await solitude.alone()
        address = await shop.bench.submit()
        waiting = shop.begin(await shop.bench.take(shop.worker))
        await shop.bench.pass_time(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert (waiting.cancelled(), shop.attempts.roster.under_way, shop.leases._leases) == (True, {}, set())
        solitude.leave_alone()
        # Its lease is not renewed any more, so the message comes again.
        again = await shop.bench.take(shop.worker)
        attempt = shop.begin(again)
        (await shop.handlers.running()).end(RETURNED)
        await attempt
        assert shop.bench.final(address).outcome is Outcome.SUCCEEDED
