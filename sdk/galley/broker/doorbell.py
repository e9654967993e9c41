"""Hearing that a queue got work, within a millisecond and at the cost of one message."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from galley.broker import topology
from galley.broker.connection import Broker


class Doorbell:
    """The doorbell of one queue. Use it as `async with`; it rings once for each time it is armed.

    The broker takes the ear away by itself after one task, so that a flood costs a listener nothing.
    A ring is a hint: one may be lost with the connection, and the task may not be counted yet.
    """

    def __init__(self, broker: Broker, namespace: str, queue: str) -> None:
        self._broker = broker
        self._subjects = topology.doorbells(namespace, queue)
        self._armed: dict[str, Subscription] = {}
        self._rung = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disarm()

    async def arm(self) -> None:
        """Listen for the next task; a doorbell already armed stays as it is.

        Drops a ring that came before this call: read the backlog after arming.
        """
        self._rung.clear()
        for subject in self._subjects:
            if subject not in self._armed:
                await self._listen(subject)

    async def disarm(self) -> None:
        """Stop listening. What rang before can still be waited for."""
        armed, self._armed = self._armed, {}
        for subscription in armed.values():
            # The broker may have ended it a moment ago, and a lost connection ends all of them.
            with contextlib.suppress(NatsError):
                await subscription.unsubscribe()

    async def wait(self, seconds: float) -> bool:
        """Return True as soon as the bell has rung since it was armed, False after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        return True

    async def _listen(self, subject: str) -> None:
        heard = False

        async def hear(_: Msg) -> None:
            nonlocal heard
            heard = True
            self._armed.pop(subject, None)
            self._rung.set()

        try:
            subscription = await self._broker.subscribe(subject, hear)
            if not heard:
                self._armed[subject] = subscription
            # Only this tells the broker; the library's own `max_msgs` merely drops what it keeps sending.
            await subscription.unsubscribe(limit=1)
        except NatsError:
            # No connection: the sweep finds the work, and arms again.
            self._armed.pop(subject, None)
