"""When a task that failed is tried again."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from galley.history import History
from galley.retry import RetryPolicy

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)

policies = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 100),
    backoff_seconds=st.floats(0, 86_400),
    max_backoff_seconds=st.floats(0, 86_400),
    crashes=st.integers(1, 20),
)
histories = st.builds(
    History, errors=st.integers(0, 120), crashes=st.integers(0, 25), preemptions=st.integers(0, 10_000)
)
jitters = st.floats(0, 1, exclude_max=True)


def _wait(policy: RetryPolicy, history: History, jitter: float) -> timedelta | None:
    due_at = policy.next_at(history, NOW, lambda: jitter)
    return None if due_at is None else due_at - NOW


@given(policies, histories, jitters)
def test_a_task_is_tried_again_exactly_while_both_budgets_last(
    policy: RetryPolicy, history: History, jitter: float
) -> None:
    left = history.errors < policy.attempts and history.crashes < policy.crashes
    assert (_wait(policy, history, jitter) is not None) == left


@given(policies, histories, jitters)
def test_a_wait_is_never_negative_nor_beyond_the_bound(
    policy: RetryPolicy, history: History, jitter: float
) -> None:
    wait = _wait(policy, history, jitter)
    assert wait is None or timedelta(0) <= wait <= timedelta(seconds=policy.max_backoff_seconds)


@given(
    histories.filter(lambda history: history.errors < 100 and history.crashes < 20), st.integers(0, 10_000)
)
def test_preemptions_cost_neither_an_attempt_nor_a_wait(history: History, more: int) -> None:
    policy = RetryPolicy(attempts=200, crashes=100)
    longer = History(history.errors, history.crashes, history.preemptions + more)
    assert _wait(policy, history, 0.5) == _wait(policy, longer, 0.5)


@given(st.integers(1, 98))
def test_the_bound_of_the_wait_doubles_until_it_is_reached(errors: int) -> None:
    policy = RetryPolicy(attempts=100, backoff_seconds=1, max_backoff_seconds=300)
    before = _wait(policy, History(errors=errors), 0.5)
    after = _wait(policy, History(errors=errors + 1), 0.5)
    assert before is not None
    assert after == min(before * 2, timedelta(seconds=150))


def test_the_wait_is_drawn_from_zero_on() -> None:
    policy = RetryPolicy(attempts=5, backoff_seconds=8, max_backoff_seconds=300)
    failed_once = History(errors=1)
    assert _wait(policy, failed_once, 0.0) == timedelta(0)
    assert _wait(policy, failed_once, 0.25) == timedelta(seconds=2)
    assert _wait(policy, failed_once, 0.5) == timedelta(seconds=4)


def test_one_attempt_means_no_retry() -> None:
    assert RetryPolicy(attempts=1).next_at(History(errors=1), NOW, lambda: 0.5) is None
