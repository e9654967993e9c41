"""Hearing what tenants publish, but only so much of it: a flood costs a listener no more than its ration.

The server cuts off who reads more slowly than is sent to it. Who listens to many tenants would lose its
connection for all of them by the flood of one.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from galley.broker.connection import Broker
from galley.broker.errors import BrokerError, BrokerUnreachable

log = logging.getLogger(__name__)

PERIOD_SECONDS: Final = 1.0
"""What is above a ration is not heard for the rest of such a time."""


@asynccontextmanager
async def rationed(
    broker: Broker, subject: str, react: Callable[[Msg], Awaitable[None]], most: int
) -> AsyncIterator[None]:
    """Call `react` with messages on a subject while the block runs; with `most` of them a second at most.

    The server ends a subscription by itself after so many messages. Some of the last ones may be lost.

    Raises:
        BrokerUnreachable: if the connection is closed.
    """
    spent, loop = asyncio.Event(), asyncio.get_running_loop()
    current: Subscription | None = None
    began = 0.0

    async def listen() -> None:
        nonlocal current, began
        spent.clear()
        began = loop.time()

        async def hear(message: Msg) -> None:
            # Of those that came together with the last one, the library hands out one at least.
            if subscription.delivered >= most:
                spent.set()
            await react(message)

        current = subscription = await broker.subscribe(subject, hear)
        try:
            await subscription.unsubscribe(limit=most)
        except NatsError as error:
            raise BrokerUnreachable(broker.server, f"{subject}: {error}") from error

    async def go_on() -> None:
        while True:
            await spent.wait()
            if (rest := began + PERIOD_SECONDS - loop.time()) > 0:
                log.warning("more messages than are heard", extra={"subject": subject, "most": most})
                await asyncio.sleep(rest)
            try:
                await listen()
            except BrokerError:
                spent.set()
                await asyncio.sleep(PERIOD_SECONDS)

    await listen()
    going_on = asyncio.create_task(go_on())
    try:
        yield
    finally:
        going_on.cancel()
        await asyncio.wait([going_on])
        if current is not None and broker.connected and not spent.is_set():
            await current.unsubscribe()
