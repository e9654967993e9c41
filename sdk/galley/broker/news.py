"""News of changed records, heard by any number of waiters over a few subscriptions of their connection.

Few waiters of a queue hear of their own tasks alone, so that it costs the same in a busy queue. Many share
one subscription, which brings the news of all tasks of the queue: docs/adr/0030-waiters.md.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nats.aio.subscription import Subscription

from galley.address import TaskAddress
from galley.broker import topology

if TYPE_CHECKING:
    from galley.broker.connection import Broker

FEW: Final = 32
"""Tasks of a queue with a subscription of their own; those after them share one for the whole queue."""


@dataclass
class _Queue:
    """Who waits for tasks of one queue, by the subject of their news."""

    waiting: dict[str, set[asyncio.Event]] = field(default_factory=dict)
    own: dict[str, Subscription | None] = field(default_factory=dict)
    """The subscriptions to news of one task; None while one is being made."""
    shared: bool = False
    """Whether all news of the queue are heard, or about to be."""
    subscription: Subscription | None = None

    def hear(self, subject: str, _reply: str, _body: bytes, _headers: bytes) -> None:
        for event in self.waiting.get(subject, ()):
            event.set()


class News:
    """What the waiters of one connection hear."""

    def __init__(self, broker: "Broker") -> None:
        self._broker = broker
        self._queues: dict[tuple[str, str], _Queue] = {}
        self._hooks: list[Callable[[], None]] = []

    @asynccontextmanager
    async def of(self, address: TaskAddress) -> AsyncIterator[asyncio.Event]:
        """Yield an event that is set when the record of a task changed, or news of that may have been missed.

        It is also set when the connection is made again, and when it is closed for good.

        Raises:
            BrokerUnreachable: if the connection is closing.
            ClientClosed, ClientElsewhere: if the connection cannot be used here.
        """
        changed = asyncio.Event()
        key, subject = (address.namespace, address.queue), topology.done_subject(address)
        if not self._queues:
            self._hooks = [self._broker.on_reconnect(self._reconnected), self._broker.on_close(self._wake)]
        queue = self._queues.setdefault(key, _Queue())
        queue.waiting.setdefault(subject, set()).add(changed)
        try:
            await self._listen(queue, key, subject)
            yield changed
        finally:
            self._leave(queue, key, subject, changed)

    async def _listen(self, queue: _Queue, key: tuple[str, str], subject: str) -> None:
        # What is awaited here sends before it lets others run, so that they can look without waiting for it.
        if queue.shared or subject in queue.own:
            return
        if len(queue.own) < FEW:
            queue.own[subject] = None
            queue.own[subject] = await self._broker.subscribe_directly(subject, queue.hear)
            return
        queue.shared = True
        pattern = topology.changes_of_queue(*key)
        queue.subscription = await self._broker.subscribe_directly(pattern, queue.hear)

    def _leave(self, queue: _Queue, key: tuple[str, str], subject: str, changed: asyncio.Event) -> None:
        queue.waiting[subject].discard(changed)
        over: list[Subscription | None] = []
        if not queue.waiting[subject]:
            del queue.waiting[subject]
            over.append(queue.own.pop(subject, None))
        if not queue.waiting:
            del self._queues[key]
            over.append(queue.subscription)
        if not self._queues:
            for forget in self._hooks:
                forget()
            self._hooks = []
        for subscription in over:
            if subscription is not None:
                self._broker.unsubscribe(subscription)

    async def _reconnected(self) -> None:
        self._wake()

    def _wake(self) -> None:
        for queue in self._queues.values():
            for events in queue.waiting.values():
                for event in events:
                    event.set()
