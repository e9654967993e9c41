"""Planner: moves tasks for later from the work stream, where producers put them, to the server's schedules.

Producers may not store schedules themselves: a schedule names the subject it fires at, among all of its
stream, and may repeat without end. And a stream with schedules refuses nothing when it is full, but deletes.
So producers write to the work stream, which is bounded and refuses; a task is moved once there is room.

It takes no slot, and what it does may be done twice: a schedule of a task that has one is not stored again.
"""

from collections.abc import Callable
from datetime import datetime

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.pull import Delivery, Source
from galley.broker.topology import QueueLayout
from galley.envelope import Flags, decode
from galley.errors import EnvelopeInvalid
from galley.lanes import Lane
from galley.record import Failure
from galley_worker import journal
from galley_worker.attempts import UNDECIDED_SECONDS
from galley_worker.feed import Feed, side_by_side
from galley_worker.ledger import Ledger, NoRoom, TooLarge
from galley_worker.settle import NO_ROOM_SECONDS, Settler
from galley_worker.verdict import TOO_LARGE


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
        self._ledger, self._settler, self._now = ledger, settler, now
        work = topology.work_stream(layout.namespace, layout.queue)
        source = Source(work, Lane.NORMAL, topology.PLAN)
        self._feed = Feed(broker, layout, source, ledger, side_by_side(self._move))

    async def run(self) -> None:
        """Move tasks until cancelled; what is not moved by then is given back."""
        await self._feed.run()

    async def _move(self, delivery: Delivery) -> None:
        """Move one task. Does not raise for what a task is."""
        try:
            await self._decide(delivery)
        except Exception as error:  # whatever it is costs this task's time, not the planner
            journal.failed(delivery, error)
            self._settler.look_again(delivery, UNDECIDED_SECONDS)

    async def _decide(self, delivery: Delivery) -> None:
        if await self._settler.refused_id(delivery):
            return
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
