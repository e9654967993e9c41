"""Writes that must not get lost: to the records, the later stream and the dead letters.

Each is repeated until the broker has answered, because an unanswered write may or may not have
happened. Compare-and-set makes repeating safe; what we read back tells whether the first one was it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from galley import record as wire
from galley.address import TaskAddress
from galley.broker.connection import Broker
from galley.broker.dead_letters import DeadLetter, bury
from galley.broker.later import Door, send_later
from galley.broker.pipeline import WRONG_SEQUENCE, Ack
from galley.broker.pull import NAK
from galley.broker.records import Records
from galley.envelope import Envelope, Flags
from galley.errors import BrokerError
from galley.record import Record, Stored

log = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 0.25
"""Between two tries while the broker does not answer, or cannot (its disk is full, it elects a leader)."""

_COMPLAIN_EVERY: Final = 40
"""Tries between two log lines: about ten seconds."""


@dataclass(frozen=True, slots=True)
class Beaten:
    """A compare-and-set that came too late."""

    by: int
    """Sequence of the record that stands there."""


class Ledger:
    """The lasting truth about tasks, as one worker writes it."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._records = Records(broker)

    async def write(
        self, address: TaskAddress, record: Record, fence: int, keep_seconds: int | None = None
    ) -> int | Beaten:
        """Write a record in place of the one with sequence `fence`; returns its sequence."""
        ack = await self._records.write(address, record, fence, keep_seconds)
        if ack.stored:
            return ack.sequence
        return await self._insist_on_record(address, record, fence, keep_seconds, ack)

    async def read(self, address: TaskAddress, at_least: int = 0) -> Stored | None:
        """Return the record of a task, not older than `at_least`, or None if it has none."""
        tries = 0
        while True:
            try:
                return await self._records.read(address, at_least)
            except BrokerError as error:
                tries = await _pause(tries, f"read the record of {address}", str(error))

    async def schedule(
        self, address: TaskAddress, envelope: Envelope, flags: Flags, due_at: datetime
    ) -> None:
        """Have the task come back at `due_at`; doing it twice is doing it once."""

        async def send() -> Ack:
            return await (await send_later(self._broker, address, envelope, flags, due_at, Door.WORKER))

        await self._insist(f"schedule {address}", send)

    async def bury(self, address: TaskAddress, letter: DeadLetter) -> None:
        """Keep a dead letter."""
        await self._insist(f"bury {address}", lambda: bury(self._broker, address, letter))

    def acknowledge(self, reply: str) -> None:
        """Take the message off its stream. If that gets lost, its next reader finds the record."""
        self._broker.publish(reply)

    def give_back(self, reply: str) -> None:
        """Let another worker have the message now. If that gets lost, the end of the lease does it."""
        self._broker.publish(reply, NAK)

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
            tries = await _pause(tries, action, ack.problem)


async def _pause(tries: int, action: str, problem: str) -> int:
    if tries % _COMPLAIN_EVERY == 0:
        log.warning("broker does not take it yet", extra={"action": action, "error": problem, "tries": tries})
    await asyncio.sleep(_PAUSE_SECONDS)
    return tries + 1
