"""Hearing what tenants publish, but only so much of it: a flood costs a listener no more than its ration.

The server cuts off who reads more slowly than is sent to it. Who listens to many tenants would lose its
connection for all of them by the flood of one.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
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


@asynccontextmanager
async def rationed(
    broker: Broker,
    subject: str,
    react: Callable[[Msg], Awaitable[None]],
    most: int,
    missed: Callable[[], None] = lambda: None,
) -> AsyncIterator[None]:
    """Call `react` with messages on a subject while the block runs; with `most` of them a second at most.

    The server ends a subscription by itself after so many messages. Some of the last ones may be lost.

    Args:
        broker: an open connection.
        subject: what to hear.
        react: called with each message.
        most: messages in a second, of `MOST_BYTES` together.
        missed: called when it listens again, and may not have heard all.

    Raises:
        BrokerUnreachable: if the connection is closed.
    """
    listener = _Listener(broker, subject, react, most)
    await listener.listen()
    going_on = asyncio.create_task(listener.go_on(missed))
    try:
        yield
    finally:
        going_on.cancel()
        await asyncio.wait([going_on])
        await listener.stop()


class _Listener:
    """One subscription after the other, each of as many messages as may come at once."""

    def __init__(
        self, broker: Broker, subject: str, react: Callable[[Msg], Awaitable[None]], most: int
    ) -> None:
        self._broker, self._subject, self._react, self._most = broker, subject, react, most
        self._ended = asyncio.Event()
        self._current: Subscription | None = None
        self._largest = self._largest_of_time = 1
        self._began = asyncio.get_running_loop().time()
        self._count = self._bytes = 0

    async def listen(self) -> None:
        self._ended.clear()
        # The server sends all of these at once, and knows no limit of bytes: once a large one came, it may
        # send few.
        window = max(1, min(self._most - self._count, MOST_BYTES // self._largest))

        async def hear(message: Msg) -> None:
            size = len(message.data)
            self._count += 1
            self._bytes += size
            self._largest = max(self._largest, size)
            self._largest_of_time = max(self._largest_of_time, size)
            # Of those that came together with the last one, the library hands out one at least.
            if subscription.delivered >= window or self._bytes >= MOST_BYTES:
                self._ended.set()
            await self._react(message)

        self._current = subscription = await self._broker.subscribe(self._subject, hear)
        try:
            await subscription.unsubscribe(limit=window)
        except NatsError as error:
            raise BrokerUnreachable(self._broker.server, f"{self._subject}: {error}") from error

    async def go_on(self, missed: Callable[[], None]) -> None:
        while True:
            await self._ended.wait()
            await self.stop()
            rest = self._began + PERIOD_SECONDS - asyncio.get_running_loop().time()
            spent = self._count >= self._most or self._bytes >= MOST_BYTES
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
                missed()

    def _begin(self) -> None:
        """Begin another time. What was as large as nothing is now is forgotten step by step."""
        self._began, self._count, self._bytes = asyncio.get_running_loop().time(), 0, 0
        self._largest = max(self._largest_of_time, self._largest // 2)
        self._largest_of_time = 1

    async def stop(self) -> None:
        """End the subscription, if the server has not."""
        ended, self._current = self._current, None
        if ended is None:
            return
        if self._broker.connected:
            with suppress(NatsError):
                await ended.unsubscribe()
        else:
            self._broker.nats.forget_subscription(ended)
