"""When a failed task is retried."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from galley.bounds import ATTEMPTS, BACKOFF_SECONDS, CRASHES
from galley.history import History

LONGEST_BACKOFF_SECONDS: Final = float(BACKOFF_SECONDS.most)
"""Longest wait between two attempts, as in manifests; a policy that asks for more gets this."""

_Backoff = Annotated[float, Meta(ge=BACKOFF_SECONDS.least, le=BACKOFF_SECONDS.most)]


WAITS: Final = 20
"""Entries a list of waits may have."""

RULES: Final = 20
"""Rules a policy may have, and failures one of them may name."""


class Backoff(StrEnum):
    """How the wait grows with each error or crash of a task."""

    EXPONENTIAL = "exponential"
    """It doubles."""
    LINEAR = "linear"
    """It grows by the first wait."""
    CONSTANT = "constant"
    """It stays."""


class Then(StrEnum):
    """What happens after a failure that matches a rule."""

    RETRY = "retry"
    """The task is tried again, while it has attempts left."""
    FAIL = "fail"
    """It is a dead letter at once."""
    SNOOZE = "snooze"
    """The same attempt runs again later, and none is used up; after a crash or a timeout, as `retry`."""


_KINDS: Final = 12
"""Classes of an exception, its own and its bases, whose names count."""

_Kind = Annotated[str, Meta(min_length=1, max_length=200)]


class FailureRule(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What happens after certain failures; `galley.on` creates one from exception classes."""

    failures: Annotated[tuple[_Kind, ...], Meta(min_length=1, max_length=RULES)]
    """Exception classes, by name or with their module, which stand for their subclasses, too; `exit 3` for an
    exit code of a command or a process; or a reason, such as `TimedOut`, `Crashed` or `CommandFailed`."""
    then: Then
    after_seconds: _Backoff | None = None
    """Pause before the task runs again, 0 to 86,400 s; None is that of the policy."""


def on(
    *what: type[BaseException] | str | int, then: Literal["retry", "fail", "snooze"] | Then,
    after_seconds: float | None = None,
) -> FailureRule:  # fmt: skip
    """Return a rule for `RetryPolicy(rules=...)`.

    Args:
        what: exception classes, names of classes that this program does not import, exit codes, or reasons.
        then: `retry`, `fail` (a dead letter at once) or `snooze` (again later, at no cost).
        after_seconds: pause before it runs again; that of the policy if left out.
    """
    return FailureRule(tuple(_name_of(each) for each in what), Then(then), after_seconds)


def _name_of(what: type[BaseException] | str | int) -> str:
    if isinstance(what, int):
        return f"exit {what}"
    if isinstance(what, str):
        return what
    # A module that is run has another name in a worker.
    short = what.__module__ in {"builtins", "__main__"}
    return what.__qualname__ if short else f"{what.__module__}.{what.__qualname__}"


def kinds_of(kind: type[BaseException]) -> tuple[str, ...]:
    """Return the names of an exception's class and bases, each also with its module, as rules have them."""
    # Asked of `type` itself: a class may have its own idea of its attributes.
    bases = [base for base in type.__dict__["__mro__"].__get__(kind) if base is not object][:_KINDS]
    names: list[str] = []
    for base in bases:
        name = type.__getattribute__(base, "__qualname__")
        names += (name[:200], f"{type.__getattribute__(base, '__module__')}.{name}"[:200])
    return tuple(names)


class RetryPolicy(Struct, frozen=True, rename="camel"):
    """How often, and after which pauses, a task is retried.

    Errors and crashes have separate limits; preemptions have none.
    """

    attempts: Annotated[int, Meta(ge=ATTEMPTS.least, le=ATTEMPTS.most)] = 3
    """Executions that may end in an error before the task is a dead letter, 1 to 100; 1 means no retry."""
    backoff_seconds: _Backoff = 1.0
    """Upper bound of the first wait, 0 to 86,400 s; it doubles with each further error or crash."""
    max_backoff_seconds: _Backoff = 300.0
    """The bound the doubling stops at, 0 to 86,400 s."""
    crashes: Annotated[int, Meta(ge=CRASHES.least, le=CRASHES.most)] = 3
    """Crashes of its process or worker before the task runs once more, alone on a worker, 1 to 20. If that
    crashes, too, it is a dead letter; crashes beside other tasks do not make it one."""
    # Not encoded when left out: digests of tasks from before these fields have to stay what they are.
    backoff: Backoff | UnsetType = UNSET
    """How the wait grows: `exponential`, `linear` or `constant`; exponential if left out."""
    waits_seconds: Annotated[tuple[_Backoff, ...], Meta(max_length=WAITS)] | UnsetType = UNSET
    """The waits themselves, one for each error or crash, in place of `backoff_seconds`; the last repeats."""
    jitter: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    """Share of each wait that is drawn at random, 0 to 1; 1 if left out, so that tasks that failed together
    do not come back together."""
    rules: Annotated[tuple[FailureRule, ...], Meta(max_length=RULES)] | UnsetType = UNSET
    """What follows from particular failures; the first rule that fits decides."""

    def next_at(self, history: History, now: datetime, jitter: Callable[[], float]) -> datetime | None:
        """Return when the next attempt is due, or None if its errors are as many as its attempts.

        Unless the policy says otherwise, waits are "full jitter": uniform between 0 and
        `backoff * 2^(n-1)`, capped, n being the errors and crashes so far (M. Brooker, "Exponential Backoff
        And Jitter", AWS Architecture Blog, 2015).

        Args:
            history: what went wrong so far, the present attempt included.
            now: the present time.
            jitter: returns a number in [0, 1).
        """
        if history.errors >= self.attempts:
            return None
        failures = max(1, history.errors + history.crashes)
        bound = self._bound(failures)
        share = 1.0 if self.jitter is UNSET else self.jitter
        return now + timedelta(seconds=bound * (1 - share) + bound * share * jitter())

    def _bound(self, failures: int) -> float:
        if self.waits_seconds:
            wait = self.waits_seconds[min(failures, len(self.waits_seconds)) - 1]
            return max(0.0, min(wait, LONGEST_BACKOFF_SECONDS))
        factor = {
            Backoff.CONSTANT: 1.0,
            Backoff.LINEAR: float(failures),
        }.get(Backoff(self.backoff or Backoff.EXPONENTIAL), 2.0 ** min(failures - 1, 60))
        grown = self.backoff_seconds * factor
        return max(0.0, min(self.max_backoff_seconds, grown, LONGEST_BACKOFF_SECONDS))

    def rule_for(self, kinds: Iterable[str]) -> FailureRule | None:
        """Return the first rule for a failure, given all names it has; None if there is none."""
        names = frozenset(kinds)
        return next((rule for rule in self.rules or () if not names.isdisjoint(rule.failures)), None)
