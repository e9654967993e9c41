"""Listening to a topic: its events as they are published, and nothing that outlives the program."""

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self

from galley.broker.connection import Broker
from galley.broker.errors import BrokerUnreachable
from galley.broker.live import Hearing
from galley.broker.topics import StoredEvent, find_topic
from galley.errors import EventInvalid, TopicNotFound
from galley.event import check_topic_name
from galley.filter import parse

BUFFER: Final = 1000
"""Events that are kept for a listener, if it does not say how many."""

_MOST: Final = 100_000

_LOOK_SECONDS: Final = 10.0
"""After so long without an event it is looked whether the topic is still there."""


class AsyncListener:
    """The events of a topic as they are published; `AsyncTopics.listen` makes it.

    What is published once its block (`async with`) has begun is heard. Its iteration (`async for`) goes on
    through lost connections. It raises `TopicNotFound` once the topic is gone, `NotAllowed` when the
    credentials may no longer listen, `ClientClosed` when the client is closed, and `EventInvalid` outside of
    the block.
    """

    def __init__(self, broker: Broker, namespace: str, topic: str, wanted: str, buffer: Any) -> None:
        if not isinstance(buffer, int) or not 1 <= buffer <= _MOST:
            raise EventInvalid("buffer", f"is {buffer!r}"[:80], f"keep 1 to {_MOST} events")
        self._broker, self._namespace, self._topic = broker, namespace, check_topic_name(topic)
        self._filter, self._buffer = parse(wanted), buffer
        self._stack = AsyncExitStack()
        self._heard: Hearing | None = None

    @property
    def dropped(self) -> int:
        """Events that were heard and not taken before newer ones needed their place."""
        return 0 if self._heard is None else self._heard.dropped

    @property
    def gaps(self) -> int:
        """How often events may have been missed: the connection was lost, or more came than is heard."""
        return 0 if self._heard is None else self._heard.gaps

    @property
    def failed(self) -> int:
        """Events to which the filter could not be applied, or that are none."""
        return 0 if self._heard is None else self._heard.failed

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            TopicNotFound: there is no topic of that name.
            NotAllowed: the credentials are not those of a producer or manager of the namespace.
            BrokerUnreachable, ClientClosed, ClientElsewhere: as `AsyncTopics.get`.
            EventInvalid: it listens already.
        """
        if self._heard is not None:
            raise EventInvalid("listener", "has been opened before", "call `topics.listen` again")
        async with AsyncExitStack() as stack:
            live = self._broker.live.of(self._namespace, self._topic, self._filter, self._buffer)
            heard = await stack.enter_async_context(live)
            # Its answer comes after what the server says of the subscription.
            await self._look(heard)
            if heard.problem is not None:
                raise heard.problem
            self._heard, self._stack = heard, stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StoredEvent:
        self._broker.check_usable()
        heard = self._heard
        if heard is None:
            hint = "use it as: async with client.topics.listen(...) as events"
            raise EventInvalid("listener", "does not listen", hint)
        while (stored := heard.take()) is None:
            if heard.problem is not None:
                raise heard.problem
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await heard.news.wait()
            except TimeoutError:
                await self._look_again(heard)
        return stored

    async def _look_again(self, heard: Hearing) -> None:
        try:
            await self._look(heard)
        except BrokerUnreachable:
            return  # the connection is made again, and counted as a gap

    async def _look(self, heard: Hearing) -> None:
        """End what is heard if there is no such topic.

        Raises:
            BrokerUnreachable: if that cannot be found out.
        """
        if await find_topic(self._broker, self._namespace, self._topic) is None:
            heard.end(TopicNotFound(self._namespace, self._topic))
