"""What keeps a broken dependency from becoming a storm: the retry budget and the circuit."""

import asyncio
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from galley.history import History
from galley.record import Failure, Outcome
from galley_worker.circuit import Circuit, CircuitState
from galley_worker.ending import Raised
from galley_worker.retry_budget import RetryBudget
from galley_worker.verdict import RetryAt
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.deliveries import NOON
from tests.unit.galley_worker.test_attempts import RETURNED, a_shop

FAILED = Raised(Failure("HandlerRaised", "the other side is down"), retryable=True)


def retry(seconds: float) -> RetryAt:
    return RetryAt(NOON + timedelta(seconds=seconds), Failure("HandlerRaised", "no"), History())


@given(
    st.floats(0, 1),
    st.floats(0.1, 100),
    st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=200),
)
def test_a_worker_schedules_no_more_retries_than_its_budget_in_any_time(
    share: float, floor: float, attempts: list[tuple[float, bool]]
) -> None:
    budget, now = RetryBudget(share, floor, NOON), NOON
    due: list[float] = []
    ended = 0
    for pause, fails in attempts:
        now += timedelta(seconds=pause)
        ended += 1
        budget.ended(now)
        if fails:
            verdict = budget.paced(RetryAt(now, Failure("x", "x"), History()), now, None)
            assert verdict.due_at >= now, "none is lost, and none is due before it was"
            due.append((verdict.due_at - NOON).total_seconds())
    for at in due:
        by_then = sum(each <= at for each in due)
        assert by_then <= floor * (10 + at) + share * ended + 1


def test_within_the_budget_retries_are_due_as_their_policy_says() -> None:
    budget = RetryBudget(0.2, 1, NOON)
    assert budget.paced(retry(3), NOON, None) == retry(3)
    assert budget.delayed == 0


def test_no_retry_is_put_off_beyond_the_deadline_of_its_task() -> None:
    budget = RetryBudget(0, 0.1, NOON)
    paced = [budget.paced(retry(1), NOON, NOON + timedelta(seconds=15)) for _ in range(9)]
    assert max(each.due_at for each in paced) <= NOON + timedelta(seconds=15)


@in_virtual_time
async def test_a_circuit_opens_when_all_fail_and_a_trial_decides() -> None:
    told: list[CircuitState] = []
    loop = asyncio.get_running_loop()
    circuit = Circuit(3, 30, loop.call_later, lambda: told.append(circuit.state))
    for failed in (True, True, False, True, True):
        circuit.ended(failed=failed)
    assert circuit.room(8, 0) == 8, "a success between them begins the count again"
    circuit.ended(failed=True)
    assert (circuit.state, circuit.room(8, 0)) == (CircuitState.OPEN, 0)
    circuit.ended(failed=True)  # it was under way
    await asyncio.sleep(31)
    assert (circuit.state, circuit.room(8, 0), circuit.room(7, 1)) == (CircuitState.TRIAL, 1, 0)
    circuit.ended(failed=True)
    assert (circuit.state, circuit.opened) == (CircuitState.OPEN, 2)
    await asyncio.sleep(31)
    circuit.ended(failed=False)
    assert (circuit.state, circuit.room(8, 0)) == (CircuitState.CLOSED, 8)
    assert told == [CircuitState.TRIAL, CircuitState.TRIAL, CircuitState.CLOSED]


@in_virtual_time
async def test_a_trial_does_not_wait_for_attempts_that_run_for_long() -> None:
    circuit = Circuit(1, 30, asyncio.get_running_loop().call_later)
    circuit.ended(failed=True)
    assert circuit.room(6, 2) == 0
    await asyncio.sleep(31)
    assert [circuit.room(6, 2), circuit.room(5, 3)] == [1, 0]
    assert [circuit.room(0, 2), circuit.room(7, 1), circuit.room(6, 2)] == [0, 1, 0]  # one was cancelled
    circuit.ended(failed=True)
    assert circuit.room(7, 1) == 0


@in_virtual_time
async def test_attempts_pace_their_retries_and_tell_the_circuit() -> None:
    async with a_shop() as shop:
        parts, now = shop.attempts._parts, shop.bench.server.now()
        parts.budget = RetryBudget(0, 0.001, now)
        parts.circuit = Circuit(1, 30, asyncio.get_running_loop().call_later)
        address = await shop.bench.submit()
        attempt = shop.begin(await shop.bench.take(shop.worker))
        await shop.bench.pass_time(1)
        shop.handlers.started[-1].end(FAILED)
        await attempt
        stored = shop.bench.record(address)
        assert stored is not None
        assert stored.record.due_at is not None
        assert stored.record.due_at > now + timedelta(seconds=900)
        assert parts.circuit.opened == 1
        other = await shop.bench.submit()
        attempt = shop.begin(await shop.bench.take(shop.worker))
        await shop.bench.pass_time(1)
        shop.handlers.started[-1].end(RETURNED)
        await attempt
        assert shop.bench.final(other).outcome is Outcome.SUCCEEDED
        assert parts.circuit.state is CircuitState.CLOSED
