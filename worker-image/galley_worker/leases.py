"""Leases: the broker's promise to give a task to nobody else while we say we are at it.

Renewed together three times a lease, confirmed by a round trip, timed by a clock that no one can set.
A worker that could not renew in time fences itself: it stops the attempt before another may begin it.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from galley.broker.pull import RENEW

log = logging.getLogger(__name__)

RENEWALS: Final = 3
"""Renewals a lease: two may get lost."""

FENCE_MARGIN_SECONDS: Final = 5.0
"""How long before the lease ends a worker that could not renew gives up: time to kill a handler."""


_READ_OUT_SECONDS: Final = 0.05
"""After a round trip: for what has been read to reach those it is for."""


class Line(Protocol):
    """What renewals travel on: a connection to the broker."""

    @property
    def connected(self) -> bool:
        """Whether the broker can be spoken to at this moment."""

    async def publish(self, subject: str, body: bytes) -> None:
        """Send without asking for an answer."""

    async def reached(self, within: float) -> bool:
        """Return whether all that was sent so far has reached the broker, waiting `within` seconds."""


class Lease:
    """The hold on one delivery."""

    __slots__ = ("lost", "renewed_at", "reply")

    def __init__(self, reply: str, renewed_at: float, lost: Callable[[], None]) -> None:
        self.reply = reply
        self.renewed_at = renewed_at
        self.lost = lost


class LeaseKeeper:
    """Renews the leases of a worker."""

    def __init__(self, line: Line, clock: Callable[[], float], lease_seconds: float) -> None:
        self._line = line
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._fence_seconds = max(lease_seconds / 2, lease_seconds - FENCE_MARGIN_SECONDS)
        self._leases: set[Lease] = set()
        self._looked_at = clock()
        self._asleep_since: float | None = None

    def hold(self, reply: str, lost: Callable[[], None]) -> Lease | None:
        """Begin to renew the lease of a delivery that came just now.

        Args:
            reply: where its renewals go.
            lost: called once if renewing fails for too long.

        Returns:
            None if this process was asleep for so long that the lease may have ended before it could read
            the delivery.
        """
        now = self._clock()
        since = now if self._asleep_since is None else self._asleep_since
        if now - since > self._fence_seconds:
            return None
        lease = Lease(reply, since, lost)
        self._leases.add(lease)
        return lease

    def release(self, lease: Lease) -> None:
        """Stop renewing."""
        self._leases.discard(lease)

    async def run(self) -> None:
        """Renew and fence until cancelled."""
        pause = self._lease_seconds / RENEWALS
        next_renewal = self._clock() + pause
        step = min(1.0, pause / 4)
        while True:
            await asyncio.sleep(step)
            self._fence()
            await self._notice_sleep(3 * step)
            if self._clock() >= next_renewal:
                next_renewal = self._clock() + pause
                await self._renew()

    async def _renew(self) -> None:
        began = self._clock()
        due = [
            lease for lease in self._leases if began - lease.renewed_at >= self._lease_seconds / RENEWALS / 2
        ]
        if not due or not self._line.connected:
            return
        for lease in due:
            await self._line.publish(lease.reply, RENEW)
        if await self._line.reached(within=self._lease_seconds / RENEWALS / 2):
            for lease in due:
                lease.renewed_at = began
        else:
            log.warning("leases not renewed", extra={"leases": len(due)})

    async def _notice_sleep(self, normal: float) -> None:
        """Find out whether this process was stopped for a while.

        What it reads then was delivered at any time since it was last awake, until a round trip has
        shown that all of that has been read.
        """
        now = self._clock()
        if now - self._looked_at > normal and self._asleep_since is None:
            log.warning("worker was asleep", extra={"seconds": round(now - self._looked_at, 1)})
            self._asleep_since = self._looked_at
        self._looked_at = now
        if self._asleep_since is not None and await self._line.reached(within=self._lease_seconds):
            await asyncio.sleep(_READ_OUT_SECONDS)
            self._asleep_since = None
            self._looked_at = self._clock()

    def _fence(self) -> None:
        now = self._clock()
        late = [lease for lease in self._leases if now - lease.renewed_at > self._fence_seconds]
        for lease in late:
            self._leases.discard(lease)
            lease.lost()
