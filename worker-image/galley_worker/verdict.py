"""What follows from the way an attempt ended. Pure: the time and the dice are handed in."""

from collections.abc import Callable
from datetime import datetime
from typing import Final, assert_never

from msgspec import Raw, Struct

from galley.history import WORKER_LOST, EndedBy, History, PastAttempt
from galley.record import Failure
from galley.retry import RetryPolicy
from galley_worker.ending import Cancelled, Crashed, CutOff, Ending, NotBegun, Raised, Returned, TimedOut

KILLS_ITS_WORKER: Final = "KillsItsWorker"
ATTEMPTS_EXHAUSTED: Final = "AttemptsExhausted"
DEADLINE_EXCEEDED: Final = "DeadlineExceeded"
TIMED_OUT: Final = "TimedOut"
CRASHED: Final = "Crashed"


class Succeed(Struct, frozen=True):
    """Store the result."""

    result: Raw


class RetryAt(Struct, frozen=True):
    """Try again then."""

    due_at: datetime
    failure: Failure
    history: History


class Bury(Struct, frozen=True):
    """Never try again; keep it among the dead letters."""

    failure: Failure
    history: History


class Cancel(Struct, frozen=True):
    """Somebody wanted it stopped."""


class HandBack(Struct, frozen=True):
    """Its worker stops, or has no slot for it: another one runs it at no cost to the task."""

    history: History


Verdict = Succeed | RetryAt | Bury | Cancel | HandBack


class Circumstances(Struct, frozen=True):
    """What a judge has to know beside the ending."""

    attempt: int
    worker: str
    started_at: datetime
    deadline: datetime | None
    history: History


def judge(
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
        case Returned(result):
            return Succeed(result)
        case Cancelled():
            return Cancel()
        case CutOff(why):
            return HandBack(_lengthened(given, EndedBy.PREEMPTION, Failure("CutOff", why), now))
        case NotBegun():
            return HandBack(given.history)
        case Raised(failure, retryable):
            history = _lengthened(given, EndedBy.ERROR, failure, now)
            if not retryable:
                return Bury(failure, history)
        case TimedOut(seconds):
            failure = Failure(TIMED_OUT, f"the attempt took longer than {seconds:g} s and was killed")
            history = _lengthened(given, EndedBy.ERROR, failure, now)
        case Crashed(detail):
            failure = Failure(CRASHED, f"its process died: {detail}")
            history = _lengthened(given, EndedBy.CRASH, failure, now)
        case _:
            assert_never(ending)
    return after_failure(failure, policy, history, given.deadline, now, jitter)


def after_failure(  # noqa: PLR0917 - the facts a retry depends on
    failure: Failure,
    policy: RetryPolicy,
    history: History,
    deadline: datetime | None,
    now: datetime,
    jitter: Callable[[], float],
) -> RetryAt | Bury:
    """Return whether a task that failed, as `history` tells, is tried again."""
    if history.crashes >= policy.crashes:
        return Bury(
            Failure(KILLS_ITS_WORKER, f"{history.crashes} crashes; the last: {failure.message}"), history
        )
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


def taken_over(
    history: History, policy: RetryPolicy, lost_worker: str, attempt: int, now: datetime
) -> tuple[History, Bury | None]:
    """Return the history of a task whose worker vanished, and whether that was once too often."""
    failure = Failure(WORKER_LOST, f"worker {lost_worker} stopped renewing its lease")
    past = PastAttempt(attempt, EndedBy.CRASH, failure.reason, failure.message, lost_worker, now)
    longer = history.with_attempt(past)
    if longer.crashes < policy.crashes:
        return longer, None
    return longer, Bury(
        Failure(KILLS_ITS_WORKER, f"{longer.crashes} crashes; the last: {failure.message}"), longer
    )


def _lengthened(given: Circumstances, by: EndedBy, failure: Failure, now: datetime) -> History:
    return given.history.with_attempt(
        PastAttempt(given.attempt, by, failure.reason, failure.message, given.worker, now, given.started_at)
    )
