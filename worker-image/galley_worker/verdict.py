"""Verdicts: what follows from the ending of an attempt. Pure: time and jitter are arguments."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, assert_never

from msgspec import Raw, Struct
from msgspec.structs import replace

from galley.history import HANDLER_NOT_FOUND, MESSAGE_LIMIT, WORKER_LOST, EndedBy, History, PastAttempt
from galley.record import Failure
from galley.reference import Reference
from galley.retry import FailureRule, RetryPolicy, Then
from galley_worker.ending import (
    Cancelled,
    Continued,
    Crashed,
    CutOff,
    Ending,
    NotBegun,
    Raised,
    Returned,
    Snoozed,
    TimedOut,
)

KILLS_ITS_WORKER: Final = "KillsItsWorker"
ATTEMPTS_EXHAUSTED: Final = "AttemptsExhausted"
DEADLINE_EXCEEDED: Final = "DeadlineExceeded"
TIMED_OUT: Final = "TimedOut"
CRASHED: Final = "Crashed"
INTERNAL_ERROR: Final = "InternalError"
TOO_LARGE: Final = "TooLarge"
LEASE_LOST: Final = "LeaseLost"


DEFER_SECONDS: Final = (1.0, 15.0)
"""Shortest and longest pause before a task whose handler a worker does not know is tried again."""


class Succeed(Struct, frozen=True):
    """Store the result; the task has succeeded."""

    result: Raw
    large: Reference | None = None
    """Where it is stored, if it is too large for a record."""


class Await(Struct, frozen=True):
    """Have a workflow take the place of the handler; the task ends as it does. Costs no attempt."""

    plan: bytes


class RetryAt(Struct, frozen=True):
    """Try again at that time."""

    due_at: datetime
    failure: Failure
    history: History


class Defer(Struct, frozen=True):
    """Try the same attempt again at that time, since its handler is not known here or asked for it.

    Costs no attempt.
    """

    due_at: datetime
    failure: Failure
    history: History


class Bury(Struct, frozen=True):
    """Do not try again; keep a dead letter."""

    failure: Failure
    history: History


class Cancel(Struct, frozen=True):
    """The task was cancelled, or another one of its unique key took its place."""

    failure: Failure | None = None
    """Why, if it was not asked for."""


class HandBack(Struct, frozen=True):
    """Its worker stops, or has no slot for it: another worker runs it. Costs no attempt."""

    history: History


Verdict = Succeed | Await | RetryAt | Defer | Bury | Cancel | HandBack


class Circumstances(Struct, frozen=True):
    """What a verdict depends on beside the ending."""

    attempt: int
    worker: str
    started_at: datetime
    deadline: datetime | None
    history: History


def judge(  # noqa: C901, PLR0911 - one case for each ending
    ending: Ending, policy: RetryPolicy, given: Circumstances, now: datetime, jitter: Callable[[], float]
) -> Verdict:
    """Return what follows from an ending.

    Args:
        ending: how the attempt ended.
        policy: the task's, or else its queue's.
        given: attempt number, worker, times and the history before this attempt.
        now: the present time.
        jitter: returns a number in [0, 1).
    """
    match ending:
        case Returned(result, large):
            return Succeed(result, large)
        case Continued(plan):
            return Await(plan)
        case Cancelled():
            return Cancel()
        case CutOff(why):
            return HandBack(_lengthened(given, EndedBy.PREEMPTION, Failure("CutOff", why), now))
        case NotBegun():
            return HandBack(given.history)
        case Snoozed(pause, failure):
            return _snoozed(pause, failure, given, now)
        case Raised():
            return _raised(ending, policy, given, now, jitter)
        case TimedOut(seconds, batch):
            failure = Failure(TIMED_OUT, f"the attempt took longer than {seconds:g} s and was killed")
            history = _lengthened(given, EndedBy.ERROR, failure, now, batch)
            rule = policy.rule_for((TIMED_OUT, "TimeoutError"))
        case Crashed(detail, batch):
            failure = Failure(CRASHED, f"its process died: {detail}")
            history = _lengthened(given, EndedBy.CRASH, failure, now, batch)
            if runs_alone(given.history, policy):
                return _killed(failure, history)
            rule = policy.rule_for((CRASHED, detail.replace("exit code", "exit", 1)))
        case _:
            assert_never(ending)
    if _fails(rule):
        return Bury(failure, history)
    policy = _paused(policy, rule.after_seconds if rule is not None else None)
    return after_failure(failure, policy, history, given.deadline, now, jitter)


def _raised(
    ending: Raised, policy: RetryPolicy, given: Circumstances, now: datetime, jitter: Callable[[], float]
) -> RetryAt | Defer | Bury:
    failure, pause = ending.failure, ending.pause
    history = _lengthened(given, EndedBy.ERROR, failure, now, ending.batch)
    # What the handler says itself comes before the rules.
    said = pause is not None or not ending.retryable
    rule = None if said else policy.rule_for((failure.reason, *ending.kinds))
    if not ending.retryable or _fails(rule):
        return Bury(failure, history)
    if rule is not None and rule.then is Then.SNOOZE:
        later = policy.backoff_seconds if rule.after_seconds is None else rule.after_seconds
        return _snoozed(later, failure, given, now)
    policy = _paused(policy, rule.after_seconds if rule is not None else pause)
    return after_failure(failure, policy, history, given.deadline, now, jitter)


def _fails(rule: FailureRule | None) -> bool:
    return rule is not None and rule.then is Then.FAIL


def _paused(policy: RetryPolicy, seconds: float | None) -> RetryPolicy:
    """Return a policy whose wait is exactly so long, if it is to be."""
    return policy if seconds is None else replace(policy, waits_seconds=(seconds,), jitter=0.0)


def _snoozed(pause: float, failure: Failure, given: Circumstances, now: datetime) -> Defer | Bury:
    due_at = now + timedelta(seconds=pause)
    if given.deadline is not None and due_at >= given.deadline:
        late = f"it asked to run again after its deadline, {given.deadline.isoformat()}: {failure.message}"
        return Bury(Failure(DEADLINE_EXCEEDED, late), given.history)
    return Defer(due_at, failure, given.history)


def after_failure(  # noqa: PLR0917 - the facts a retry depends on
    failure: Failure,
    policy: RetryPolicy,
    history: History,
    deadline: datetime | None,
    now: datetime,
    jitter: Callable[[], float],
) -> RetryAt | Bury:
    """Return whether a task is tried again after a failure."""
    due_at = policy.next_at(history, now, jitter)
    if due_at is None:
        reason = failure.reason if policy.attempts == 1 else ATTEMPTS_EXHAUSTED
        return Bury(
            Failure(reason, f"{history.errors} of {policy.attempts} attempts failed; the last:"
                    f" {failure.reason}: {failure.message}", failure.traceback), history,
        )  # fmt: skip
    if deadline is not None and due_at >= deadline:
        return Bury(
            Failure(DEADLINE_EXCEEDED, f"no time for another attempt before {deadline.isoformat()}; the last:"
                    f" {failure.reason}: {failure.message}", failure.traceback), history,
        )  # fmt: skip
    return RetryAt(due_at, failure, history)


def without_handler(
    message: str, given: Circumstances, now: datetime, patience_seconds: float
) -> Defer | Bury:
    """Return what follows if a worker does not know a task's handler, as during a rollout.

    The task is tried again until `patience_seconds` after it was first found so, at growing intervals; its
    history has one line for all of that, which begins at that time.
    """
    seen = next((past for past in given.history.attempts if _unknown_handler(past, given.attempt)), None)
    first = seen.started_at if seen is not None and seen.started_at is not None else now
    waited = (now - first).total_seconds()
    failure = Failure(HANDLER_NOT_FOUND, message)
    if waited >= patience_seconds:
        if seen is not None:
            failure = Failure(HANDLER_NOT_FOUND, f"{message}; no worker has known it for {waited:.0f} s")
        return Bury(failure, _lengthened(given, EndedBy.ERROR, failure, now))
    pause = min(max(waited / 2, DEFER_SECONDS[0]), DEFER_SECONDS[1])
    due_at = now + timedelta(seconds=min(pause, patience_seconds - waited))
    if given.deadline is not None and due_at >= given.deadline:
        late = f"no worker knew its handler before {given.deadline.isoformat()}: {message}"
        return Bury(Failure(DEADLINE_EXCEEDED, late), given.history)
    past = PastAttempt(
        given.attempt, EndedBy.PREEMPTION, HANDLER_NOT_FOUND, message, given.worker, now, first
    )
    if seen is None:
        return Defer(due_at, failure, given.history.with_attempt(past))
    short = replace(past, message=message[:MESSAGE_LIMIT])
    attempts = tuple(short if one is seen else one for one in given.history.attempts)
    return Defer(due_at, failure, replace(given.history, attempts=attempts))


def _unknown_handler(past: PastAttempt, attempt: int) -> bool:
    return (past.number, past.ended_by, past.reason) == (attempt, EndedBy.PREEMPTION, HANDLER_NOT_FOUND)


def dropped(given: Circumstances, now: datetime) -> History:
    """Return the history of a task whose attempt was stopped because its lease was lost. Free of cost."""
    return given.history.with_attempt(_lost_lease(given.attempt, given.worker, now, given.started_at))


def taken_over(
    history: History,
    policy: RetryPolicy,
    lost_worker: str,
    attempt: int,
    now: datetime,
    *,
    crashed: bool,
    end: str = "",
) -> tuple[History, Bury | None]:
    """Return the history of a task that another worker did not end, and whether that was a crash too many.

    Args:
        history: the task's, before that attempt.
        policy: the task's, or else its queue's.
        lost_worker: the worker that ran it.
        attempt: number of the attempt.
        now: the present time.
        crashed: whether the process of that worker is gone; otherwise the attempt is free.
        end: how that worker ended, if the cluster has said it.
    """
    if not crashed:
        return history.with_attempt(_lost_lease(attempt, lost_worker, now)), None
    said = f"worker {lost_worker} is gone, and did not end the attempt{f': {end}' if end else ''}"
    failure = Failure(WORKER_LOST, said)
    past = PastAttempt(attempt, EndedBy.CRASH, failure.reason, failure.message, lost_worker, now)
    longer = history.with_attempt(past)
    return longer, _killed(failure, longer) if runs_alone(history, policy) else None


def runs_alone(history: History, policy: RetryPolicy) -> bool:
    """Return whether the next attempt is to be alone on its worker.

    A task that was running when its worker died need not be the cause. One that crashes alone is.
    """
    return history.crashes >= policy.crashes


def _killed(failure: Failure, history: History) -> Bury:
    told = f"{history.crashes} crashes; the last, when it ran alone on its worker: {failure.message}"
    return Bury(Failure(KILLS_ITS_WORKER, told), history)


def _lost_lease(attempt: int, worker: str, now: datetime, began: datetime | None = None) -> PastAttempt:
    message = f"worker {worker} lost its lease"
    return PastAttempt(attempt, EndedBy.PREEMPTION, LEASE_LOST, message, worker, now, began)


def _lengthened(
    given: Circumstances, by: EndedBy, failure: Failure, now: datetime, batch: int = 0
) -> History:
    reason, message, trace = failure.reason, failure.message, failure.traceback
    past = PastAttempt(given.attempt, by, reason, message, given.worker, now, given.started_at, trace, batch)
    return given.history.with_attempt(past)
