"""Turns: tasks that wait under keys are moved to their lane, a few of one key and then a few of the next.

Each key with waiting tasks has one message in its lane, its *turn*. Who receives it moves tasks of the key to
the lane and puts the turn at the lane's end. Where the queue limits how many tasks of a key run at once, a
task is moved only with a permit; without a free one the turn ends, and who gives a permit back goes on. Where
it limits how many start in a time, the turn ends, too, and comes again at the moment when one may start. The
rules, and what each prevents, are in `tests/unit/protocol/key_model.py` and docs/adr/0037-keys.md.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerError
from galley.broker.held import message_of
from galley.broker.key_permits import NOTHING, KeyPermits, StoredPermits
from galley.broker.pull import Delivery
from galley.broker.topology import QueueLayout
from galley.envelope import Envelope, Flags
from galley.error_group import ungrouped
from galley.failpoint import failpoint
from galley.key import Permits, Rate, digest_of_key
from galley.lanes import Lane
from galley_worker.credits import LaneCredits
from galley_worker.keyed_tasks import KeyedTasks, Waiting
from galley_worker.ledger import Ledger, NoRoom
from galley_worker.settle import Settler

log = logging.getLogger(__name__)

QUANTUM: Final = 4
"""Most tasks of a key that are moved in one turn, times its weight."""

EMPTY_SECONDS: Final = 1.0
"""After this a key is looked at again that had no waiting task: a producer may have come in between."""

RUNG_SECONDS: Final = 10.0
"""The same, if a turn of the key is under way elsewhere."""

LEASE_SECONDS: Final = 30.0
"""How often a key is looked at whose tasks wait for a permit: a worker may have died that was to give one
back."""

AGAIN_SECONDS: Final = 1.0
"""Pause before a turn is delivered again that could not be taken, since the broker did not answer."""


class KeyRules(NamedTuple):
    """What a queue says of its keys."""

    permits: int = 0
    """Tasks of one key that may run at once; 0 does not limit them."""
    ordered: bool = False
    """Whether a task keeps its permit until it has ended, retries included."""
    rate: Rate | None = None
    """How many of one key may start in a time; None does not limit them."""
    weights: Mapping[str, int] = MappingProxyType({})
    """Of the digests of keys that have more than 1."""

    @property
    def limited(self) -> bool:
        """Whether a task needs more than a slot to run."""
        return self.permits > 0 or self.rate is not None


class Found(StrEnum):
    """What a look at a key ended with."""

    MORE = "tasks wait, and may go on"
    EMPTY = "no task waits"
    FULL = "tasks wait for a permit, or for their rate"


class Turns:
    """What one worker does about the keys of its queue."""

    def __init__(  # noqa: PLR0917 - what it works with
        self, broker: Broker, layout: QueueLayout, ledger: Ledger, settler: Settler, rules: KeyRules,
        now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self.rules = rules
        self._broker, self._layout, self._ledger, self._now = broker, layout, ledger, now
        self._work = topology.work_stream(layout.namespace, layout.queue)
        self._tasks = KeyedTasks(broker, layout, ledger, settler, now)
        self._permits = KeyPermits(broker, layout.namespace, layout.queue)
        self._busy: dict[str, tuple[asyncio.Lock, int]] = {}

    async def take(self, delivery: Delivery) -> None:
        """Take the turn of a key. Does not raise for what the broker does: the turn comes again then."""
        try:
            async with self._one_at_a_time(delivery.address.id):
                await self._take(delivery)
        except (BrokerError, NoRoom) as error:
            log.warning("turn of a key not taken", extra={"key": delivery.address.id, "error": str(error)})
            self._ledger.give_back(delivery.reply, AGAIN_SECONDS)

    async def _take(self, delivery: Delivery) -> None:
        turn = delivery.address
        if delivery.problem:
            log.warning("turn of a key dropped", extra={"key": turn.id, "error": delivery.problem})
            self._ledger.acknowledge(delivery.reply)
            return
        fired = delivery.source.stream != self._work
        # Before the look: a turn that is not there now has its own look after this.
        if await self._tasks.next(topology.task_subject(turn), 1 if fired else delivery.sequence + 1):
            if fired:
                await self._tasks.arm(turn, RUNG_SECONDS)
        else:
            # With a limit, all lanes of a key share what it allows.
            lanes = self._tasks.lanes if self.rules.limited else (turn.lane,)
            found = await self._look(turn.id, lanes, fired=fired)
            if found is Found.MORE and not await self._tasks.put(turn):
                # The backlog is full: this turn stays instead of a new one at the lane's end.
                self._ledger.give_back(delivery.reply, AGAIN_SECONDS)
                return
            if found is Found.EMPTY and not fired:
                await self._tasks.arm(turn, EMPTY_SECONDS)
        failpoint("turn.before_ack")
        self._ledger.acknowledge(delivery.reply)

    async def may_run(self, address: TaskAddress, envelope: Envelope, flags: Flags) -> bool:
        """Return whether a task of a key that is in its lane may run there, as far as its key goes."""
        if not self.rules.limited:
            return True
        if not flags.permit:
            return False
        if flags.attempt == 1 or not self.rules.permits:
            return True
        # It may have given its permit back when its last attempt ended.
        found = await self._permits.read(digest_of_key(envelope.key))
        return address.id in found.permits.held

    async def park(self, delivery: Delivery, envelope: Envelope, flags: Flags) -> None:
        """Have a task wait under its key: it was to run later, is tried again, or came without a permit.

        Raises:
            BrokerRefused: the backlog is full.
            BrokerUnreachable: the broker does not answer.
        """
        digest, address = digest_of_key(envelope.key), delivery.address
        waits = replace(flags, republished=True, permit=False)
        subject = topology.wait_subject(address, digest)
        headers = {topology.EXPECTED_SEQUENCE: "0", topology.FLAGS_HEADER: waits.encode()}
        await self._tasks.store(subject, delivery.body, headers)
        await self._tasks.ring(self._tasks.turn(digest, address.lane))
        self._ledger.acknowledge(delivery.reply)

    async def give_back(self, address: TaskAddress, key: str) -> None:
        """Give the permit of a task back, and move the next ones. Does not raise for what the broker does.

        If it cannot be done, the permit is found to be free when the key is looked at next.
        """
        if not self.rules.permits:
            return
        digest = digest_of_key(key)
        failpoint("turn.before_give_back")
        try:
            async with self._one_at_a_time(digest):
                if await self._look(digest, self._tasks.lanes, leaving=address.id) is Found.MORE:
                    await self._tasks.ring_all(digest)
        except (BrokerError, NoRoom) as error:
            log.warning("permit not given back yet", extra={"task": address.id, "error": str(error)})

    async def give_back_if_gone(self, address: TaskAddress, key: str) -> None:
        """Give the permit of a task back that is not ours to run, unless it has a message still."""
        try:
            there = await message_of(self._broker, address)
        except BrokerError:
            return
        if there is None:
            await self.give_back(address, key)

    # -- a look at a key

    async def _look(
        self, digest: str, lanes: Sequence[Lane], *, leaving: str = "", fired: bool = False
    ) -> Found:
        """Move waiting tasks of a key to their lane, as many as a turn has.

        Args:
            digest: of the key.
            lanes: to look in, the highest first; a lower one has its share of the starts.
            leaving: a task whose permit is given back.
            fired: whether a schedule has it look: also for permits whose task is gone.
        """
        moved, most = 0, QUANTUM * self.rules.weights.get(digest, 1)
        while moved < most:
            state, waiting = await self._read(digest, lanes)
            permits = state.permits
            held = tuple(each for each in permits.held if each != leaving)
            ready = self._ready(permits)
            stuck = self._is_full(held) or not ready
            if not waiting or (stuck and not any(each.address.id in held for each in waiting)):
                if held != permits.held:
                    # Written before it looks once more: a turn may have ended, since no permit was free.
                    await self._write(digest, replace(permits, held=held), state.sequence)
                elif not waiting:
                    return Found.EMPTY
                elif not (fired and await self._freed(digest, permits, state.sequence)):
                    await self._look_again(digest, waiting[0].address.lane, permits)
                    return Found.FULL
                else:
                    fired = False  # once is enough: the next look comes after a lease
                continue
            chosen, earned = self._chosen(waiting, permits, held, min(most - moved, ready))
            if await self._give(digest, replace(permits, held=held, credits=earned), state, chosen):
                for each in chosen:
                    await self._tasks.move(each, permit=self.rules.limited)
                moved += len(chosen)
        return Found.MORE

    async def _freed(self, digest: str, permits: Permits, sequence: int) -> bool:
        """Use permits that a worker which died did not give back; returns if there were any.

        Those of tasks that have ended, and so have no message, are free. Tasks that have one and wait again,
        behind others, are moved.
        """
        found = [await message_of(self._broker, self._address(each)) for each in permits.held]
        again = [each.address for each in found if each is not None and each.waits]
        for address in again:
            waiting = await self._tasks.next(topology.waiting_anywhere(address), 1)
            if waiting is not None:
                await self._tasks.move(waiting, permit=True)
        kept = tuple(each for each, there in zip(permits.held, found, strict=True) if there is not None)
        if kept != permits.held:
            await self._write(digest, replace(permits, held=kept), sequence)
        return bool(again) or kept != permits.held

    def _address(self, task_id: str) -> TaskAddress:
        """Return an address of a task that leads to its message, whatever its lane."""
        layout = self._layout
        return TaskAddress(layout.namespace, layout.queue, self._tasks.lanes[0], Kind.DIRECT, task_id)

    def _ready(self, permits: Permits) -> int:
        """Return how many tasks may start now, as far as the rate of a key goes."""
        rate = self.rules.rate
        return QUANTUM if rate is None else rate.ready(permits.full_at, self._seconds())

    def _is_full(self, held: Sequence[str]) -> bool:
        return 0 < self.rules.permits <= len(held)

    def _chosen(
        self, waiting: Sequence[Waiting], permits: Permits, held: Sequence[str], most: int
    ) -> tuple[list[Waiting], dict[str, int]]:
        """Return what to move, and the credits of the lanes after that.

        Those are first that have a permit since before a worker died, whatever their lane; else those of the
        lane whose turn it is.
        """
        if self.rules.permits:
            if known := [each for each in waiting if each.address.id in held]:
                return known, permits.credits
            most = min(most, self.rules.permits - len(held))
        lanes = [each for each in self._tasks.lanes if any(one.address.lane is each for one in waiting)]
        if len(lanes) == 1:
            return list(waiting[:most]), {}
        shares = LaneCredits(self._tasks.lanes, permits.credits)
        chosen: list[Waiting] = []
        for lane, starts in shares.plan(most, lanes).items():
            some = [one for one in waiting if one.address.lane is lane][:starts]
            for _ in some:
                shares.started(lane, lanes)
            chosen += some
        return chosen, shares.earned

    async def _give(
        self, digest: str, permits: Permits, before: StoredPermits, chosen: Sequence[Waiting]
    ) -> bool:
        """Write the permits of tasks that are to be moved; returns False if another write came first."""
        if not self.rules.limited:
            return True
        failpoint("turn.before_permit")
        new = tuple(each.address.id for each in chosen if each.address.id not in permits.held)
        if self.rules.permits:
            permits = replace(permits, held=(*permits.held, *new))
        if self.rules.rate is not None:
            full_at = self.rules.rate.taken(permits.full_at, self._seconds(), len(new))
            permits = replace(permits, full_at=full_at)
        return permits == before.permits or await self._write(digest, permits, before.sequence)

    async def _write(self, digest: str, permits: Permits, sequence: int) -> bool:
        seconds = permits.full_at - self._seconds()
        return await self._permits.write(digest, permits, sequence, kept_seconds=int(seconds) + 1)

    async def _look_again(self, digest: str, lane: Lane, permits: Permits) -> None:
        """Have a key looked at again whose tasks wait: when one may start, or when a permit may be lost."""
        seconds = LEASE_SECONDS
        if self.rules.rate is not None and not self._is_full(permits.held):
            seconds = max(0.0, self.rules.rate.next_at(permits.full_at) - self._seconds())
        await self._tasks.arm(self._tasks.turn(digest, lane), seconds)

    async def _read(self, digest: str, lanes: Sequence[Lane]) -> tuple[StoredPermits, list[Waiting]]:
        most = min(QUANTUM, self.rules.permits or QUANTUM)
        with ungrouped():
            async with asyncio.TaskGroup() as reads:
                stored = reads.create_task(self._permits.read(digest)) if self.rules.limited else None
                found = [reads.create_task(self._tasks.first(digest, lane, most)) for lane in lanes]
        waiting = [one for each in found for one in each.result()]
        return stored.result() if stored is not None else NOTHING, waiting

    def _seconds(self) -> float:
        return self._now().astimezone(UTC).timestamp()

    @asynccontextmanager
    async def _one_at_a_time(self, digest: str) -> AsyncIterator[None]:
        """Hold others of this process off the same key: they would only overtake each other's writes."""
        lock, users = self._busy.get(digest, (None, 0))
        lock = lock or asyncio.Lock()
        self._busy[digest] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._busy[digest]
            if users == 1:
                del self._busy[digest]
            else:
                self._busy[digest] = lock, users - 1
