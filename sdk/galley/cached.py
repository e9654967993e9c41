"""Results that are used again: the task of a cached handler has an id made of its work and a period of time.

The same work in the same period is the same task, so it runs once however many ask for it at a time, and
later ones get its result. At the beginning of a period the task of the period before still counts, until the
time it was submitted is as long ago as its handler allows. No store is needed beside the records of tasks.
"""

import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import Raw, Struct

from galley.bounds import Range
from galley.envelope import digest_of
from galley.errors import SubmissionInvalid
from galley.file import with_references

if TYPE_CHECKING:
    from galley.calls import Call

LONGEST_SECONDS: Final = 30 * 24 * 3600
TRIES: Final = 10
"""Failed tasks of one work and period after which the last failure is the answer."""


class Cached(Struct, frozen=True):
    """For how long results are used again, and of which version of the handler."""

    seconds: float
    version: str = ""


class Entry(NamedTuple):
    """Where the result of a call is, if there is one."""

    id: str
    """Of the task of this period."""
    before: str
    """Of the one of the period before."""
    since: datetime
    """A task that was submitted earlier does not count any more."""


def cached(seconds: float | None, version: str) -> Cached | None:
    """Return the rules of `@task(cache=..., version=...)`.

    Raises:
        SubmissionInvalid: if the seconds are not 1 to 30 days, or a version is given without them.
    """
    if seconds is None:
        if version:
            raise SubmissionInvalid("version", "is given without cache", "add cache=SECONDS")
        return None
    if not isinstance(version, str):
        raise SubmissionInvalid("version", f"{version!r}"[:80], "use a text, such as '3'")
    if not Range(1, LONGEST_SECONDS).holds(seconds):
        raise SubmissionInvalid(
            "cache", f"{seconds!r} is not 1 to {LONGEST_SECONDS} s", "use seconds in that range"
        )
    return Cached(float(seconds), version)


def entry_of(call: "Call[Any]", rules: Cached, now: datetime) -> Entry:
    """Return where the result of a call is: the same for the same work at the same time."""
    data = call.input
    if call.files:
        data = Raw(with_references(data, {file.mark: file.hashed() for file in call.files}))
    work = f"{call.queue}/{call.handler}/{rules.version}/{rules.seconds}/{digest_of(call.handler, data)}"
    digest = hashlib.sha256(work.encode()).hexdigest()
    # Periods of different work begin at different times, so that not all of it runs again at once.
    period = int((now.timestamp() + int(digest[:8], 16) % rules.seconds) // rules.seconds)
    return Entry(_id(digest, period), _id(digest, period - 1), now - timedelta(seconds=rules.seconds))


def _id(digest: str, period: int) -> str:
    return f"cache_{hashlib.sha256(f'{digest}/{period}'.encode()).hexdigest()[:32]}"


def numbered(task_id: str, number: int) -> str:
    """Return the id of a task that is tried after others of its work and period have failed."""
    return f"{task_id}-{number}" if number else task_id
