"""UnderWay: one attempt of this worker, from its delivery to its verdict."""

import asyncio
from typing import Any, TypeAlias

from msgspec import Struct

from galley.broker.pull import Delivery
from galley_worker.claim import Held
from galley_worker.ending import Cancelled, CutOff
from galley_worker.leases import Lease
from galley_worker.runners.execution import Execution

Message: TypeAlias = tuple[str, int]
"""Stream and sequence."""


def message_of(delivery: Delivery) -> Message:
    """Return the message that was delivered."""
    return delivery.source.stream, delivery.sequence


class UnderWay(Struct, eq=False):
    """An attempt of this worker, from delivery to verdict."""

    delivery: Delivery
    lease: Lease
    began: float
    execution: Execution | None = None
    stopped: Cancelled | CutOff | None = None
    """Why it is stopped, if it is, perhaps before the handler began."""
    lease_lost: bool = False
    held: Held | None = None
    """What settling it needs; None until it is read."""
    span: Any = None
    """Its span, where spans are sent."""
    woken: asyncio.Event | None = None
    """Set when it is stopped while it waits for its start."""

    def delivered_again(self, reply: str) -> None:
        """Renew, acknowledge and give back the message by its new delivery from now on."""
        self.delivery = self.delivery._replace(reply=reply)
        self.lease.reply = reply
        if self.held is not None:
            self.held.delivery = self.delivery

    def stop(self, because: Cancelled | CutOff) -> None:
        """Stop it, whether or not its handler has begun."""
        self.stopped = self.stopped or because
        if self.woken is not None:
            self.woken.set()
        if self.execution is not None:
            self.execution.stop(because)
