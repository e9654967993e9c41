"""What follows from an ending: a line for each, then where sequences of them lead."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from galley.history import HANDLER_NOT_FOUND, EndedBy, History
from galley.record import Failure
from galley.retry import RetryPolicy, on
from galley_worker.ending import (
    Cancelled,
    Crashed,
    CutOff,
    Ending,
    NotBegun,
    Raised,
    Returned,
    Snoozed,
    TimedOut,
)
from galley_worker.verdict import (
    ATTEMPTS_EXHAUSTED,
    CRASHED,
    DEADLINE_EXCEEDED,
    KILLS_ITS_WORKER,
    TIMED_OUT,
    Await,
    Bury,
    Cancel,
    Circumstances,
    Defer,
    HandBack,
    RetryAt,
    Succeed,
    Verdict,
    after_failure,
    judge,
    runs_alone,
    taken_over,
    without_handler,
)
from tests.unit.galley_worker.deliveries import NOON, a_past

BEGAN = NOON - timedelta(seconds=5)
POLICY = RetryPolicy(attempts=3, backoff_seconds=2, max_backoff_seconds=60, crashes=3)
OOPS = Failure("ValueError", "no such colour", "Traceback ...")
ERROR = Raised(OOPS, retryable=True)
CRASH = Crashed("signal 11 (SIGSEGV)")
HALF = 0.5
SPENT = a_past(errors=2, crashes=2)
"""One more of either is once too often."""


def verdict_on(ending: Ending, history: History | None = None, **changes: Any) -> Verdict:
    policy = changes.pop("policy", POLICY)
    deadline = changes.pop("deadline", None)
    given = Circumstances(4, "w1", BEGAN, deadline, a_past() if history is None else history)
    return judge(ending, policy, given, NOON, lambda: changes.get("jitter", HALF))


def counts(history: History) -> tuple[int, int, int]:
    return history.errors, history.crashes, history.preemptions


def test_what_a_handler_returned_is_its_result_however_often_it_failed_before() -> None:
    assert verdict_on(Returned(Raw(b"42")), a_past(9, 9, 9)) == Succeed(Raw(b"42"))


def test_what_returned_after_its_deadline_has_returned() -> None:
    assert verdict_on(Returned(Raw(b"42")), deadline=BEGAN) == Succeed(Raw(b"42"))


def test_a_pause_the_handler_asks_for_takes_the_place_of_the_backoff_and_counts_as_an_error() -> None:
    for jitter in (0.0, HALF):
        verdict = verdict_on(Raised(OOPS, retryable=True, pause=90.0), jitter=jitter)
        assert isinstance(verdict, RetryAt)
        assert verdict.due_at == NOON + timedelta(seconds=90)
        assert counts(verdict.history) == (1, 0, 0)
    assert isinstance(verdict_on(Raised(OOPS, retryable=True, pause=0.0), SPENT), Bury)


def test_a_snoozed_attempt_runs_again_later_and_costs_nothing() -> None:
    verdict = verdict_on(Snoozed(30.0, OOPS), SPENT)
    assert verdict == Defer(NOON + timedelta(seconds=30), OOPS, SPENT)
    late = verdict_on(Snoozed(30.0, OOPS), deadline=NOON + timedelta(seconds=30))
    assert isinstance(late, Bury)
    assert late.failure.reason == DEADLINE_EXCEEDED


def test_what_was_cancelled_is_cancelled_whatever_is_left_of_its_budgets() -> None:
    assert verdict_on(Cancelled()) == Cancel()
    assert verdict_on(Cancelled(), SPENT, deadline=BEGAN) == Cancel()


@pytest.mark.parametrize(
    ("ending", "counted"),
    [(ERROR, (1, 0, 0)), (TimedOut(30), (1, 0, 0)), (CRASH, (0, 1, 0)), (CutOff("drain"), (0, 0, 1))],
    ids=["error", "timeout", "crash", "preemption"],
)
def test_error_crash_and_preemption_are_counted_apart(ending: Ending, counted: tuple[int, int, int]) -> None:
    verdict = verdict_on(ending, a_past(errors=1, crashes=1, preemptions=1))
    assert isinstance(verdict, RetryAt | HandBack)
    assert counts(verdict.history) == tuple(1 + count for count in counted)


@pytest.mark.parametrize(
    ("ending", "by", "reason", "message"),
    [
        (ERROR, EndedBy.ERROR, "ValueError", "no such colour"),
        (TimedOut(30.0), EndedBy.ERROR, TIMED_OUT, "the attempt took longer than 30 s and was killed"),
        (CRASH, EndedBy.CRASH, CRASHED, "its process died: signal 11 (SIGSEGV)"),
        (CutOff("the worker is shutting down"), EndedBy.PREEMPTION, "CutOff", "the worker is shutting down"),
    ],
    ids=["error", "timeout", "crash", "preemption"],
)
def test_the_history_tells_of_the_attempt_by_whom_when_and_why(
    ending: Ending, by: EndedBy, reason: str, message: str
) -> None:
    verdict = verdict_on(ending)
    assert isinstance(verdict, RetryAt | HandBack)
    [past] = verdict.history.attempts
    assert (past.number, past.worker, past.started_at, past.ended_at) == (4, "w1", BEGAN, NOON)
    assert (past.ended_by, past.reason, past.message) == (by, reason, message)


@pytest.mark.parametrize("ending", [ERROR, TimedOut(1.5), CRASH], ids=["error", "timeout", "crash"])
def test_a_failure_with_budget_left_is_tried_again_and_says_what_failed(ending: Ending) -> None:
    verdict = verdict_on(ending)
    assert isinstance(verdict, RetryAt)
    [past] = verdict.history.attempts
    assert (verdict.failure.reason, verdict.failure.message) == (past.reason, past.message)
    assert verdict.failure.traceback == (OOPS.traceback if ending is ERROR else "")


def test_what_never_began_is_handed_back_and_leaves_no_trace() -> None:
    past = a_past(errors=1, crashes=2, preemptions=3)
    assert verdict_on(NotBegun("no slot"), past, deadline=BEGAN) == HandBack(past)


def test_being_cut_off_is_free_even_when_all_budgets_are_spent_and_the_deadline_is_past() -> None:
    verdict = verdict_on(CutOff("drain"), a_past(errors=3, crashes=3, preemptions=99), deadline=BEGAN)
    assert isinstance(verdict, HandBack)
    assert counts(verdict.history) == (3, 3, 100)


def test_an_error_no_attempt_can_better_buries_at_once_with_its_own_reason() -> None:
    verdict = verdict_on(Raised(OOPS, retryable=False))
    assert isinstance(verdict, Bury)
    assert verdict.failure == OOPS
    assert counts(verdict.history) == (1, 0, 0)


@pytest.mark.parametrize("ending", [ERROR, TimedOut(30)], ids=["error", "timeout"])
def test_the_last_attempt_that_may_fail_buries_and_keeps_the_last_error(ending: Ending) -> None:
    assert isinstance(verdict_on(ending, a_past(errors=1)), RetryAt)
    verdict = verdict_on(ending, a_past(errors=2))
    assert isinstance(verdict, Bury)
    assert verdict.failure.reason == ATTEMPTS_EXHAUSTED
    last = verdict.history.attempts[-1]
    assert verdict.failure.message == f"3 of 3 attempts failed; the last: {last.reason}: {last.message}"
    assert verdict.failure.traceback == (OOPS.traceback if ending is ERROR else "")
    assert counts(verdict.history) == (3, 0, 0)


def test_where_one_attempt_is_all_there_is_its_error_is_the_reason() -> None:
    verdict = verdict_on(ERROR, policy=RetryPolicy(attempts=1))
    assert isinstance(verdict, Bury)
    assert verdict.failure.reason == "ValueError"


def test_a_task_that_crashed_too_often_is_buried_once_it_crashes_alone() -> None:
    beside_others = verdict_on(CRASH, a_past(crashes=2))
    assert isinstance(beside_others, RetryAt)
    assert runs_alone(beside_others.history, POLICY)
    verdict = verdict_on(CRASH, beside_others.history)
    assert isinstance(verdict, Bury)
    assert verdict.failure == Failure(
        KILLS_ITS_WORKER,
        "4 crashes; the last, when it ran alone on its worker: its process died: signal 11 (SIGSEGV)",
    )
    assert counts(verdict.history) == (0, 4, 0)


def test_a_task_that_ends_well_alone_has_done_no_harm() -> None:
    assert isinstance(verdict_on(Returned(Raw(b"1")), a_past(crashes=3)), Succeed)
    assert isinstance(verdict_on(ERROR, a_past(crashes=3)), RetryAt)


def test_neither_budget_is_charged_for_the_other() -> None:
    assert isinstance(verdict_on(ERROR, a_past(errors=1, crashes=2)), RetryAt)
    assert isinstance(verdict_on(CRASH, a_past(errors=2, crashes=1)), RetryAt)


def test_preemptions_bring_no_failure_nearer_to_its_budget_nor_later() -> None:
    often = verdict_on(ERROR, a_past(errors=1, preemptions=50))
    never = verdict_on(ERROR, a_past(errors=1))
    assert isinstance(often, RetryAt)
    assert isinstance(never, RetryAt)
    assert often.due_at == never.due_at


def test_a_crash_once_too_often_is_told_as_one_even_when_errors_are_used_up_too() -> None:
    verdict = verdict_on(CRASH, a_past(errors=3, crashes=3))
    assert isinstance(verdict, Bury)
    assert verdict.failure.reason == KILLS_ITS_WORKER


@pytest.mark.parametrize(
    ("past", "ending", "bound"),
    [
        (a_past(), ERROR, 2),
        (a_past(errors=1), ERROR, 4),
        (a_past(crashes=1), TimedOut(1), 4),
        (a_past(errors=1, crashes=1), CRASH, 8),
        (a_past(errors=1, crashes=1, preemptions=5), CRASH, 8),
    ],
)
def test_waits_double_with_each_error_or_crash(past: History, ending: Ending, bound: float) -> None:
    for jitter in (0.0, 0.25, 0.999):
        verdict = verdict_on(ending, past, jitter=jitter)
        assert isinstance(verdict, RetryAt)
        assert verdict.due_at == NOON + timedelta(seconds=bound * jitter)


def test_waits_stop_growing_at_the_policys_bound() -> None:
    policy = RetryPolicy(attempts=99, backoff_seconds=2, max_backoff_seconds=60, crashes=9)
    verdict = verdict_on(ERROR, a_past(errors=50), policy=policy)
    assert isinstance(verdict, RetryAt)
    assert verdict.due_at == NOON + timedelta(seconds=30)


@pytest.mark.parametrize("ending", [ERROR, TimedOut(30), CRASH], ids=["error", "timeout", "crash"])
def test_what_would_be_due_at_its_deadline_or_later_is_not_tried_again(ending: Ending) -> None:
    due_at = NOON + timedelta(seconds=1)
    for deadline in (due_at, due_at - timedelta(microseconds=1), BEGAN):
        verdict = verdict_on(ending, deadline=deadline)
        assert isinstance(verdict, Bury)
        assert verdict.failure.reason == DEADLINE_EXCEEDED
        last = verdict.history.attempts[-1]
        assert deadline.isoformat() in verdict.failure.message
        assert verdict.failure.message.endswith(f"the last: {last.reason}: {last.message}")
        assert verdict.failure.traceback == (OOPS.traceback if ending is ERROR else "")
    verdict = verdict_on(ending, deadline=due_at + timedelta(microseconds=1))
    assert isinstance(verdict, RetryAt)
    assert verdict.due_at == due_at


def test_a_used_up_budget_is_a_better_reason_than_a_deadline() -> None:
    verdict = verdict_on(ERROR, a_past(errors=2), deadline=BEGAN)
    assert isinstance(verdict, Bury)
    assert verdict.failure.reason == ATTEMPTS_EXHAUSTED


def test_a_worker_that_vanished_counts_as_a_crash_of_its_attempt() -> None:
    history, last = taken_over(a_past(errors=2, crashes=1), POLICY, "w9", 3, NOON, crashed=True)
    assert last is None
    assert counts(history) == (2, 2, 0)
    past = history.attempts[-1]
    assert (past.number, past.ended_by, past.worker, past.ended_at) == (3, EndedBy.CRASH, "w9", NOON)
    assert (past.reason, past.message) == ("WorkerLost", "worker w9 is gone, and did not end the attempt")


def test_a_worker_that_lives_and_lost_its_lease_costs_nothing_even_when_all_budgets_are_spent() -> None:
    history, last = taken_over(SPENT, POLICY, "w9", 3, NOON, crashed=False)
    assert last is None
    assert counts(history) == (SPENT.errors, SPENT.crashes, SPENT.preemptions + 1)
    assert (history.attempts[-1].ended_by, history.attempts[-1].reason) == (EndedBy.PREEMPTION, "LeaseLost")


GIVEN = Circumstances(1, "w1", NOON, None, a_past())


def test_a_task_without_a_handler_is_tried_again_at_growing_intervals_until_the_patience_ends() -> None:
    given, now, pauses = GIVEN, NOON, []
    while True:
        verdict = without_handler("no handler 'x'", given, now, 120)
        if isinstance(verdict, Bury):
            break
        pauses.append((verdict.due_at - now).total_seconds())
        assert verdict.failure == Failure(HANDLER_NOT_FOUND, "no handler 'x'")
        assert counts(verdict.history) == (0, 0, 1), "one line in the history for all of it"
        given, now = replace(given, history=verdict.history, worker="w2"), verdict.due_at
    assert (now - NOON).total_seconds() == 120
    assert pauses[0] == 1
    assert pauses[:-1] == sorted(pauses[:-1])
    assert max(pauses) == 15
    assert verdict.failure.reason == HANDLER_NOT_FOUND
    assert verdict.failure.message == "no handler 'x'; no worker has known it for 120 s"
    assert counts(verdict.history) == (1, 0, 1)


def test_without_patience_an_unknown_handler_fails_at_once() -> None:
    verdict = without_handler("no handler 'x'", GIVEN, NOON, 0)
    assert isinstance(verdict, Bury)
    assert verdict.failure == Failure(HANDLER_NOT_FOUND, "no handler 'x'")


def test_the_wait_for_a_handler_begins_again_with_the_next_attempt() -> None:
    first = without_handler("no", GIVEN, NOON, 120)
    assert isinstance(first, Defer)
    later = replace(GIVEN, attempt=2, history=first.history)
    assert isinstance(without_handler("no", later, NOON + timedelta(hours=1), 120), Defer)


def test_no_task_waits_for_a_handler_beyond_its_deadline() -> None:
    given = replace(GIVEN, deadline=NOON + timedelta(seconds=1))
    verdict = without_handler("no", given, NOON, 120)
    assert isinstance(verdict, Bury)
    assert verdict.failure.reason == DEADLINE_EXCEEDED


def test_a_task_whose_workers_vanish_once_too_often_is_buried() -> None:
    history, last = taken_over(a_past(errors=1, crashes=2), POLICY, "w9", 3, NOON, crashed=True)
    assert (last, runs_alone(history, POLICY)) == (None, True)
    history, last = taken_over(history, POLICY, "w9", 3, NOON, crashed=True)
    message = (
        "4 crashes; the last, when it ran alone on its worker: worker w9 is gone, and did not end the attempt"
    )
    failure = Failure(KILLS_ITS_WORKER, message)
    assert last == Bury(failure, history)
    assert counts(history) == (1, 4, 0)


FAILURES: st.SearchStrategy[Ending] = st.sampled_from([ERROR, TimedOut(1), CRASH])
policies = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 6),
    backoff_seconds=st.floats(0, 100),
    max_backoff_seconds=st.floats(0, 1000),
    crashes=st.integers(1, 6),
)


@given(st.lists(st.one_of(FAILURES, st.just(CutOff("drain"))), max_size=40), policies)
def test_a_task_is_buried_exactly_when_a_budget_is_used_up(
    endings: list[Ending], policy: RetryPolicy
) -> None:
    history = History()
    for ending in endings:
        verdict = verdict_on(ending, history, policy=policy)
        assert not isinstance(verdict, Succeed | Cancel | Await)
        history = verdict.history
        spent = history.errors >= policy.attempts or history.crashes > policy.crashes
        assert isinstance(verdict, Bury) == (spent and not isinstance(ending, CutOff))
        if isinstance(verdict, Bury):
            break


@given(FAILURES, policies, st.integers(0, 5), st.integers(0, 5), st.floats(0, 1, exclude_max=True))
def test_no_retry_is_due_in_the_past_or_later_than_the_policys_bound(
    ending: Ending, policy: RetryPolicy, errors: int, crashes: int, jitter: float
) -> None:
    verdict = verdict_on(ending, a_past(errors, crashes), policy=policy, jitter=jitter)
    if isinstance(verdict, RetryAt):
        assert timedelta() <= verdict.due_at - NOON <= timedelta(seconds=policy.max_backoff_seconds)


def test_a_failure_is_judged_by_the_history_it_already_stands_in() -> None:
    past = a_past(errors=2, crashes=2)
    due_at = NOON + timedelta(seconds=2 * 2**3 * HALF)
    assert after_failure(OOPS, POLICY, past, None, NOON, lambda: HALF) == RetryAt(due_at, OOPS, past)


def raised(*kinds: str) -> Raised:
    return Raised(Failure("HandlerRaised", "it failed"), retryable=True, kinds=kinds)


RULED = replace(
    POLICY,
    rules=(
        on(ValueError, "billing.Refused", 3, then="fail"),
        on("RateLimited", then="snooze", after_seconds=30),
        on(ConnectionError, then="retry", after_seconds=7),
        on("TimedOut", "exit 137", then="fail"),
    ),
)


@pytest.mark.parametrize(
    ("ending", "kind", "pause"),
    [
        (raised("ValueError", "builtins.ValueError", "Exception"), Bury, None),
        (raised("UnicodeError", "ValueError"), Bury, None),
        (raised("Refused", "billing.Refused"), Bury, None),
        (raised("Refused", "other.Refused"), RetryAt, None),
        (raised("exit 3"), Bury, None),
        (raised("exit 4"), RetryAt, None),
        (raised("RateLimited"), Defer, 30.0),
        (raised("ConnectionRefusedError", "ConnectionError"), RetryAt, 7.0),
        (TimedOut(3), Bury, None),
        (Crashed("exit code 137"), Bury, None),
        (Crashed("signal 9 (SIGKILL)"), RetryAt, None),
    ],
)
def test_the_first_rule_that_names_a_failure_decides(
    ending: Ending, kind: type[Verdict], pause: float | None
) -> None:
    verdict = verdict_on(ending, policy=RULED)
    assert type(verdict) is kind
    if pause is not None:
        assert verdict.due_at == NOON + timedelta(seconds=pause)  # type: ignore[union-attr]


def test_what_a_handler_says_itself_comes_before_the_rules() -> None:
    policy = replace(POLICY, rules=(on("Exception", then="fail"),))
    asked = Raised(Failure("RetryAfter", "busy"), retryable=True, pause=9.0, kinds=("Exception",))
    assert isinstance(verdict_on(asked, policy=policy), RetryAt)
    policy = replace(POLICY, rules=(on("Exception", then="retry"),))
    final = Raised(Failure("NonRetryable", "no"), retryable=False, kinds=("Exception",))
    assert isinstance(verdict_on(final, policy=policy), Bury)


def test_a_rule_that_retries_gives_no_attempt_more() -> None:
    policy = replace(POLICY, rules=(on("Exception", then="retry"),))
    assert isinstance(verdict_on(raised("Exception"), a_past(errors=2), policy=policy), Bury)
