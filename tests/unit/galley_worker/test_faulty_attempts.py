"""What fails outside a handler, or is too large for the broker, costs one attempt and is settled."""

import logging
from collections.abc import Iterator
from datetime import timedelta

import pytest
from msgspec import Raw

from galley.address import TaskAddress
from galley.broker.errors import BrokerUnreachable
from galley.broker.pull import Delivery
from galley.envelope import Flags
from galley.failpoint import hook
from galley.history import NO_HISTORY
from galley.record import Failure, Outcome, State
from galley.retry import LONGEST_BACKOFF_SECONDS, RetryPolicy
from galley_worker.attempts import UNDECIDED_SECONDS, UNDECIDED_TIMES
from galley_worker.ending import Ending, Raised
from galley_worker.fast_path import FastPath
from galley_worker.ledger import Ledger
from galley_worker.runners.execution import Execution
from galley_worker.settle import Settler
from galley_worker.verdict import Bury, RetryAt, Succeed
from galley_worker.work import Work
from tests.support.builders import an_address, an_envelope
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import a_bench
from tests.unit.galley_worker.deliveries import a_past
from tests.unit.galley_worker.test_attempts import RETURNED, Shop, a_shop

SMALL = 4_000
"""Bytes a message may have, in place of a megabyte."""


def failing(shop: Shop, times: int) -> None:
    """Have starting a handler raise so many times."""
    start, left = shop.handlers.start, [times]

    def refuse(work: Work) -> Execution:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("out of luck")
        return start(work)

    shop.handlers.start = refuse  # type: ignore[method-assign]


async def run(shop: Shop, ending: Ending = RETURNED) -> None:
    """Have the next delivery run, from whichever stream it comes."""
    started = len(shop.handlers.started)
    delivery = await shop.bench.take_any(shop.worker)
    attempt = shop.begin(delivery)
    for _ in range(100):
        await shop.bench.pass_time(0.05)
        if len(shop.handlers.started) > started:
            shop.handlers.started[-1].end(ending)
        if attempt.done():
            break
    await attempt


@in_virtual_time
async def test_an_error_outside_the_handler_is_counted_logged_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_shop() as shop:
        failing(shop, times=1)
        address = await shop.bench.submit()
        await run(shop)
        stored = shop.bench.record(address)
        assert stored is not None
        assert (stored.record.state, stored.record.attempt) == (State.RETRY, 2)
        assert stored.record.failure == Failure("InternalError", "RuntimeError: out of luck")
        assert "galley_attempts_failed_internally_total" in shop.measures.text().decode()
        [said] = [one for one in caplog.records if one.levelno == logging.ERROR]
        assert said.message == "attempt failed outside its handler"
        assert said.exc_info is not None
        await run(shop)
        assert shop.bench.final(address).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(("place", "runs"), [("write", 2), ("settle", 1)])
