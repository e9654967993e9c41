"""The records of Tasks as they change, from the broker to what is given to react."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from galley.address import TaskAddress
from galley.broker.follow import React
from galley.record import Stored
from galley_operator.errors import RecordsUnread
from galley_operator.faults import Faults
from galley_operator.tasks.active_tasks import QueueKey

PATIENCE_SECONDS: Final = 10.0
"""How long Tasks wait until their queue's records are followed; those of other queues need their places."""


class RecordStream(Protocol):
    """The records of one queue as they change."""

    started: asyncio.Event
    """Set once no later change can be missed."""

    async def run(self) -> None:
        """Follow until cancelled."""


Follow: TypeAlias = Callable[[QueueKey, React], RecordStream]
"""Returns the records of a queue as a stream, which passes each to what it is given."""


class RecordStreams:
    """Follows the records of each queue that has Tasks, for as long as `run` runs."""

    def __init__(self, follow: Follow, react: React, faults: Faults) -> None:
        self._follow, self._passed_on, self._faults = follow, react, faults
        self._streams: dict[QueueKey, RecordStream] = {}
        self._begun: dict[QueueKey, float] = {}
        """Since when each is waited for, by the loop's clock."""
        self._running: dict[QueueKey, asyncio.Task[None]] = {}
        self._wanted: asyncio.Queue[QueueKey] = asyncio.Queue()

    async def run(self) -> None:
        """Follow until cancelled."""
        self._running.clear()
        for queue in self._streams:
            self._wanted.put_nowait(queue)
        async with asyncio.TaskGroup() as group:
            while True:
                queue = await self._wanted.get()
                stream = self._streams.get(queue)
                if stream is not None and queue not in self._running:
                    follow = self._faults.keep_running("records followed", stream.run)
                    self._running[queue] = group.create_task(
                        follow, name=f"follow records of {'/'.join(queue)}"
                    )

    async def followed(self, queue: QueueKey) -> None:
        """Return once no record of a queue can be missed any more.

        Raises:
            RecordsUnread: if that takes too long. Who asks after that is not kept waiting.
        """
        stream, now = self._streams.get(queue), asyncio.get_running_loop().time()
        if stream is None:
            stream = self._streams[queue] = self._follow(queue, self._react)
            self._begun[queue] = now
            self._wanted.put_nowait(queue)
        if stream.started.is_set():
            return
        waited = now - self._begun[queue]
        try:
            async with asyncio.timeout(max(0.0, PATIENCE_SECONDS - waited)):
                await stream.started.wait()
        except TimeoutError:
            raise RecordsUnread(queue[1], max(waited, PATIENCE_SECONDS)) from None

    def forget(self, queue: QueueKey) -> None:
        """Follow a queue no longer: there is none of that name, and no Task names it."""
        if self._streams.pop(queue, None) is None:
            return
        del self._begun[queue]
        running = self._running.pop(queue, None)
        if running is not None:
            running.cancel()

    def _react(self, address: TaskAddress, stored: Stored) -> None:
        """Pass a record on while the broker's messages are read: an exception costs this record alone."""
        try:
            self._passed_on(address, stored)
        except Exception as error:
            self._faults.caught("record heard", error, str(address))
