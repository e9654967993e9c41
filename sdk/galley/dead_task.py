"""A task that will not be tried again, and which of them are meant."""

from datetime import datetime, timedelta

from msgspec import Raw, Struct

from galley.history import PastAttempt
from galley.labels import selector


class DeadTask(Struct, frozen=True):
    """A task that will not be tried again, as its dead letter keeps it."""

    queue: str
    id: str
    handler: str
    """Empty if the task is not kept, or was none."""
    reason: str
    """A constant in CamelCase."""
    message: str
    traceback: str
    died_at: datetime
    worker: str
    attempt: int
    """The number of its last attempt."""
    lane: str
    attempts: tuple[PastAttempt, ...] = ()
    """Earlier attempts, each with its traceback; at most the last ten."""
    input: Raw | None = None
    """None if it is not kept, or cannot be decrypted here."""
    body: bytes | None = None
    """Instead of handler and input: the raw bytes of what was no task."""
    submitted_at: datetime | None = None
    uid: str = ""
    """Of the Task object it was declared by; empty if there is none."""
    labels: dict[str, str] = {}


class Selection(Struct, frozen=True, kw_only=True):
    """Which dead letters are meant; each field that is None admits all."""

    handler: str | None = None
    reason: str | None = None
    older_than: timedelta | None = None
    """Only those that died at least so long ago."""
    younger_than: timedelta | None = None
    """Only those that died less than so long ago."""
    labels: str | None = None
    """Only those whose labels fit this selector, such as `team=billing`."""

    def __post_init__(self) -> None:
        """Refuse a selector that cannot be read.

        Raises:
            SelectorInvalid: if it is none.
        """
        selector(self.labels or "")

    def admits(self, dead: DeadTask, now: datetime) -> bool:
        """Return whether a dead letter is meant."""
        age = now - dead.died_at
        return (
            self.handler in (None, dead.handler)
            and self.reason in (None, dead.reason)
            and (self.older_than is None or age >= self.older_than)
            and (self.younger_than is None or age < self.younger_than)
            and (self.labels is None or selector(self.labels)(dead.labels))
        )


ALL = Selection()
