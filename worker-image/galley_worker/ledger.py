"""Ledger: writes that must not be lost, to the records, the later stream and the dead letters.

Each is repeated until the broker has answered, because an unanswered write may or may not have happened.
Compare-and-set makes repeating safe; reading back shows whether the first write succeeded. What is larger
than the broker accepts is not repeated: the caller writes less.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from galley import record as wire
from galley.address import TaskAddress
from galley.broker import notes, schedules, topology
from galley.broker.connection import Broker
from galley.broker.dead_letters import bury
from galley.broker.errors import BrokerError
from galley.broker.later import Door, send_later
from galley.broker.lean_client import header_block
from galley.broker.pipeline import FULL, TOO_LARGE, WRONG_SEQUENCE, Ack, Hear
from galley.broker.pull import NAK, nak_after
from galley.broker.records import Records
from galley.broker.room import LaterRoom
from galley.dead_letter import DeadLetter
from galley.encryption import DecryptionKeyMissing, KeyServiceUnavailable, PayloadAltered
from galley.envelope import FIRST, Envelope, Flags
from galley.note import WorkerEnd
from galley.record import Record, Stored
from galley.schedule import ticks_of

log = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 0.25
"""Pause between two tries, while the broker does not answer or cannot store (full disk, leader election)."""

_REPLIES_KEPT: Final = 10_000
_LOST_WITHIN_SECONDS: Final = 10.0
"""Replies sent longer than this before a connection was lost are assumed to have arrived."""

_COMPLAIN_EVERY: Final = 40
"""Tries between two log lines: about ten seconds."""


@dataclass(frozen=True, slots=True)
class Beaten:
    """A compare-and-set was refused, since another record was written first."""

    by: int
    """Sequence of that record."""


class TooLarge(Exception):
    """A write is larger than the broker accepts."""


class NoRoom(Exception):
    """The queue's streams have no room for a write now; it may have some when other tasks have gone."""


class Replies:
    """Acknowledgements and NAKs of deliveries.

    The broker does not answer them, so those sent shortly before a connection broke, or while there was none,
    are sent again on the next one. Otherwise a delivery that no worker has would wait for its lease to end.
    """

    def __init__(self, broker: Broker, clock: Callable[[], float] = time.monotonic) -> None:
        self._broker = broker
        self._clock = clock
        self._said: deque[tuple[str, bytes, float]] = deque(maxlen=_REPLIES_KEPT)
        self._lost_at = math.inf
        broker.on_disconnect(self._lose)
        broker.on_reconnect(self._say_again)

    def acknowledge(self, reply: str) -> None:
        """Remove the message from its stream."""
        self._said.append((reply, b"", self._clock()))
        self._broker.publish(reply)

    def give_back(self, reply: str, seconds: float = 0.0) -> None:
        """Have the message delivered again, to whichever worker, after so many seconds."""
        body = nak_after(seconds) if seconds else NAK
        self._said.append((reply, body, self._clock()))
        self._broker.publish(reply, body)

    async def _lose(self) -> None:
        self._lost_at = min(self._lost_at, self._clock())

    async def _say_again(self) -> None:
        recent, self._lost_at = self._lost_at - _LOST_WITHIN_SECONDS, math.inf
        for reply, body, said_at in self._said:
            if said_at >= recent:
                self._broker.publish(reply, body)


