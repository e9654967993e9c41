"""Turns: tasks that wait under keys are moved to their lane, a few of one key and then a few of the next.

Each key with waiting tasks has one message in its lane, its *turn*. Who receives it moves tasks of the key to
the lane and puts the turn at the lane's end. Where the queue limits how many tasks of a key run at once, a
task is moved only with a permit; without a free one the turn ends, and who gives a permit back goes on. The
rules, and what each prevents, are in `tests/unit/protocol/key_model.py` and docs/adr/0037-keys.md.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerError, BrokerRefused
from galley.broker.held import message_of
from galley.broker.key_permits import NOTHING, KeyPermits, StoredPermits
from galley.broker.lean_client import header_block
from galley.broker.pipeline import WRONG_SEQUENCE
from galley.broker.pull import Delivery
from galley.broker.topology import QueueLayout
from galley.envelope import FIRST, Envelope, Flags
from galley.error_group import ungrouped
from galley.errors import EnvelopeInvalid
from galley.key import Permits, digest_of_key
from galley.lanes import HIGHEST_FIRST, Lane
from galley_worker.ledger import Ledger, NoRoom, TooLarge

log = logging.getLogger(__name__)

QUANTUM: Final = 4
"""Most tasks of a key that are moved in one turn."""

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


class Found(StrEnum):
    """What a look at a key ended with."""

    MORE = "tasks wait, and may go on"
    EMPTY = "no task waits"
    FULL = "tasks wait for a permit"


class Waiting(NamedTuple):
    """A task that waits under a key."""

    address: TaskAddress
    sequence: int
    body: bytes
    header: str


class Turns:
    """What one worker does about the keys of its queue."""

    def __init__(
        self, broker: Broker, layout: QueueLayout, ledger: Ledger, rules: KeyRules,
        now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self.rules = rules
        self._broker, self._layout, self._ledger, self._now = broker, layout, ledger, now
        self._work = topology.work_stream(layout.namespace, layout.queue)
        self._permits = KeyPermits(broker, layout.namespace, layout.queue)
        self._lanes = tuple(lane for lane in HIGHEST_FIRST if lane in layout.lanes)
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
        fired = delivery.source.stream != self._work
        # Before the look: a turn that is not there now has its own look after this.
        if await self._next(topology.task_subject(turn), 1 if fired else delivery.sequence + 1):
            if fired:
                await self._arm(turn, RUNG_SECONDS)
        else:
            found = await self._look(turn.id, (turn.lane,), fired=fired)
            if found is Found.MORE and not await self._put(turn):
                # The backlog is full: this turn stays instead of a new one at the lane's end.
                self._ledger.give_back(delivery.reply, AGAIN_SECONDS)
                return
            if found is Found.EMPTY and not fired:
                await self._arm(turn, EMPTY_SECONDS)
        self._ledger.acknowledge(delivery.reply)

    async def may_run(self, address: TaskAddress, envelope: Envelope, flags: Flags) -> bool:
        """Return whether a task of a key that is in its lane may run there, as far as its key goes."""
        if not self.rules.permits:
            return True
        if not flags.permit:
            return False
        if flags.attempt == 1:
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
        await self._store(subject, delivery.body, headers)
        await self._ring(self._turn(digest, address.lane))
        self._ledger.acknowledge(delivery.reply)

    async def give_back(self, address: TaskAddress, key: str) -> None:
        """Give the permit of a task back, and move the next ones. Does not raise for what the broker does.

        If it cannot be done, the permit is found to be free when the key is looked at next.
        """
        if not self.rules.permits:
            return
        digest = digest_of_key(key)
        try:
            async with self._one_at_a_time(digest):
                if await self._look(digest, self._lanes, leaving=address.id) is Found.MORE:
                    for lane in self._lanes:
                        await self._ring(self._turn(digest, lane))
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
            lanes: to look in, the first one with a waiting task first.
            leaving: a task whose permit is given back.
            fired: whether to look for permits whose task is gone.
        """
        moved = 0
        while moved < QUANTUM:
            state, waiting = await self._read(digest, lanes)
            held = tuple(each for each in state.permits.held if each != leaving)
            stuck = self._is_full(held) and not any(each.address.id in held for each in waiting)
            if not waiting or stuck:
                if held != state.permits.held:
                    # Written before it looks once more: a turn may have ended, since no permit was free.
                    await self._permits.write(digest, replace(state.permits, held=held), state.sequence)
                elif not waiting:
                    return Found.EMPTY
                elif not (fired and await self._freed(digest, state)):
                    await self._see_to_it(digest, waiting[0].address.lane, state)
                    return Found.FULL
                continue
            chosen = self._chosen(waiting, held, QUANTUM - moved)
            if await self._give(digest, state, held, chosen):
                for each in chosen:
                    await self._move(each)
                moved += len(chosen)
        return Found.MORE

    async def _freed(self, digest: str, state: StoredPermits) -> bool:
        """Free the permits of tasks that have ended, and so have no message; returns if there were any."""
        held = state.permits.held
        kept = await self._kept(held)
        if kept == held:
            return False
        await self._permits.write(digest, replace(state.permits, held=kept), state.sequence)
        return True

    def _turn(self, digest: str, lane: Lane) -> TaskAddress:
        return topology.turn_address(self._layout.namespace, self._layout.queue, lane, digest)

    def _is_full(self, held: Sequence[str]) -> bool:
        return 0 < self.rules.permits <= len(held)

    def _chosen(self, waiting: Sequence[Waiting], held: Sequence[str], most: int) -> list[Waiting]:
        """Return what to move: those that have a permit since before a worker died, else those to get one."""
        if not self.rules.permits:
            return list(waiting[:most])
        known = [each for each in waiting if each.address.id in held]
        return known or list(waiting[: min(most, self.rules.permits - len(held))])

    async def _give(
        self, digest: str, state: StoredPermits, held: tuple[str, ...], chosen: Sequence[Waiting]
    ) -> bool:
        """Write the permits of tasks that are to be moved; returns False if another write came first."""
        if not self.rules.permits:
            return True
        new = tuple(each.address.id for each in chosen if each.address.id not in held)
        permits = Permits((*held, *new), state.permits.look_at)
        if permits == state.permits:
            return True
        if self._is_full(permits.held) and self._seconds() >= permits.look_at:
            # More may wait, or come.
            permits = await self._armed(digest, chosen[0].address.lane, permits)
        return await self._permits.write(digest, permits, state.sequence)

    async def _see_to_it(self, digest: str, lane: Lane, state: StoredPermits) -> None:
        """Have a key looked at again whose tasks wait for a permit, unless it is to be anyway."""
        if self._seconds() >= state.permits.look_at:
            permits = await self._armed(digest, lane, state.permits)
            await self._permits.write(digest, permits, state.sequence)

    async def _armed(self, digest: str, lane: Lane, permits: Permits) -> Permits:
        await self._arm(self._turn(digest, lane), LEASE_SECONDS)
        return replace(permits, look_at=self._seconds() + LEASE_SECONDS)

    async def _kept(self, held: tuple[str, ...]) -> tuple[str, ...]:
        """Return the permits whose task has a message, and so has not ended."""
        kept = []
        for task_id in held:
            address = TaskAddress(
                self._layout.namespace, self._layout.queue, self._lanes[0], Kind.DIRECT, task_id
            )
            if await message_of(self._broker, address) is not None:
                kept.append(task_id)
        return tuple(kept)

    async def _read(self, digest: str, lanes: Sequence[Lane]) -> tuple[StoredPermits, list[Waiting]]:
        with ungrouped():
            async with asyncio.TaskGroup() as reads:
                stored = reads.create_task(self._permits.read(digest)) if self.rules.permits else None
                found = [reads.create_task(self._waiting(digest, lane)) for lane in lanes]
        waiting: list[Waiting] = next((each.result() for each in found if each.result()), [])
        return stored.result() if stored is not None else NOTHING, waiting

    async def _waiting(self, digest: str, lane: Lane) -> list[Waiting]:
        """Return the first tasks of a lane that wait under a key, as many as a turn has."""
        pattern, sequence = topology.waiting_of_key(self._turn(digest, lane)), 1
        found: list[Waiting] = []
        most = min(QUANTUM, self.rules.permits or QUANTUM)
        while len(found) < most:
            each = await self._next(pattern, sequence)
            if each is None:
                break
            found.append(each)
            sequence = each.sequence + 1
        return found

    async def _next(self, pattern: str, sequence: int) -> Waiting | None:
        """Return the first message of a pattern in the work stream, from a sequence on."""
        request = msgspec.json.encode({"seq": sequence, "next_by_subj": pattern})
        answer = await self._broker.request(f"$JS.API.DIRECT.GET.{self._work}", request)
        headers = (answer.headers or {}) if answer is not None else {}
        if answer is None or "Nats-Subject" not in headers:
            return None
        address = topology.parse_task_subject(headers["Nats-Subject"])
        header = headers.get(topology.FLAGS_HEADER, "")
        return Waiting(address, int(headers["Nats-Sequence"]), answer.data, header)

    # -- what a look writes

    async def _move(self, waiting: Waiting) -> None:
        """Store a task in its lane, then remove it from where it waits."""
        try:
            flags = Flags.decode(waiting.header)
        except EnvelopeInvalid:
            flags = FIRST  # the worker that runs it reports the problem
        flags = replace(flags, republished=True, permit=self.rules.permits > 0)
        try:
            await self._ledger.admit(waiting.address, waiting.body, flags)
        except TooLarge as error:
            log.warning("task of a key not moved", extra={"task": waiting.address.id, "error": str(error)})
        request = {"seq": waiting.sequence, "no_erase": True}
        try:
            await self._broker.api("remove a task that was moved", f"STREAM.MSG.DELETE.{self._work}", request)
        except BrokerRefused as error:
            # Another turn has removed it; if not, it is moved again, and its record ends it.
            log.debug("moved task not removed", extra={"task": waiting.address.id, "error": str(error)})

    async def _put(self, turn: TaskAddress) -> bool:
        """Put the turn of a key at the end of its lane; returns False if there is no room."""
        try:
            await self._store(topology.task_subject(turn), b"", {topology.FLAGS_HEADER: FIRST.encode()})
        except BrokerRefused:
            return False
        return True

    async def _ring(self, turn: TaskAddress) -> None:
        headers = {topology.EXPECTED_SEQUENCE: "0", topology.FLAGS_HEADER: FIRST.encode()}
        await self._store(topology.task_subject(turn), b"", headers)

    async def _store(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        ack = await (await self._broker.pipeline.send(subject, body, header_block(headers)))
        if not ack.stored and ack.code != WRONG_SEQUENCE:
            raise BrokerRefused(f"store {subject}", ack.code, ack.problem)

    async def _arm(self, turn: TaskAddress, seconds: float) -> None:
        """Have the key of a turn looked at once so many seconds have passed."""
        at = self._now() + timedelta(seconds=seconds)
        await self._ledger.again(turn, at)

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
