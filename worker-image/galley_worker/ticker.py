"""Ticker: submits the tasks of schedules whose tick has come, and has the next tick delivered.

Any worker of the queue does it, and takes no slot for it. All of it may be done twice: the id of a task
follows from its tick, so the broker and the task's record refuse a second one, and the schedule is stored
only in place of the very message that was delivered. The time is that of the server, which stamps each
delivery: a worker whose clock is wrong submits nothing early and skips nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from msgspec.structs import replace

from galley.address import TaskAddress
from galley.broker import schedules as stored
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.control import Request, Verb
from galley.broker.errors import BrokerError
from galley.broker.pipeline import WRONG_SEQUENCE
from galley.broker.pull import Delivery, Source
from galley.broker.topology import QueueLayout
from galley.encryption import EncryptionError
from galley.envelope import Envelope
from galley.errors import EnvelopeInvalid
from galley.failpoint import failpoint
from galley.lanes import Lane
from galley.record import Outcome, Record, State
from galley.repeat import Overlap
from galley.schedule import (
    IDLE_SECONDS,
    Action,
    Due,
    Schedule,
    Tick,
    address_of,
    decode,
    look,
    moved_on,
    task_of_tick,
    tick_id,
)
from galley_worker.attempts import UNDECIDED_SECONDS
from galley_worker.feed import Feed, side_by_side
from galley_worker.ledger import Beaten, Ledger, NoRoom, TooLarge
from galley_worker.measures import Measures
from galley_worker.settle import NO_ROOM_SECONDS, TICK_KEPT_SECONDS

log = logging.getLogger(__name__)

_REFUSED_SECONDS: Final = 0.25
_REFUSED_MOST: Final = 30.0
STALE_SECONDS: Final = 10.0
"""A delivery that waited longer than this does not tell the time any more, so another one is asked for."""


class Ticker:
    """Fires the schedules of one queue. `run` does so until it is cancelled."""

    def __init__(
        self,
        broker: Broker,
        layout: QueueLayout,
        ledger: Ledger,
        measures: Measures,
        now: Callable[[], datetime],
        *,
        plaintext: bool = True,
    ) -> None:
        """Args: plaintext: whether a schedule whose task is not encrypted may fire."""
        self._plaintext = plaintext
        self._broker, self._ledger, self._measures, self._now = broker, ledger, measures, now
        self._place = layout.namespace, layout.queue
        self._layout = layout
        later = topology.later_stream(layout.namespace, layout.queue)
        source = Source(later, Lane.NORMAL, topology.TIMER)
        self._feed = Feed(broker, layout, source, ledger, side_by_side(self._look_at), _REFUSED_MOST)

    async def run(self) -> None:
        """Fire schedules until cancelled; what is not looked at by then is given back."""
        await self._feed.run()

    async def _look_at(self, delivery: Delivery) -> None:
        """Look at one schedule. Does not raise for what it is."""
        try:
            await self._fire(delivery)
        except Exception as error:  # whatever it is costs this schedule's time, not the others
            again = NO_ROOM_SECONDS if isinstance(error, NoRoom | BrokerError) else UNDECIDED_SECONDS
            log.warning(
                "schedule not looked at",
                extra={"schedule": delivery.address.id, "error": f"{type(error).__name__}: {error}"},
            )
            self._ledger.give_back(delivery.reply, again)

    async def _fire(self, delivery: Delivery) -> None:
        try:
            schedule = decode(delivery.body)
        except EnvelopeInvalid as error:
            # Nothing can be stored in its place that fires.
            log.warning("schedule dropped", extra={"schedule": delivery.address.id, "error": str(error)})
            self._ledger.acknowledge(delivery.reply)
            return
        if schedule.gone:
            self._ledger.acknowledge(delivery.reply)
            return
        now = stamp_of(delivery)
        waited = (self._now() - now).total_seconds()
        if not schedule.fresh and (delivery.delivered > 1 or waited > STALE_SECONDS):
            await self._store(delivery, replace(schedule, fresh=True), now)
            return
        due = look(schedule, now)
        done = [await self._submit(schedule, tick) for tick in due.ticks] if due.ticks else []
        self._count(schedule, due, done)
        moved = moved_on(schedule, now, due, done)
        at = None if moved.suspended else due.next_at
        await self._store(delivery, moved, at or now + timedelta(seconds=IDLE_SECONDS))

    async def _submit(self, schedule: Schedule, tick: datetime) -> Tick:
        """Submit the task of a tick, if its schedule's rules allow it; returns what came of it.

        Raises:
            NoRoom: the queue's later stream is full.
        """
        task_id = tick_id(schedule.name, tick)
        address = address_of(*self._place, schedule.lane, task_id)
        if schedule.lane not in self._layout.lanes:
            return Tick(tick, Action.REFUSED, why=f"the queue has no lane {schedule.lane}")
        last = schedule.progress.last_id
        if last and last != task_id and schedule.repeat.overlap is not Overlap.ALLOW:
            earlier = replace(address, id=last)
            if await self._unfinished(earlier):
                if schedule.repeat.overlap is Overlap.SKIP:
                    return Tick(tick, Action.SKIPPED, why=f"task {last} has not ended")
                await self._cancel(earlier, schedule)
        pattern = replace(address, id=schedule.name)
        try:
            template = await self._broker.payloads.read_task(
                pattern, bytes(schedule.task), plaintext=self._plaintext
            )
            task = task_of_tick(schedule, template, tick, self._now())
            await self._store_task(address, task, tick)
        except (EnvelopeInvalid, EncryptionError, TooLarge) as error:
            about = {"schedule": schedule.name, "task": task_id, "error": str(error)}
            log.warning("tick refused", extra=about)
            return Tick(tick, Action.REFUSED, why=f"{error}"[:200])
        log.info("tick fired", extra={"schedule": schedule.name, "task": task_id})
        return Tick(tick, Action.FIRED, task_id)

    async def _store_task(self, address: TaskAddress, task: Envelope, tick: datetime) -> None:
        if task.sealed:
            raise self._broker.payloads.missing(address, task.sealed)
        body = await self._broker.payloads.task_bytes(address, task)
        failpoint("tick.before_task")
        await self._ledger.plan(address, body, task.not_before or tick)

    async def _unfinished(self, address: TaskAddress) -> bool:
        """Return whether the task of an earlier tick waits or runs.

        Each of them claims its record before it runs, so one without a record waits, or is long gone.
        """
        stored_record = await self._ledger.read(address)
        if stored_record is not None and (stored_record.record.done):
            return False
        if await stored.waits(self._broker, address):
            return True
        stored_record = await self._ledger.read(address)
        return stored_record is not None and not stored_record.record.done

    async def _cancel(self, address: TaskAddress, schedule: Schedule) -> None:
        """End the task of an earlier tick: its record decides, and a worker that runs it hears of it."""
        at_least = 0
        while True:
            known = await self._ledger.read(address, at_least)
            if known is not None and known.record.done:
                return
            present = known.record if known is not None else Record(
                State.RUN, 0, handler=schedule.handler, lane=address.lane
            )  # fmt: skip
            final = replace(
                present, state=State.DONE, outcome=Outcome.CANCELLED, ended_at=self._now(),
                claim=None, handed_back=False, due_at=None,
            )  # fmt: skip
            fence = known.sequence if known is not None else 0
            written = await self._ledger.write(address, final, fence, TICK_KEPT_SECONDS)
            if not isinstance(written, Beaten):
                break
            at_least = written.by
        request = msgspec.json.encode(Request(task=f"{address.kind}.{address.id}"))
        self._broker.publish(topology.control_subject(*self._place, Verb.CANCEL), request)

    async def _store(self, delivery: Delivery, schedule: Schedule, at: datetime) -> None:
        """Have the schedule delivered again at `at`, unless it was changed or deleted meanwhile."""
        failpoint("tick.before_store")
        while True:
            ack = await stored.store(self._broker, self._place, schedule, at, instead_of=delivery.sequence)
            if ack.stored or ack.code == WRONG_SEQUENCE:
                self._ledger.acknowledge(delivery.reply)
                return
            log.warning("schedule not stored yet", extra={"schedule": schedule.name, "error": ack.problem})
            await asyncio.sleep(_REFUSED_SECONDS)

    def _count(self, schedule: Schedule, due: Due, done: list[Tick]) -> None:
        for tick in done:
            late = max(0.0, (self._now() - tick.at).total_seconds())
            self._measures.ticked(schedule.name, tick.action, late)
        if due.missed:
            self._measures.ticked(schedule.name, Action.MISSED, count=due.missed)


def stamp_of(delivery: Delivery) -> datetime:
    """Return when the server stored a message, by its own clock."""
    nanoseconds = int(topology.parse_ack_subject(delivery.reply)[5])
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)
