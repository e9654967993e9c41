"""Results that are used again: the task of a cached handler has an id made of its work and a period of time.

The same work in the same period is the same task, so it runs once however many ask for it at a time, and
later ones get its result. No store is needed beside the records of tasks.
"""

import hashlib
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from msgspec import Raw, Struct

from galley.address import TaskAddress
from galley.broker.records import Records
from galley.envelope import Envelope, digest_of
from galley.errors import SubmissionInvalid
from galley.file import with_references
from galley.record import Outcome

if TYPE_CHECKING:
    from galley.broker.connection import Broker
    from galley.broker.publish import Publisher, Receipt
    from galley.handler import Call

LONGEST_SECONDS: Final = 30 * 24 * 3600
_TRIES: Final = 10
"""Failed tasks of one work and period after which the last failure is the answer."""
_ID: Final = re.compile(r"cache_[0-9a-f]{32}(-\d)?")


class Cached(Struct, frozen=True):
    """For how long results are used again, and of which version of the handler."""

    seconds: float
    version: str = ""


def cached(seconds: float | None, version: str) -> Cached | None:
    """Return the rules of `@task(cache=..., version=...)`.

    Raises:
        SubmissionInvalid: if the seconds are not 1 to 30 days, or a version is given without them.
    """
    if seconds is None:
        if version:
            raise SubmissionInvalid("version", "is given without cache", "add cache=SECONDS")
        return None
    if isinstance(seconds, bool) or not 1 <= seconds <= LONGEST_SECONDS:
        raise SubmissionInvalid(
            "cache", f"{seconds!r} is not 1 to {LONGEST_SECONDS} s", "use seconds in that range"
        )
    return Cached(float(seconds), version)


def cached_id(call: "Call[Any]", rules: Cached, now: datetime) -> str:
    """Return the id of the task for a call: the same for the same work in the same period."""
    data = call.input
    if call.files:
        data = Raw(with_references(data, {file.mark: file.hashed() for file in call.files}))
    work = f"{call.queue}/{call.handler}/{rules.version}/{rules.seconds}/{digest_of(call.handler, data)}"
    digest = hashlib.sha256(work.encode()).hexdigest()
    # Periods of different work begin at different times, so that not all of it runs again at once.
    period = int((now.timestamp() + int(digest[:8], 16) % rules.seconds) // rules.seconds)
    return f"cache_{hashlib.sha256(f'{digest}/{period}'.encode()).hexdigest()[:32]}"


def is_cached(address: TaskAddress) -> bool:
    """Return whether a task has an id that `cached_id` made."""
    return _ID.fullmatch(address.id) is not None


async def publish_cached(
    broker: "Broker", publisher: "Publisher", address: TaskAddress, envelope: Envelope
) -> "Receipt":
    """Store a task unless its work has been done, or is under way; what failed is tried with another id.

    Raises:
        As `Publisher.publish_once`.
    """
    receipt = await publisher.publish_once(address, envelope)
    # The objects of a task belong to its id, so a task that has some is not tried with another.
    for number in range(1, 1 if envelope.large or envelope.files else _TRIES):
        if not receipt.duplicate:
            break
        stored = await Records(broker).look_up(receipt.address)
        if stored is None or stored.record.outcome in (None, Outcome.SUCCEEDED):
            break
        receipt = await publisher.publish_once(address._replace(id=f"{address.id}-{number}"), envelope)
    return receipt
