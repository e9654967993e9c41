"""When a task that did not succeed is tried again."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Final

from msgspec import Meta, Struct

from galley.bounds import ATTEMPTS, BACKOFF_SECONDS, CRASHES
from galley.history import History

LONGEST_BACKOFF_SECONDS: Final = float(BACKOFF_SECONDS.most)
"""Longest wait between two attempts, as in manifests; a policy that asks for more gets this."""

_Backoff = Annotated[float, Meta(ge=BACKOFF_SECONDS.least, le=BACKOFF_SECONDS.most)]


class RetryPolicy(Struct, frozen=True, rename="camel"):
    """How often, and how soon, a task is tried again.

    Errors and crashes have budgets of their own; preemptions are free.
    """

    attempts: Annotated[int, Meta(ge=ATTEMPTS.least, le=ATTEMPTS.most)] = 3
    """Executions that may end in an error before the task is a dead letter, 1 to 100; 1 means no retry."""
    backoff_seconds: _Backoff = 1.0
    """Upper bound of the first wait, 0 to 86,400 s; it doubles with each further error or crash."""
    max_backoff_seconds: _Backoff = 300.0
    """The bound the doubling stops at, 0 to 86,400 s."""
    crashes: Annotated[int, Meta(ge=CRASHES.least, le=CRASHES.most)] = 3
    """Crashes the task may cause before it is a dead letter, 1 to 20."""

    def next_at(self, history: History, now: datetime, jitter: Callable[[], float]) -> datetime | None:
        """Return when the next attempt is due, or None if a budget is used up.

        Waits are "full jitter": uniform between 0 and `backoff * 2^(n-1)`, capped, n being the errors
        and crashes so far (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

        Args:
            history: what went wrong so far, the present attempt included.
            now: the present time.
            jitter: returns a number in [0, 1).
        """
        if history.errors >= self.attempts or history.crashes >= self.crashes:
            return None
        failures = max(1, history.errors + history.crashes)
        doubled = self.backoff_seconds * 2.0 ** min(failures - 1, 60)
        bound = max(0.0, min(self.max_backoff_seconds, doubled, LONGEST_BACKOFF_SECONDS))
        return now + timedelta(seconds=bound * jitter())
