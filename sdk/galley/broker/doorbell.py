"""Hearing that a queue got work, or was paused, within a millisecond and at the cost of one message."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerUnreachable


class Doorbell:
    """The doorbell of one queue, which rings for tasks, pauses and resumptions.

    Use it as `async with`; it rings once for each time it is armed.

    The broker takes the ear away by itself after one task, so that a flood costs a listener nothing.
    A ring is a hint: one may be lost with the connection, and the task may not be counted yet.
    """

    def __init__(self, broker: Broker, namespace: str, queue: str) -> None:
        self._broker = broker
        self._subjects = (*topology.doorbells(namespace, queue), topology.pauses(namespace, queue))
        self._armed: dict[str, Subscription] = {}
        self._ring, self._over = asyncio.Event(), asyncio.Event()
        self._stop_hearing: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Self:
        self._stop_hearing = self._broker.on_reconnect(self._reconnected)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_hearing()
        self.disarm()

    async def arm(self) -> None:
        """Listen for the next task; a doorbell already armed stays as it is.

        Drops a ring that came before this call: read the backlog after arming.
        """
        self._ring.clear()
        self._over.clear()
        for subject in self._subjects:
            if subject not in self._armed:
                await self._listen(subject)

    @property
    def armed(self) -> bool:
        """Whether it rings, or has rung, for the next task."""
        return self._ring.is_set() or len(self._armed) == len(self._subjects)

    def disarm(self) -> None:
        """Stop listening. What rang before can still be waited for."""
        armed, self._armed = self._armed, {}
        for subscription in armed.values():
            self._broker.unsubscribe(subscription)

    async def wait(self, seconds: float) -> bool:
        """Return True as soon as the bell has rung since it was armed, False after `seconds`.

        False comes sooner if `interrupt` was called since, or if the connection was lost and made again: a
        ring may be lost with it.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return False
        return self._ring.is_set()

    async def ring(self, seconds: float) -> bool:
        """Return True as soon as the bell has rung since it was armed, False after `seconds`.

        Nothing else ends the wait.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._ring.wait()
        except TimeoutError:
            return False

    def interrupt(self) -> None:
        """End the wait without a ring: something else is to be looked at."""
        self._over.set()

    @property
    def interrupted(self) -> bool:
        """Whether something ended the wait since it was armed, a ring or an interruption."""
        return self._over.is_set()

    async def _reconnected(self) -> None:
        self.interrupt()

    async def _listen(self, subject: str) -> None:
        heard = False

        async def hear(_: Msg) -> None:
            nonlocal heard
            heard = True
            self._armed.pop(subject, None)
            self._ring.set()
            self._over.set()

        try:
            subscription = await self._broker.subscribe(subject, hear)
            if not heard:
                self._armed[subject] = subscription
            # Only this tells the broker; the library's own `max_msgs` merely drops what it keeps sending.
            await subscription.unsubscribe(limit=1)
        except (BrokerUnreachable, NatsError):
            # No connection: the sweep finds the work, and arms again.
            self._armed.pop(subject, None)
