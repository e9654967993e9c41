"""When a task that failed is tried again."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galley.errors import SubmissionInvalid
from galley.history import History
from galley.retry import RetryPolicy, on
from galley.when import When

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
def test_a_task_is_tried_again_exactly_while_its_attempts_last(
    policy: RetryPolicy, history: History, jitter: float
) -> None:
    left = history.errors < policy.attempts
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


@pytest.mark.parametrize(
    ("changes", "waits"),
    [
        ({}, [2, 4, 8, 16, 20]),
        ({"backoff": "exponential"}, [2, 4, 8, 16, 20]),
        ({"backoff": "linear"}, [2, 4, 6, 8, 10]),
        ({"backoff": "constant"}, [2, 2, 2, 2, 2]),
        ({"waits_seconds": (1, 60, 3600)}, [1, 60, 3600, 3600, 3600]),
    ],
)
def test_waits_grow_as_the_policy_says(changes: dict[str, Any], waits: list[float]) -> None:
    policy = RetryPolicy(attempts=9, backoff_seconds=2, max_backoff_seconds=20, jitter=0.0, **changes)
    found = [_wait(policy, History(errors=n), 0.3) for n in range(1, 6)]
    assert [one.total_seconds() for one in found if one] == waits


@pytest.mark.parametrize(("share", "wait"), [(0.0, 10), (0.5, 6), (1.0, 2)])
def test_a_share_of_the_wait_is_drawn(share: float, wait: float) -> None:
    policy = RetryPolicy(backoff_seconds=10, jitter=share)
    assert _wait(policy, History(errors=1), 0.2) == timedelta(seconds=wait)


def test_a_policy_that_uses_nothing_new_is_encoded_as_before() -> None:
    """Digests of tasks that were declared before depend on it."""
    assert msgspec.json.encode(RetryPolicy()) == (
        b'{"attempts":3,"backoffSeconds":1.0,"maxBackoffSeconds":300.0,"crashes":3}'
    )


class Busy(Exception):
    pass


def test_classes_names_and_exit_codes_make_a_rule() -> None:
    rule = on(ValueError, Busy, "requests.HTTPError", 3, then="fail")
    assert rule.failures == ("ValueError", f"{__name__}.Busy", "requests.HTTPError", "exit 3")


@pytest.mark.parametrize(
    "changes",
    [
        {"backoff": "fibonacci"},
        {"jitter": 1.5},
        {"jitter": float("nan")},
        {"waits_seconds": (1,) * 21},
        {"waits_seconds": (-1,)},
        {"rules": (on(then="fail"),)},
        {"rules": (on("", then="fail"),)},
        {"rules": (on("x" * 201, then="fail"),)},
        {"rules": (on("ValueError", then="fail", after_seconds=3),)},
        {"rules": (on("ValueError", then="retry", after_seconds=-3),)},
        {"rules": (on("ValueError", then="retry"),) * 21},
    ],
)
def test_policies_no_task_can_have_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SubmissionInvalid, match=r"retry\.") as refused:
        When(retry=RetryPolicy(**changes))
    assert len(str(refused.value)) < 300
