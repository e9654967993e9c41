"""The limit of a whole queue: how many of its tasks run, and start, over all workers.

Workers have permits, and not tasks: a worker pulls a task with a permit and keeps it for the next one, so a
busy queue at its limit writes nothing. Who has how many stands in one small record, written by
compare-and-set, with what is left of the rate. Pure; the rules, and what each prevents, are in
`tests/unit/protocol/limit_model.py`.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from galley.errors import EnvelopeInvalid
from galley.key import Rate, Time
from galley.unreadable import UNREADABLE

Count = Annotated[int, Meta(ge=0, le=2**53)]
StoredRate = tuple[
    Annotated[int, Meta(ge=1, le=2**53)], Annotated[float, Meta(gt=0)], Annotated[int, Meta(ge=1, le=2**53)]
]


class Share(Struct, frozen=True, omit_defaults=True):
    """What one worker process has of the limit."""

    worker: str
    """Its name."""
    permits: Count = 0
    """Tasks it may run at once."""
    beat: Count = 0
    """Grows while the worker is alive; one that stands still for a lease is that of a dead worker."""


class QueueShares(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Which workers have the permits of a queue, and how it stands with its rate."""

    shares: dict[str, Share] = {}
    """By the id of the process."""
    full_at: Time = 0.0
    """When all starts are there again that the rate allows at once, in seconds since 1970."""
    concurrency: Count = 0
    """The limit, as who wrote this knows it; 0 is none."""
    rate: StoredRate | None = None
    """The same of the rate: tasks, seconds and burst."""

    @property
    def permits(self) -> int:
        """All permits that workers have."""
        return sum(share.permits for share in self.shares.values())


NO_SHARES: Final = QueueShares()

_decode = msgspec.json.Decoder(QueueShares).decode


def encode(shares: QueueShares) -> bytes:
    """Return the bytes that are stored."""
    return msgspec.json.encode(shares)


def decode(body: bytes) -> QueueShares:
    """Return what was stored.

    Raises:
        EnvelopeInvalid: if it cannot be read.
    """
    try:
        return _decode(body)
    except UNREADABLE as error:
        raise EnvelopeInvalid(f"permits of a queue: {error}") from None


class QueueRules(NamedTuple):
    """What a queue says of all its tasks."""

    permits: int = 0
    """Tasks that may run at once; 0 does not limit them."""
    rate: Rate | None = None
    """How many may start in a time; None does not limit them."""

    @property
    def limited(self) -> bool:
        """Whether a task needs more than a slot to run."""
        return self.permits > 0 or self.rate is not None


def shared(
    before: QueueShares, rules: QueueRules, holder: str, own: Share, *, busy: int, silent: Collection[str]
) -> QueueShares:
    """Return the record once a worker has taken, or given back, permits.

    Args:
        before: as it stands.
        rules: of the queue.
        holder: the process.
        own: what it would like to have.
        busy: tasks that it runs: so many permits it keeps, also where the limit was lowered.
        silent: processes that count as dead.
    """
    others = {name: share for name, share in before.shares.items() if name != holder and name not in silent}
    left = rules.permits - sum(share.permits for share in others.values())
    permits = max(busy, min(own.permits, left))
    shares = others | ({holder: replace(own, permits=permits)} if permits > 0 else {})
    rate = None if rules.rate is None else (rules.rate.tasks, rules.rate.seconds, rules.rate.burst)
    return replace(before, shares=shares, concurrency=rules.permits, rate=rate)


def reserved(before: QueueShares, rate: Rate, now: float) -> tuple[QueueShares, float]:
    """Return the record once a start is taken, and when that start is.

    Args:
        before: as it stands.
        rate: of the queue.
        now: seconds since 1970.
    """
    at = now if rate.ready(before.full_at, now) else rate.next_at(before.full_at)
    full_at = rate.taken(before.full_at, now, 1)
    return replace(before, full_at=full_at, rate=(rate.tasks, rate.seconds, rate.burst)), at


class Watch:
    """Tells which processes have been silent for a lease, by the clock of who watches."""

    def __init__(self, lease_seconds: float) -> None:
        self._lease = lease_seconds
        self._seen: dict[str, tuple[int, float]] = {}

    def silent(self, shares: Mapping[str, Share], now: float) -> frozenset[str]:
        """Return who was silent for a lease, given the record as it is now."""
        known = self._seen
        self._seen = {
            name: known[name] if known.get(name, (-1, 0.0))[0] == share.beat else (share.beat, now)
            for name, share in shares.items()
        }
        return frozenset(name for name, (_, since) in self._seen.items() if now - since > self._lease)
