"""Feed: what one consumer delivers beside the tasks of the slots, handled some at a time.

It waits for a delivery, a pull that ended (`changed`), or a timer that looks for pulls whose server died.
While some are handled, their leases are renewed, and those of what waits behind them: on a slow machine that
takes longer than a lease, and all of it would be handled again by another worker, which makes it slower.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeAlias

from galley.broker.connection import Broker
from galley.broker.pull import RENEW, Delivery, Pulls, Source
from galley.broker.topology import LEASE_SECONDS, QueueLayout
from galley_worker.leases import RENEWALS
from galley_worker.ledger import Ledger

AT_ONCE: Final = 64
_REFUSED_SECONDS: Final = 0.25


Handle: TypeAlias = Callable[[Delivery], Coroutine[Any, Any, None]]
"""Handles one delivery; does not raise for what that is."""

HandleSome: TypeAlias = Callable[[Sequence[Delivery]], Coroutine[Any, Any, None]]
"""Handles several; does not raise for what they are."""


def side_by_side(handle: Handle) -> HandleSome:
    """Return what handles several deliveries at the same time, each by itself."""

    async def all_of(deliveries: Sequence[Delivery]) -> None:
        async with asyncio.TaskGroup() as group:
            for delivery in deliveries:
                group.create_task(handle(delivery))

    return all_of


class Feed:
    """The deliveries of one consumer. `run` has each handled until it is cancelled."""

    def __init__(  # noqa: PLR0917 - what it is made of
        self,
        broker: Broker,
        layout: QueueLayout,
        source: Source,
        ledger: Ledger,
        handle: HandleSome,
        longest_pause: float = _REFUSED_SECONDS,
        at_once: int = AT_ONCE,
    ) -> None:
        """Describe what is delivered.

        Args:
            broker: an open connection.
            layout: the queue.
            source: the consumer.
            ledger: gives back what is not handled when it ends.
            handle: handles what was delivered.
            longest_pause: seconds between two pulls at most, as long as they are refused.
            at_once: deliveries asked for, and handled, at a time.
        """
        self.at_once = at_once
        """May be changed between two calls of `handle`."""
        self._broker, self._layout, self._source = broker, layout, source
        self._ledger, self._handle, self._longest = ledger, handle, longest_pause
        self._arrived: deque[Delivery] = deque()
        self._wake = asyncio.Event()

    def delivered(self, delivery: Delivery) -> None:
        """Take a delivery."""
        self._arrived.append(delivery)
        self._wake.set()

    def changed(self) -> None:
        """Pull again: a pull ended."""
        self._wake.set()

    def reconnected(self) -> None:
        """Forget what was delivered on a connection that broke; it is delivered again."""
        self._arrived.clear()

    async def run(self) -> None:
        """Have deliveries handled until cancelled; what is not handled by then is given back."""
        pause = _REFUSED_SECONDS
        try:
            async with Pulls(self._broker, self._layout, self, [self._source]) as pulls:
                while True:
                    self._wake.clear()
                    await self._handle_some()
                    if pulls.refusals:
                        # Also while an operator of an earlier release has not made the consumer.
                        pulls.refusals = 0
                        await asyncio.sleep(pause)
                        pause = min(2 * pause, self._longest)
                    else:
                        pause = _REFUSED_SECONDS
                    if self._broker.connected and not pulls.is_open(self._source):
                        await pulls.park(self._source, self.at_once)
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(pulls.drop_silent()):
                            await self._wake.wait()
        finally:
            while self._arrived:  # none is left for the next run, to which they are delivered again
                self._ledger.give_back(self._arrived.popleft().reply)

    async def _handle_some(self) -> None:
        while self._arrived:
            some = [self._arrived.popleft() for _ in range(min(self.at_once, len(self._arrived)))]
            with self._renewing(some):
                await self._handle(some)

    @contextmanager
    def _renewing(self, some: Sequence[Delivery]) -> Iterator[None]:
        self._renew_later(some)
        try:
            yield
        finally:
            self._renewal.cancel()

    def _renew_later(self, some: Sequence[Delivery]) -> None:
        pause = LEASE_SECONDS / RENEWALS
        self._renewal = asyncio.get_running_loop().call_later(pause, self._renew, some)

    def _renew(self, some: Sequence[Delivery]) -> None:
        self._renew_later(some)
        for each in (*some, *self._arrived):
            self._broker.publish(each.reply, RENEW)
