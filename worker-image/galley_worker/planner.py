"""Planner: moves tasks for later from the work stream, where producers put them, to the server's schedules.

Producers may not store schedules themselves: a schedule names the subject it fires at, among all of its
stream, and may repeat without end. And a stream with schedules refuses nothing when it is full, but deletes.
So producers write to the work stream, which is bounded and refuses; a task is moved once there is room.

It takes no slot, and what it does may be done twice: a schedule of a task that has one is not stored again.
It waits for a delivery, a pull that ended (`changed`), or a timer that looks for pulls whose server died.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Final

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.pull import Delivery, Pulls, Source
from galley.broker.topology import QueueLayout
from galley.envelope import Flags, decode
from galley.errors import EnvelopeInvalid
from galley.lanes import Lane
from galley.record import Failure
from galley_worker import journal
from galley_worker.attempts import UNDECIDED_SECONDS
from galley_worker.ledger import Ledger, NoRoom, TooLarge
from galley_worker.settle import NO_ROOM_SECONDS, Settler
from galley_worker.verdict import TOO_LARGE

log = logging.getLogger(__name__)

_AT_ONCE: Final = 64
_LOOK_SECONDS: Final = 5.0
_REFUSED_SECONDS: Final = 0.25


class Planner:
    """Moves the tasks of one queue. `run` does so until it is cancelled."""

    def __init__(
        self,
        broker: Broker,
        layout: QueueLayout,
        ledger: Ledger,
        settler: Settler,
        now: Callable[[], datetime],
    ) -> None:
        self._broker, self._layout = broker, layout
        self._ledger, self._settler, self._now = ledger, settler, now
        work = topology.work_stream(layout.namespace, layout.queue)
        self._source = Source(work, Lane.NORMAL, topology.PLAN)
        self._arrived: deque[Delivery] = deque()
        self._wake = asyncio.Event()

    def delivered(self, delivery: Delivery) -> None:
        """Take a task."""
        self._arrived.append(delivery)
        self._wake.set()

    def changed(self) -> None:
        """Pull again: a pull ended."""
        self._wake.set()

    def reconnected(self) -> None:
        """Forget what was delivered on a connection that broke; it is delivered again."""
        self._arrived.clear()

    async def run(self) -> None:
        """Move tasks until cancelled; what is not moved by then is given back."""
        try:
            async with Pulls(self._broker, self._layout, self, [self._source]) as pulls:
                while True:
                    self._wake.clear()
                    await self._move_some()
                    await self._pull(pulls)
                    try:
                        async with asyncio.timeout(_LOOK_SECONDS):
                            await self._wake.wait()
                    except TimeoutError:
                        pulls.drop_silent()
        finally:
            for delivery in self._arrived:
                self._ledger.give_back(delivery.reply)

    async def _pull(self, pulls: Pulls) -> None:
        if pulls.refusals:
            pulls.refusals = 0
            await asyncio.sleep(_REFUSED_SECONDS)
        if self._broker.connected and not pulls.is_open(self._source):
            await pulls.park(self._source, _AT_ONCE)

    async def _move_some(self) -> None:
        while self._arrived:
            some = [self._arrived.popleft() for _ in range(min(_AT_ONCE, len(self._arrived)))]
            async with asyncio.TaskGroup() as group:
                for delivery in some:
                    group.create_task(self._move(delivery))

    async def _move(self, delivery: Delivery) -> None:
        """Move one task. Does not raise for what a task is."""
        try:
            await self._decide(delivery)
        except Exception as error:  # whatever it is costs this task's time, not the planner
            journal.failed(delivery, error)
            self._settler.look_again(delivery, UNDECIDED_SECONDS)

    async def _decide(self, delivery: Delivery) -> None:
        try:
            await self._ledger.plan(delivery.address, delivery.body, _due_at(delivery) or self._now())
        except EnvelopeInvalid as error:
            journal.dropped(delivery, str(error))
            await self._settler.bury_unreadable(delivery, Failure(error.reason, str(error)))
        except TooLarge as error:
            await self._settler.bury_unreadable(delivery, Failure(TOO_LARGE, str(error)))
        except NoRoom as error:
            journal.no_room(delivery, str(error))
            self._settler.look_again(delivery, NO_ROOM_SECONDS)
        else:
            self._ledger.acknowledge(delivery.reply)


def _due_at(delivery: Delivery) -> datetime | None:
    """Return the time a task waits for, which is never encrypted.

    Raises:
        EnvelopeInvalid: if it is no task.
    """
    if delivery.problem:
        raise EnvelopeInvalid(delivery.problem)
    Flags.decode(delivery.header)
    return decode(delivery.body).not_before
