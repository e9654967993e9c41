"""A lease keeper at work over a line whose far end keeps the broker's account of each lease."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from galley.broker.pull import RENEW
from galley_worker.leases import Lease, LeaseKeeper
from tests.support.virtual_time import virtual_loop

LEASE: Final = 30.0


class FarEnd:
    """A line to a broker: what is sent while it is cut or stalled never arrives."""

    def __init__(self) -> None:
        self.connected = True
        self.stalled = False
        self.round_trip = 0.0
        self.renewed: dict[str, list[float]] = {}

    def publish(self, subject: str, body: bytes) -> None:
        assert body == RENEW
        if self.connected and not self.stalled:
            self.renewed.setdefault(subject, []).append(virtual_loop().time())

    async def reached(self, within: float) -> bool:
        if self.connected and not self.stalled:
            await asyncio.sleep(self.round_trip)
            return True
        await asyncio.sleep(within)
        return False


class Delivered:
    """A delivery in a worker's hands, with the moments that count."""

    def __init__(self, line: FarEnd, keeper: LeaseKeeper, reply: str, delivered_at: float) -> None:
        self._line = line
        self.reply = reply
        self.delivered_at = delivered_at
        self.lost_at: list[float] = []
        self.lease: Lease | None = keeper.hold(reply, lambda: self.lost_at.append(virtual_loop().time()))

    @property
    def ends_at(self) -> float:
        """When the broker gives the task to another worker, as it looks now."""
        return max([self.delivered_at, *self._line.renewed.get(self.reply, [])]) + LEASE

    @property
    def held(self) -> Lease:
        assert self.lease is not None
        return self.lease

    @property
    def running(self) -> bool:
        return self.lease is not None and not self.lost_at


class Desk:
    """A keeper at work and the line it renews on."""

    def __init__(self, lease_seconds: float = LEASE) -> None:
        self.line = FarEnd()
        self.keeper = LeaseKeeper(self.line, virtual_loop().time, lease_seconds)

    def take(self, reply: str = "ack.1", delivered_ago: float = 0.0) -> Delivered:
        return Delivered(self.line, self.keeper, reply, virtual_loop().time() - delivered_ago)


@asynccontextmanager
async def a_desk(lease_seconds: float = LEASE) -> AsyncIterator[Desk]:
    desk = Desk(lease_seconds)
    run = asyncio.create_task(desk.keeper.run())
    await asyncio.sleep(0)
    try:
        yield desk
    finally:
        run.cancel()
        await asyncio.wait({run})
        assert run.cancelled()