class Ledger:
    """Writes records, schedules and dead letters for one worker."""

    def __init__(self, broker: Broker) -> None:
        self.replies = Replies(broker)
        self._broker = broker
        self._records = Records(broker)
        self._room = LaterRoom(broker)

    async def write(
        self, address: TaskAddress, record: Record, fence: int, keep_seconds: int | None = None,
        first: Ack | None = None,
    ) -> int | Beaten:  # fmt: skip
        """Write a record in place of the one with sequence `fence`; return its sequence.

        Args:
            address: the task.
            record: what to write.
            fence: sequence of the record it replaces.
            keep_seconds: life of the record; None keeps it until it is replaced.
            first: the answer to a first try, if there was one.

        Raises:
            TooLarge: the broker does not store records of that size.
        """
        ack = first or await self._records.write(address, record, fence, keep_seconds)
        if ack.stored:
            return ack.sequence
        return await self._insist_on_record(address, record, fence, keep_seconds, ack)

    def write_at_once(
        self, address: TaskAddress, record: Record, fence: int, keep_seconds: int, hear: Hear
    ) -> bool:
        """Write a record without waiting: `hear` gets the answer; from a refusal `write` goes on.

        Returns:
            False if it would have to wait; then nothing was done.
        """
        return self._records.write_at_once(address, record, fence, keep_seconds, hear)

    async def read(self, address: TaskAddress, at_least: int = 0) -> Stored | None:
        """Return the record of a task, not older than `at_least`, or None if it has none."""
        tries = 0
        while True:
            try:
                stored = await self._records.read(address, at_least)
                return None if stored is None else await self._decrypted(address, stored)
            except (BrokerError, KeyServiceUnavailable) as error:
                tries = await _pause(tries, f"read the record of {address}", str(error))

    async def reserved_for(self, address: TaskAddress) -> str:
        """Return the schedule whose tick alone may have a task's id; empty if the id is free.

        Raises:
            BrokerError: if that is not known.
        """
        return await schedules.reserved_for(self._broker, address)

    async def end_of(self, address: TaskAddress, worker: str) -> WorkerEnd | None:
        """Return how a worker of the task's queue ended; None if that is not known."""
        try:
            return await notes.end_of(self._broker, address.namespace, address.queue, worker)
        except BrokerError:
            return None  # it decides nothing

    async def _decrypted(self, address: TaskAddress, stored: Stored) -> Stored:
        """Return a record with its payload; as it is stored if that was altered: nothing depends on it."""
        if not stored.record.sealed:
            return stored
        try:
            record = await self._broker.payloads.read_record(address, stored.record)
        except (DecryptionKeyMissing, PayloadAltered) as error:
            log.warning("record not decrypted", extra={"task": address.id, "error": str(error)})
            return stored
        return Stored(record, stored.sequence)

    async def schedule(
        self, address: TaskAddress, envelope: Envelope, flags: Flags, due_at: datetime
    ) -> None:
        """Have the broker deliver the task at `due_at`. Idempotent.

        Raises:
            TooLarge: the broker does not store tasks of that size.
            NoRoom: the queue's stream of tasks for later is full.
        """
        body = await self._broker.payloads.task_bytes(address, envelope)

        async def send() -> Ack:
            return await (await send_later(self._broker, address, body, flags, due_at, Door.AGAIN))

        await self._store_later(f"schedule {address}", address, len(body), topology.RETRY_SHARE, send)

    async def plan(self, address: TaskAddress, body: bytes, due_at: datetime) -> None:
        """Have the broker deliver a task for the first time at `due_at`, unless it does already.

        Args:
            address: the task.
            body: as its producer wrote it.
            due_at: when.

        Raises:
            TooLarge: the broker does not store tasks of that size.
            NoRoom: tasks for later have taken their share of the queue's stream.
        """

        async def send() -> Ack:
            flags = Flags(republished=True)
            ack = await (await send_later(self._broker, address, body, flags, due_at, Door.FIRST))
            return replace(ack, sequence=ack.last_sequence) if ack.code == WRONG_SEQUENCE else ack

        await self._store_later(f"plan {address}", address, len(body), topology.FIRST_SHARE, send)

    async def admit(self, address: TaskAddress, body: bytes, flags: Flags) -> None:
        """Have the broker deliver a task now that waited under its key, unless it does already.

        Raises:
            TooLarge: the broker does not store tasks of that size.
            NoRoom: the queue's stream of tasks for later is full.
        """
        headers = header_block({topology.EXPECTED_SEQUENCE: "0", topology.FLAGS_HEADER: flags.encode()})
        # Where it is looked at whether a producer may use such an id.
        reserved = ticks_of(address.id) is not None
        subject = topology.task_subject(address) if reserved else topology.due_subject(address)

        async def send() -> Ack:
            ack = await (await self._broker.pipeline.send(subject, body, headers))
            return replace(ack, sequence=ack.last_sequence) if ack.code == WRONG_SEQUENCE else ack

        await self._store_later(f"admit {address}", address, len(body), topology.RETRY_SHARE, send)

    async def again(self, turn: TaskAddress, at: datetime) -> None:
        """Have the turn of a key come at a time; a later call replaces an earlier one.

        Raises:
            NoRoom: the queue's stream of tasks for later is full.
        """

        async def send() -> Ack:
            return await (await send_later(self._broker, turn, b"", FIRST, at, Door.AGAIN))

        await self._store_later(f"look again at key {turn.id}", turn, 0, topology.RETRY_SHARE, send)

    async def _store_later(
        self,
        action: str,
        address: TaskAddress,
        size: int,
        share: float,
        send: Callable[[], Awaitable[Ack]],
    ) -> None:
        tries = 0
        while True:
            try:
                async with self._room.taking(address, size, share) as problem:
                    if problem:
                        raise NoRoom(problem)
                    await self._insist(action, send)
                    return
            except BrokerError as error:
                tries = await _pause(tries, action, str(error))

    async def bury(self, address: TaskAddress, letter: DeadLetter) -> None:
        """Keep a dead letter.

        Raises:
            TooLarge: the broker does not store letters of that size.
            NoRoom: the queue's dead letters have no room left.
        """
        await self._insist(f"bury {address}", lambda: bury(self._broker, address, letter))

    def acknowledge(self, reply: str) -> None:
        """Remove the message from its stream. If that is lost, its next worker finds the record."""
        self.replies.acknowledge(reply)

    def give_back(self, reply: str, seconds: float = 0.0) -> None:
        """Have the message delivered again after so many seconds, or when its lease ends if that is lost."""
        self.replies.give_back(reply, seconds)

    async def _insist_on_record(
        self, address: TaskAddress, record: Record, fence: int, keep_seconds: int | None, ack: Ack
    ) -> int | Beaten:
        in_doubt = False
        tries = 0
        while not ack.stored:
            if ack.code == WRONG_SEQUENCE:
                if ack.last_sequence == 0 and fence > 0:
                    fence = 0  # the record we knew has aged out
                else:
                    beaten = Beaten(ack.last_sequence)
                    return await self._mine_after_all(address, record, beaten) if in_doubt else beaten
            else:
                in_doubt = in_doubt or ack.unanswered
                _check_size(ack)
                tries = await _pause(tries, f"write the record of {address}", ack.problem)
            ack = await self._records.write(address, record, fence, keep_seconds)
        return ack.sequence

    async def _mine_after_all(self, address: TaskAddress, record: Record, beaten: Beaten) -> int | Beaten:
        stored = await self.read(address, beaten.by)
        if stored is not None and wire.encode(stored.record) == wire.encode(record):
            return stored.sequence
        return beaten

    async def _insist(self, action: str, send: Callable[[], Awaitable[Ack]]) -> None:
        tries = 0
        while not (ack := await send()).stored:
            _check_size(ack)
            tries = await _pause(tries, action, ack.problem)


def _check_size(ack: Ack) -> None:
    if ack.code == TOO_LARGE:
        raise TooLarge(ack.problem)
    if ack.code == FULL:
        raise NoRoom(ack.problem)


async def _pause(tries: int, action: str, problem: str) -> int:
    if tries % _COMPLAIN_EVERY == 0:
        extra = {"action": action, "error": problem, "tries": tries}
        log.warning("broker does not store it yet", extra=extra)
    await asyncio.sleep(_PAUSE_SECONDS)
    return tries + 1
