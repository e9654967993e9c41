"""What the rules of a task, its handler and its queue say about an attempt: its timeout, and its verdict."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from galley.history import History
from galley.record import Failure
from galley.retry import RetryPolicy
from galley_worker.claim import Held, Who
from galley_worker.ending import Ending, Raised, TimedOut
from galley_worker.runners.runners import Runners
from galley_worker.verdict import (
    DEADLINE_EXCEEDED,
    Bury,
    Circumstances,
    Verdict,
    dropped,
    judge,
    without_handler,
)


@dataclass(frozen=True)
class Rules:
    """What holds for each attempt of the queue."""

    namespace: str
    queue: str
    worker: Who
    policy: RetryPolicy
    timeout_seconds: float
    unknown_handler_seconds: float
    """How long a task may wait for a worker that knows its handler, or has its key."""
    key_service_seconds: float = 15.0
    """Pause before a task is tried again that cannot be decrypted since the key service does not answer."""
    plaintext: bool = True
    """Whether a task that is not encrypted may run."""


class Judge:
    """Applies the rules: a task's own come first, then those of its handler, then those of the queue."""

    def __init__(
        self, rules: Rules, runners: Runners, now: Callable[[], datetime], jitter: Callable[[], float]
    ) -> None:
        self._rules, self._runners, self._now, self._jitter = rules, runners, now, jitter

    def policy(self, held: Held) -> RetryPolicy:
        """Return the retry policy of a task."""
        if held.envelope.retry is not None:
            return held.envelope.retry
        rules = self._runners.rules.get(held.envelope.handler)
        return self._rules.policy if rules is None or rules.retry is None else rules.retry

    def timeout(self, held: Held) -> float:
        """Return the seconds this attempt has, at most up to the deadline of its task."""
        rules = self._runners.rules.get(held.envelope.handler)
        own = held.envelope.timeout_seconds or (rules.timeout_seconds if rules is not None else None)
        timeout = own or self._rules.timeout_seconds
        if held.envelope.deadline is None:
            return timeout
        return min(timeout, (held.envelope.deadline - self._now()).total_seconds())

    def verdict(self, held: Held, ending: Ending) -> Verdict:
        """Return the verdict on an attempt that ended."""
        now = self._now()
        deadline = held.envelope.deadline
        if isinstance(ending, TimedOut) and deadline is not None and now >= deadline:
            failure = Failure(DEADLINE_EXCEEDED, f"it had not ended by its deadline, {deadline.isoformat()}")
            return Bury(failure, held.history)
        return judge(ending, self.policy(held), self._circumstances(held), now, self._jitter)

    def after_error(self, held: Held, failure: Failure) -> Verdict:
        """Return the verdict on an attempt that failed outside its handler."""
        ending = Raised(failure, retryable=True)
        # With the default policy: the task's own may be what cannot be applied.
        return judge(ending, RetryPolicy(), self._circumstances(held), self._now(), self._jitter)

    def without_handler(self, held: Held) -> Verdict:
        """Return the verdict on a task whose handler this worker does not know."""
        known = ", ".join(sorted(self._runners.handlers)) or "none"
        message = (
            f"no handler {held.envelope.handler!r} in queue {self._rules.queue!r};"
            f" known to worker {self._rules.worker.name}: {known}"
        )
        return without_handler(
            message, self._circumstances(held), self._now(), self._rules.unknown_handler_seconds
        )

    def dropped(self, held: Held) -> History:
        """Return the history with an attempt that was dropped because its lease was lost."""
        return dropped(self._circumstances(held), self._now())

    def _circumstances(self, held: Held) -> Circumstances:
        return Circumstances(
            held.flags.attempt,
            self._rules.worker.name,
            held.started_at,
            held.envelope.deadline,
            held.history,
        )
