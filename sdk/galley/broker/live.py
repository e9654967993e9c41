"""Events of topics as they are published, heard by any number of listeners of one connection.

The server sends an event on as it stores it, to those who listen at that moment, and keeps nothing for them:
docs/adr/0043-live-events.md. All listeners of a topic share one subscription. What is heard, and what is kept
until a listener takes it, is bounded for each namespace: one namespace's flood is heard by the gateway on the
connection of all.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
from nats.aio.msg import Msg

from galley.broker import topology
from galley.broker.errors import NotAllowed
from galley.broker.ration import MOST_BYTES, Ration, rationed
from galley.broker.topics import StoredEvent
from galley.errors import ClientClosed, EventInvalid, GalleyError
from galley.event import decode, variables
from galley.filter import Filter, FilterFailed

if TYPE_CHECKING:
    from galley.broker.connection import Broker

LOOKS: Final = 5_000
"""Events of a namespace that are looked at in a second on one connection, each once for each listener."""

HELD_BYTES: Final = 8 * 1024**2
"""Bytes of events that the listeners of a namespace keep on one connection; each has the same share of it."""

_NEVER: Final = datetime.min.replace(tzinfo=UTC)


class Hearing:
    """What one listener has heard and not taken yet."""

    def __init__(self, namespace: "_Namespace", wanted: Filter, most: int) -> None:
        self.dropped = self.gaps = self.failed = 0
        self.problem: GalleyError | None = None
        """What ended it."""
        self.news = asyncio.Event()
        """Set while there is something to take, or it has ended."""
        self._namespace, self._wanted, self._most = namespace, wanted, most
        self._kept: deque[tuple[StoredEvent, int]] = deque()
        self._bytes = 0

    def take(self) -> StoredEvent | None:
        """Return the oldest event that is kept, or None if there is none."""
        if not self._kept:
            if self.problem is None:
                self.news.clear()
            return None
        stored, size = self._kept.popleft()
        self._count(-size)
        return stored

    def hear(self, stored: StoredEvent, size: int) -> None:
        """Keep an event if it passes the filter; the oldest ones make room for it."""
        try:
            if not self._wanted.matches(variables(stored.event, stored.topic)):
                return
        except FilterFailed:
            self.failed += 1
            return
        while self._kept and (len(self._kept) >= self._most or self._bytes + size > self._namespace.share):
            self._count(-self._kept.popleft()[1])
            self.dropped += 1
        if not self._kept and self._namespace.held + size > HELD_BYTES:
            # One event is kept though it is larger than the share, but not so by hundreds of listeners.
            self.dropped += 1
            return
        self._kept.append((stored, size))
        self._count(size)
        self.news.set()

    def end(self, problem: GalleyError) -> None:
        """Have the listener told, once it has taken what is kept."""
        self.problem = self.problem or problem
        self.news.set()

    def clear(self) -> None:
        """Forget what is kept."""
        self._count(-self._bytes)
        self._kept.clear()

    def _count(self, size: int) -> None:
        self._bytes += size
        self._namespace.held += size


class _Topic:
    """Who listens to one topic, over one subscription after the other."""

    def __init__(self, broker: "Broker", namespace: str, name: str) -> None:
        self.hearings: list[Hearing] = []
        self.ration = Ration(LOOKS, seamless=True)
        self.subject = topology.live_subject(namespace, name)
        self._broker, self._name = broker, name
        self._stack = AsyncExitStack()
        self._entering: asyncio.Future[None] | None = None
        self._last, self._last_at = 0, _NEVER

    async def ready(self) -> None:
        """Return when all that the server hears of from now on is heard."""
        if self._entering is None:
            self._entering = asyncio.ensure_future(self._enter())
        # One who leaves must not end it for the others.
        await asyncio.shield(self._entering)

    async def _enter(self) -> None:
        listening = rationed(self._broker, self.subject, self._hear, self.ration, self.lose)
        await self._stack.enter_async_context(listening)

    async def stop(self) -> None:
        if self._entering is not None:
            self._entering.cancel()
            await asyncio.wait([self._entering])
        await self._stack.aclose()

    def lose(self) -> None:
        """Say that events may have been missed."""
        self._last = 0
        for each in self.hearings:
            each.gaps += 1

    async def _hear(self, message: Msg) -> None:
        headers = message.headers or {}
        try:
            sequence, before = int(headers["Nats-Sequence"]), int(headers["Nats-Last-Sequence"])
            stored_at = msgspec.convert(headers["Nats-Time-Stamp"], datetime, strict=False)
        except (KeyError, ValueError):
            return  # it is not from the stream of topics
        if sequence <= self._last and stored_at <= self._last_at:
            return  # it came by the subscription before as well
        if 0 < self._last < before:
            self.lose()
        self._last, self._last_at = sequence, stored_at
        try:
            event = decode(message.data, stored_at)
        except EventInvalid:
            for each in self.hearings:
                each.failed += 1
            return
        stored = StoredEvent(self._name, event, sequence, stored_at)
        for each in self.hearings:
            each.hear(stored, len(message.data))


class _Namespace:
    """The topics of one namespace that are listened to."""

    def __init__(self) -> None:
        self.topics: dict[str, _Topic] = {}
        self.share = HELD_BYTES
        self.held = 0

    def share_out(self) -> None:
        """Give each topic, and each listener, its share of what the namespace may have."""
        listeners = max(1, sum(len(topic.hearings) for topic in self.topics.values()))
        self.share = HELD_BYTES // listeners
        for topic in self.topics.values():
            topic.ration.messages = max(1, LOOKS // listeners)
            topic.ration.bytes = max(1, MOST_BYTES // len(self.topics))


class Live:
    """What the listeners of one connection hear."""

    def __init__(self, broker: "Broker") -> None:
        self._broker = broker
        self._namespaces: dict[str, _Namespace] = {}
        self._hooks: list[Callable[[], None]] = []

    @asynccontextmanager
    async def of(self, namespace: str, name: str, wanted: Filter, most: int) -> AsyncIterator[Hearing]:
        """Hear the events of a topic from now on while the block runs.

        Args:
            namespace: of the topic.
            name: its name.
            wanted: the filter that events have to pass.
            most: events that are kept until they are taken; a new one replaces the oldest.

        Raises:
            BrokerUnreachable: the connection is closing.
            ClientClosed, ClientElsewhere: the connection cannot be used here.
        """
        self._broker.check_usable()
        if not self._hooks:
            self._hooks = [
                self._broker.on_reconnect(self._reconnected),
                self._broker.on_close(self._closed),
                self._broker.on_unheard(self._unheard),
            ]
        place = self._namespaces.setdefault(namespace, _Namespace())
        topic = place.topics.setdefault(name, _Topic(self._broker, namespace, name))
        hearing = Hearing(place, wanted, most)
        topic.hearings.append(hearing)
        place.share_out()
        try:
            await topic.ready()
            yield hearing
        finally:
            topic.hearings.remove(hearing)
            hearing.clear()
            over = not topic.hearings
            if over:
                del place.topics[name]
            place.share_out()
            if not place.topics:
                del self._namespaces[namespace]
            if not self._namespaces:
                for forget in self._hooks:
                    forget()
                self._hooks = []
            if over:
                await topic.stop()

    def _topics(self) -> list[_Topic]:
        return [topic for each in self._namespaces.values() for topic in each.topics.values()]

    async def _reconnected(self) -> None:
        for topic in self._topics():
            topic.lose()

    def _closed(self) -> None:
        for topic in self._topics():
            for each in topic.hearings:
                each.end(ClientClosed(self._broker.server))

    def _unheard(self, subject: str) -> None:
        for topic in self._topics():
            if topic.subject.lower() == subject:
                for each in topic.hearings:
                    each.end(NotAllowed(topic.subject, "listening to"))
