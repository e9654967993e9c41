"""The rules a task is submitted under."""

from datetime import datetime, timedelta
from typing import Any, Final, Literal

from msgspec import UNSET, Struct

from galley.bounds import ATTEMPTS, BACKOFF_SECONDS, CRASHES, TIMEOUT_SECONDS, Range
from galley.envelope import in_range
from galley.errors import SubmissionInvalid
from galley.key import check_key
from galley.labels import check_labels, merged
from galley.lanes import HIGHEST_FIRST, Lane
from galley.retry import RULES, WAITS, Backoff, FailureRule, RetryPolicy, Then
from galley.unique import Unique

LONGEST_TIMEOUT_SECONDS: Final = float(TIMEOUT_SECONDS.most)
"""Of one attempt: a day, as in a TaskQueue."""

_ANY_TIMEOUT: Final = Range(0, TIMEOUT_SECONDS.most)


class When(Struct, frozen=True):
    """The rules a task is submitted under; None means the queue's own."""

    lane: Lane | None = None
    """None means that of `@task`, else `normal`."""
    not_before: datetime | None = None
    """Earliest start; a time with its offset from UTC."""
    deadline: datetime | None = None
    """Time after which the task is not started any more, and a running attempt is killed."""
    timeout_seconds: float | None = None
    """Time one attempt may take."""
    retry: RetryPolicy | None = None
    labels: dict[str, str] | None = None
    """To find the task by, with the syntax of Kubernetes: at most 64. They are added to those of `@task`."""
    unique: Unique | Literal[False] | None = None
    """Whether other tasks with the same key may be there; False takes away what `@task` says."""
    key: str | None = None
    """Tasks of one key take turns with those of other keys, and the queue may limit how many run at once."""

    def __post_init__(self) -> None:
        """Refuse rules under which no task can run.

        Raises:
            SubmissionInvalid: naming the field, and what it may be.
            LabelInvalid: if a label is not allowed.
        """
        if self.lane is not None and self.lane not in HIGHEST_FIRST:
            raise SubmissionInvalid("lane", repr(self.lane), f"use one of {', '.join(HIGHEST_FIRST)}")
        _check_time("not_before", self.not_before)
        _check_time("deadline", self.deadline)
        if self.not_before is not None and self.deadline is not None and self.deadline <= self.not_before:
            raise SubmissionInvalid(
                "deadline", "it is not after not_before", "set a later deadline, or an earlier not_before"
            )
        if self.timeout_seconds is not None and not (
            _ANY_TIMEOUT.holds(self.timeout_seconds) and self.timeout_seconds > 0
        ):
            raise SubmissionInvalid(
                "timeout_seconds", f"{self.timeout_seconds!r} s", "use more than 0 and at most a day"
            )
        if self.retry is not None:
            _check_retry(self.retry)
        if self.labels is not None:
            check_labels(self.labels)
        if self.key is not None:
            check_key(self.key)

    def over(self, weaker: "When | None") -> "When":
        """Return these rules, with those of another where these say nothing; labels are those of both.

        Raises:
            SubmissionInvalid: if no task can run under both.
        """
        if weaker is None or weaker is NO_RULES:
            return self
        labels = merged(self.labels, weaker.labels)
        names = self.__struct_fields__
        rules = {name: _first(getattr(self, name), getattr(weaker, name)) for name in names}
        return When(**(rules | {"labels": labels}))


def timeout_of(timeout: float | timedelta | None, timeout_seconds: float | None) -> float | None:
    """Return the seconds that an attempt may take, from either of the arguments that give them.

    Raises:
        SubmissionInvalid: both are given.
    """
    if timeout is None:
        return timeout_seconds
    if timeout_seconds is not None:
        raise SubmissionInvalid("timeout", "is given with timeout_seconds", "leave one of them out")
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout


def _first(one: Any, other: Any) -> Any:
    return other if one is None else one


def _check_time(name: str, moment: datetime | None) -> None:
    if moment is None:
        return
    if not isinstance(moment, datetime):
        raise SubmissionInvalid(
            name,
            f"{moment!r}"[:80],
            "pass an aware datetime, such as datetime.now(UTC) + timedelta(minutes=5)",
        )
    if moment.utcoffset() is None:
        raise SubmissionInvalid(
            name, "the time has no offset from UTC", "pass an aware datetime, such as datetime.now(UTC)"
        )
    if not in_range(moment):
        raise SubmissionInvalid(name, moment.isoformat(), "use a time between the years 1970 and 9998")


def _check_retry(retry: RetryPolicy) -> None:
    if not isinstance(retry, RetryPolicy):
        raise SubmissionInvalid("retry", f"{retry!r}"[:80], "use galley.RetryPolicy(attempts=3)")
    for name, bounds, kinds in (
        ("attempts", ATTEMPTS, int),
        ("crashes", CRASHES, int),
        ("backoff_seconds", BACKOFF_SECONDS, int | float),
        ("max_backoff_seconds", BACKOFF_SECONDS, int | float),
    ):
        value = getattr(retry, name)
        if not isinstance(value, kinds) or not bounds.holds(value):
            raise SubmissionInvalid(f"retry.{name}", repr(value), f"use {bounds}; 1 attempt means no retry")
    if retry.backoff not in (UNSET, *Backoff):
        raise SubmissionInvalid("retry.backoff", repr(retry.backoff)[:80], f"use one of {', '.join(Backoff)}")
    if retry.jitter is not UNSET and not Range(0, 1).holds(retry.jitter):
        raise SubmissionInvalid("retry.jitter", repr(retry.jitter)[:80], "use a share between 0 and 1")
    if retry.backoff is not UNSET and retry.waits_seconds is not UNSET:
        raise SubmissionInvalid(
            "retry.backoff", "is given with waits_seconds, which takes its place", "leave one of them out"
        )
    _check_waits(retry.waits_seconds or ())
    _check_rules(retry.rules or ())


def _check_waits(waits: object) -> None:
    if (
        not isinstance(waits, tuple | list)
        or len(waits) > WAITS
        or not all(BACKOFF_SECONDS.holds(wait) for wait in waits)
    ):
        raise SubmissionInvalid(
            "retry.waits_seconds", repr(waits)[:80], f"use up to {WAITS} numbers, each {BACKOFF_SECONDS}"
        )


def _check_rules(rules: object) -> None:
    if not isinstance(rules, tuple | list) or not all(isinstance(rule, FailureRule) for rule in rules):
        raise SubmissionInvalid("retry.rules", f"{rules!r}"[:80], "use a tuple of galley.on(...)")
    if len(rules) > RULES:
        raise SubmissionInvalid("retry.rules", f"{len(rules)} rules", f"use up to {RULES}")
    for rule in rules:
        names = rule.failures
        if not 0 < len(names) <= RULES or not all(0 < len(name) <= 200 for name in names):
            raise SubmissionInvalid(
                "retry.rules",
                f"failures={names!r}"[:80],
                f"name 1 to {RULES} failures of up to 200 characters",
            )
        pause = rule.after_seconds
        if pause is not None and (rule.then is Then.FAIL or not BACKOFF_SECONDS.holds(pause)):
            raise SubmissionInvalid(
                "retry.rules", f"after_seconds={pause!r} with then={rule.then.value!r}",
                f"use {BACKOFF_SECONDS} seconds, and none with `fail`",
            )  # fmt: skip


NO_RULES: Final = When()
