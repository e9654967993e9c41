"""Leases: while a worker renews the lease of a message, the broker delivers it to no other worker.

All leases are renewed together three times per lease period, confirmed by a round trip, and timed by a clock
that cannot be set. A worker that could not renew in time fences itself: it stops the attempt before another
worker may begin it.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct

from galley.broker.pull import RENEW

log = logging.getLogger(__name__)

RENEWALS: Final = 3
"""Renewals per lease period; one that fails is repeated at once."""

FENCE_MARGIN_SECONDS: Final = 5.0
"""A worker that could not renew stops the attempt so long before the lease ends: time to kill a handler."""


_READ_OUT_SECONDS: Final = 0.05
"""After a round trip: for messages that were read to reach their callbacks."""


class Line(Protocol):
    """The connection that renewals are sent on."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection at the moment."""

    def publish(self, subject: str, body: bytes) -> None:
        """Send without waiting for an answer."""

    async def reached(self, within: float) -> bool:
        """Return whether everything sent so far reached the broker within that many seconds."""


class Lease(Struct, eq=False):
    """The lease of one delivery."""

    reply: str
    renewed_at: float
    lost: Callable[[], None]


class LeaseKeeper:
    """Renews the leases of a worker."""

    def __init__(self, line: Line, clock: Callable[[], float], lease_seconds: float) -> None:
        self._line = line
        self._clock = clock
        self._fence_seconds = max(lease_seconds / 2, lease_seconds - FENCE_MARGIN_SECONDS)
        self._pause = lease_seconds / RENEWALS
        self._step = min(1.0, self._pause / 4)
        self._leases: set[Lease] = set()
        self._looked_at = clock()
        self._sleeps = 0
        self._asleep_since: float | None = None

    def hold(self, reply: str, lost: Callable[[], None]) -> Lease | None:
        """Begin to renew the lease of a delivery that arrived just now.

        Args:
            reply: where its renewals go.
            lost: called once if renewing fails for too long.

        Returns:
            None if this process was frozen for so long that the lease may have ended before the delivery was
            read.
        """
        now = self._notice_sleep()
        since = now if self._asleep_since is None else self._asleep_since
        if now - since > self._fence_seconds:
            return None
        lease = Lease(reply, since, lost)
        self._leases.add(lease)
        return lease

    def release(self, lease: Lease) -> None:
        """Stop renewing."""
        self._leases.discard(lease)

    def check(self, lease: Lease) -> None:
        """Fence a lease now if it was not renewed in time, without waiting for the next regular check.

        Since the last check the whole process may have been frozen.
        """
        if self._clock() - lease.renewed_at > self._fence_seconds and lease in self._leases:
            self._lose(lease)

    def look(self) -> None:
        """Fence what was not renewed in time if this process was frozen: asked before work leaves it.

        After a freeze, what waited to be done may be done before the next regular check.
        """
        self._notice_sleep()
        if self._asleep_since is not None:
            self._fence()

    async def run(self) -> None:
        """Renew and fence until cancelled."""
        self._looked_at = self._clock()
        # Separate tasks: a renewal may wait long for its answer, and leases must be fenced in time meanwhile.
        async with asyncio.TaskGroup() as both:
            both.create_task(self._watch(), name="lease fence")
            both.create_task(self._keep_renewing(), name="lease renewals")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._step)
            self._notice_sleep()
            self._fence()

    async def _keep_renewing(self) -> None:
        next_renewal = self._clock() + self._pause
        while True:
            await asyncio.sleep(self._step)
            self._notice_sleep()
            if self._asleep_since is not None:
                await self._catch_up()
            began = self._clock()
            # A renewal that failed is repeated at the next step, not after a whole pause.
            if began >= next_renewal and await self._renew(began):
                next_renewal = began + self._pause

    async def _renew(self, began: float) -> bool:
        due = [lease for lease in self._leases if began - lease.renewed_at >= self._pause / 2]
        if not due:
            return True
        if not self._line.connected:
            return False
        for lease in due:
            self._line.publish(lease.reply, RENEW)
        if not await self._line.reached(within=self._pause / 2):
            log.warning("leases not renewed", extra={"leases": len(due)})
            return False
        for lease in due:
            lease.renewed_at = began
        return True

    def _notice_sleep(self) -> float:
        """Detect that this process was frozen for a while; return the present time.

        Deliveries it reads afterwards may have been sent at any time since it was last awake, until a round
        trip shows that all of them have been read.
        """
        now = self._clock()
        if now - self._looked_at > 3 * self._step:
            log.warning("worker was frozen", extra={"seconds": round(now - self._looked_at, 1)})
            self._sleeps += 1
            if self._asleep_since is None:
                self._asleep_since = self._looked_at
        self._looked_at = now
        return now

    async def _catch_up(self) -> None:
        """Read everything that arrived while this process was frozen."""
        sleeps = self._sleeps
        # A lost connection brings nothing more.
        if not self._line.connected or await self._line.reached(within=self._pause / 2):
            await asyncio.sleep(_READ_OUT_SECONDS)
            if sleeps == self._sleeps:
                self._asleep_since = None

    def _fence(self) -> None:
        now = self._clock()
        for lease in [lease for lease in self._leases if self._late(lease, now)]:
            self._lose(lease)

    def _late(self, lease: Lease, now: float) -> bool:
        return now - lease.renewed_at > self._fence_seconds

    def _lose(self, lease: Lease) -> None:
        self._leases.discard(lease)
        try:
            lease.lost()
        except Exception:  # whatever it is costs this attempt, and its record is fenced
            log.exception("attempt not stopped", extra={"reply": lease.reply})
