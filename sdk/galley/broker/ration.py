"""Hearing what tenants publish, but only so much of it: a flood costs a listener no more than its ration.

The server cuts off who reads more slowly than is sent to it. Who listens to many tenants would lose its
connection for all of them by the flood of one.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from galley.broker.connection import Broker
from galley.broker.errors import BrokerError, BrokerUnreachable

log = logging.getLogger(__name__)

PERIOD_SECONDS: Final = 1.0
"""What is above a ration is not heard for the rest of such a time."""

MOST_BYTES: Final = 4 * 1024**2
"""Most that is heard in such a time, whatever it is. What Galley itself sends is a tenth of that."""


@dataclass
class Ration:
    """How much is heard in a second. It may be changed while it counts."""

    messages: int
    bytes: int = MOST_BYTES
    seamless: bool = False
    """Whether a subscription is followed by the next one before it ends. Nothing within the ration is missed
    then, but a message may come twice."""


@asynccontextmanager
async def rationed(
    broker: Broker,
    subject: str,
    react: Callable[[Msg], Awaitable[None]],
    ration: Ration,
    missed: Callable[[], None] = lambda: None,
) -> AsyncIterator[None]:
    """Call `react` with messages on a subject while the block runs; with a ration of them a second at most.

    The server ends a subscription by itself after so many messages. Some of the last ones may be lost.

    Args:
        broker: an open connection.
        subject: what to hear.
        react: called with each message.
        ration: how much of it.
        missed: called when it listens again, and may not have heard all.

    Raises:
        BrokerUnreachable: if the connection is closed.
    """
    listener = _Listener(broker, subject, react, ration)
    await listener.listen()
    going_on = asyncio.create_task(listener.go_on(missed))
    try:
        yield
    finally:
        going_on.cancel()
        await asyncio.wait([going_on])
        listener.stop()


class _Listener:
    """One subscription after the other, each of as many messages as may come at once."""

    def __init__(
        self, broker: Broker, subject: str, react: Callable[[Msg], Awaitable[None]], ration: Ration
    ) -> None:
        self._broker, self._subject, self._react, self._ration = broker, subject, react, ration
        self._ended = asyncio.Event()
        self._current: list[Subscription] = []
        """The subscription; while one follows the other, both."""
        self._largest = self._largest_of_time = 1
        self._began = asyncio.get_running_loop().time()
        self._count = self._bytes = 0

    @property
    def _spent(self) -> bool:
        return self._count >= self._ration.messages or self._bytes >= self._ration.bytes

    async def listen(self) -> None:
        self._ended.clear()
        # The server sends all of these at once, and knows no limit of bytes: once a large one came, it may
        # send few.
        left = self._ration.messages - self._count
        window = max(1, min(left, self._ration.bytes // self._largest))
        enough = max(1, window // 2) if self._ration.seamless else window

        async def hear(message: Msg) -> None:
            size = len(message.data)
            self._count += 1
            self._bytes += size
            self._largest = max(self._largest, size)
            self._largest_of_time = max(self._largest_of_time, size)
            # If messages are larger than was known, the rest of this subscription may be more than the server
            # keeps for a client that is busy.
            too_large = size * (window - subscription.delivered) > self._ration.bytes
            # Of those that came together with the last one, the library hands out one at least.
            if subscription.delivered >= enough or self._spent or too_large:
                self._ended.set()
            await self._react(message)

        subscription = await self._broker.subscribe(self._subject, hear)
        self._current.append(subscription)
        try:
            await subscription.unsubscribe(limit=window)
        except NatsError as error:
            raise BrokerUnreachable(self._broker.server, f"{self._subject}: {error}") from error

    async def go_on(self, missed: Callable[[], None]) -> None:
        while True:
            await self._ended.wait()
            rest = self._began + PERIOD_SECONDS - asyncio.get_running_loop().time()
            spent = self._spent
            seamless = self._ration.seamless and not (rest > 0 and spent)
            if not seamless:
                self.stop()
            if rest > 0 and spent:
                words = {"subject": self._subject, "heard": self._count, "bytes": self._bytes}
                log.warning("more messages than are heard", extra=words)
                await asyncio.sleep(rest)
            if rest <= 0 or spent:
                self._begin()
            try:
                await self.listen()
            except BrokerError:
                self._ended.set()
                await asyncio.sleep(PERIOD_SECONDS)
            else:
                if seamless:
                    await self._retire()
                else:
                    missed()

    def _begin(self) -> None:
        """Begin another time. What was as large as nothing is now is forgotten step by step."""
        self._began, self._count, self._bytes = asyncio.get_running_loop().time(), 0, 0
        self._largest = max(self._largest_of_time, self._largest // 2)
        self._largest_of_time = 1

    async def _retire(self) -> None:
        """End the subscriptions before the last one, once all they were sent is heard."""
        while len(self._current) > 1:
            before = self._current[0]
            try:
                await before.drain()  # type: ignore[no-untyped-call]
            except (NatsError, TimeoutError):  # it ended with its connection
                self._broker.unsubscribe(before)
            self._current.remove(before)

    def stop(self) -> None:
        """End the subscription, if the server has not."""
        while self._current:
            self._broker.unsubscribe(self._current.pop())