@in_virtual_time
async def test_an_error_in_the_fast_path_costs_its_attempt_alone(
    place: str, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_shop() as shop:
        broke = False
        right = getattr(FastPath, place)

        def breaks(path: FastPath, *given: object) -> object:
            nonlocal broke
            if not broke:
                broke = True
                raise RuntimeError("out of luck")
            return right(path, *given)

        monkeypatch.setattr(FastPath, place, breaks)
        first = await shop.bench.submit(an_address(of=shop.bench.layout, id="first"))
        await run(shop)
        assert broke
        assert "galley_attempts_failed_internally_total" in shop.measures.text().decode()
        second = await shop.bench.submit(an_address(of=shop.bench.layout, id="second"))
        while shop.bench.in_work or shop.bench.scheduled(first):
            await run(shop)
        assert [shop.bench.final(each).outcome for each in (first, second)] == [Outcome.SUCCEEDED] * 2
        assert len(shop.handlers.started) == 1 + runs


@in_virtual_time
async def test_an_error_outside_the_handler_that_stays_ends_as_a_dead_letter() -> None:
    async with a_shop() as shop:
        failing(shop, times=99)
        address = await shop.bench.submit(retry=RetryPolicy(attempts=100))
        for _ in range(RetryPolicy().attempts):
            await run(shop)
        final = shop.bench.final(address)
        assert final.failure is not None
        assert final.failure.reason == "AttemptsExhausted"
        assert "InternalError" in final.failure.message
        assert (shop.bench.letters(address), shop.bench.in_work, shop.attempts.roster.under_way) == (1, 0, {})


@in_virtual_time
async def test_a_task_whose_id_could_not_be_looked_at_comes_again_at_no_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silent = True

    async def reserved_for(_ledger: Ledger, _address: TaskAddress) -> str:
        if silent:
            raise BrokerUnreachable("nats://here", "no answer")
        return ""

    monkeypatch.setattr(Ledger, "reserved_for", reserved_for)
    async with a_shop() as shop:
        address = await shop.bench.submit(an_address(of=shop.bench.layout, id="invoice-1764500000"))
        began = shop.bench.server.now()
        await run(shop)
        silent = False
        await run(shop)
        assert shop.bench.server.now() - began >= timedelta(seconds=UNDECIDED_SECONDS)
        final = shop.bench.final(address)
        assert (final.outcome, final.attempt, final.history) == (Outcome.SUCCEEDED, 1, NO_HISTORY)
        assert (shop.bench.letters(address), shop.bench.in_work, shop.attempts.roster.under_way) == (0, 0, {})


@pytest.fixture
def broken() -> Iterator[None]:
    """Have no retry be written."""

    def fail(place: str) -> None:
        if place == "retry.before_record":
            raise RuntimeError("this cannot be written")

    hook(fail)
    yield
    hook(None)


@pytest.mark.usefixtures("broken")
@in_virtual_time
async def test_what_cannot_even_be_settled_comes_again_later_and_then_becomes_a_dead_letter() -> None:
    async with a_shop() as shop:
        address = await shop.bench.submit()
        began = shop.bench.server.now()
        for _ in range(UNDECIDED_TIMES):
            assert shop.bench.letters(address) == 0
            await run(shop, Raised(Failure("ValueError", "no"), retryable=True))
        assert shop.bench.server.now() - began > timedelta(seconds=UNDECIDED_SECONDS * (UNDECIDED_TIMES - 2))
        await shop.bench.pass_time(0.5)
        assert (shop.bench.letters(address), shop.bench.in_work, shop.attempts.roster.under_way) == (1, 0, {})


@pytest.mark.usefixtures("broken")
@in_virtual_time
async def test_what_can_neither_be_settled_nor_buried_comes_again_until_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bury, silent = Settler.bury_unreadable, True

    async def refuse(settler: Settler, delivery: Delivery, failure: Failure) -> None:
        if silent:
            raise BrokerUnreachable("nats://here", "no answer")
        await bury(settler, delivery, failure)

    monkeypatch.setattr(Settler, "bury_unreadable", refuse)
    async with a_shop() as shop:
        address = await shop.bench.submit()
        for _ in range(UNDECIDED_TIMES + 3):
            await run(shop, Raised(Failure("ValueError", "no"), retryable=True))
        assert (shop.bench.letters(address), shop.bench.in_work) == (0, 1)
        silent = False
        await run(shop, Raised(Failure("ValueError", "no"), retryable=True))
        await shop.bench.pass_time(0.5)
        assert (shop.bench.letters(address), shop.bench.in_work, shop.attempts.roster.under_way) == (1, 0, {})


@in_virtual_time
async def test_a_task_that_was_given_back_many_times_is_tried_again_after_a_fault() -> None:
    async with a_shop() as shop:
        address = await shop.bench.submit()
        for _ in range(UNDECIDED_TIMES):
            shop.worker.ledger.give_back((await shop.bench.take(shop.worker)).reply)
        failing(shop, 1)
        await run(shop)
        stored = shop.bench.record(address)
        assert stored is not None
        assert (stored.record.state, shop.bench.letters(address)) == (State.RETRY, 0)


@pytest.mark.parametrize("jitter", [0.0, 0.999])
@pytest.mark.parametrize("seconds", [-1e300, 0.0, 1e15, 1e300])
def test_no_policy_waits_longer_than_the_longest_backoff_or_fails(seconds: float, jitter: float) -> None:
    policy = RetryPolicy(attempts=10**9, backoff_seconds=seconds, max_backoff_seconds=seconds, crashes=10**9)
    now = an_envelope().submitted_at
    due_at = policy.next_at(a_past(errors=1), now, lambda: jitter)
    assert due_at is not None
    assert 0 <= (due_at - now).total_seconds() <= LONGEST_BACKOFF_SECONDS


@in_virtual_time
async def test_a_result_larger_than_the_broker_stores_fails_its_task() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        worker.broker.nats._max_payload = SMALL
        address = await bench.submit()
        held = bench.held(await bench.take(worker))
        assert await worker.settler.settle(held, Succeed(Raw(b'"' + SMALL * b"x" + b'"')))
        final = bench.final(address)
        assert final.outcome is Outcome.FAILED
        assert final.failure is not None
        assert final.failure.reason == "TooLarge"
        assert str(SMALL) in final.failure.message
        assert bench.letters(address) == 1


@pytest.mark.parametrize("kind", ["final", "letter", "retry", "schedule"])
@in_virtual_time
async def test_whatever_is_larger_than_the_broker_stores_is_settled_with_less(kind: str) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        worker.broker.nats._max_payload = SMALL
        text = "x" * (SMALL - 200) if kind in {"letter", "schedule"} else ""
        address = await bench.submit(input={"text": text})
        held = bench.held(await bench.take(worker))
        traceback = "t" * SMALL if kind in {"final", "retry"} else ""
        history = a_past(errors=2)
        failure = Failure("ValueError", "no luck", traceback)
        due_at = bench.server.now() + timedelta(seconds=1)
        verdict = (
            RetryAt(due_at, failure, history) if kind in {"retry", "schedule"} else Bury(failure, history)
        )
        assert await worker.settler.settle(held, verdict)
        await bench.pass_time(0.5)
        assert bench.in_work == 0
        if kind == "retry":
            assert bench.scheduled(address) == 1
            return
        final = bench.final(address)
        assert final.failure is not None
        assert final.failure.reason == ("TooLarge" if kind == "schedule" else "ValueError")
        assert final.history.errors == 2
        assert bench.letters(address) == 1


@in_virtual_time
async def test_a_foreign_body_as_large_as_the_broker_stores_becomes_a_dead_letter_without_it() -> None:
    async with a_shop() as shop:
        shop.worker.broker.nats._max_payload = SMALL
        address = an_address(of=shop.bench.layout)
        shop.bench.publish_raw(address, b"x" * SMALL, Flags().encode())
        await run(shop)
        await shop.bench.pass_time(0.5)
        assert (shop.bench.letters(address), shop.bench.in_work) == (1, 0)
        assert shop.bench.final(address).outcome is Outcome.FAILED


@in_virtual_time
async def test_a_task_with_an_absurd_policy_becomes_a_dead_letter_and_fails_no_attempt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_shop() as shop:
        absurd = RetryPolicy(attempts=10**9, backoff_seconds=1e15, crashes=10**9)
        address = await shop.bench.submit(retry=absurd)
        await run(shop)
        final = shop.bench.final(address)
        assert final.failure is not None
        assert final.failure.reason == "EnvelopeInvalid"
        assert (shop.bench.letters(address), shop.attempts.roster.under_way) == (1, {})
        assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []
