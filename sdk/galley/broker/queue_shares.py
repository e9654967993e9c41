"""Which workers have the permits of a queue's own limit: one record in its stream of workflows."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

from nats.aio.msg import Msg

from galley import queue_limit as wire
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.last_message import last_message
from galley.broker.permit_records import write_permits
from galley.errors import EnvelopeInvalid
from galley.key import Rate
from galley.queue_limit import NO_SHARES, QueueShares

ALL: Final = "all"
"""Stands in the subject of the record where those of keys have a digest."""

_LONGEST_SECONDS: Final = 366 * 86_400
_SHOWN: Final = 5


class StoredShares(NamedTuple):
    """The record, and its sequence; 0 if there is none."""

    shares: QueueShares = NO_SHARES
    sequence: int = 0


class ShareRecord:
    """The record of one queue."""

    def __init__(self, broker: Broker, namespace: str, queue: str) -> None:
        self._broker = broker
        self._stream = topology.flow_stream(namespace, queue)
        self._subject = topology.permits_subject(namespace, queue, ALL)

    async def read(self) -> StoredShares:
        """Return the record.

        Raises:
            BrokerUnreachable, BrokerRefused: no answer came.
        """
        found = await last_message(self._broker, self._stream, self._subject)
        if found is None:
            return StoredShares()
        try:
            return StoredShares(wire.decode(found.body), found.sequence)
        except EnvelopeInvalid:
            # Not written by Galley: the next write replaces it.
            return StoredShares(NO_SHARES, found.sequence)

    async def write(self, shares: QueueShares, sequence: int) -> int:
        """Store the record in place of one; returns its sequence, or 0 if another one came first.

        Raises:
            BrokerFull: the queue's stream of workflows is full (`spec.limits.workflowBytes`).
            BrokerUnreachable, BrokerRefused: no answer came, and it may have been stored.
        """
        seconds = None
        if not shares.shares:
            left = shares.full_at - datetime.now(UTC).timestamp()
            seconds = min(max(3600, math.ceil(left)), _LONGEST_SECONDS)
        return await write_permits(
            self._broker, self._subject, wire.encode(shares), sequence, kept_seconds=seconds
        )


class Word(StrEnum):
    """What the workers of a queue tell each other about its permits.

    The words stand in subjects where a worker is named by its process; no id of a process is one.
    """

    WANT = "want"
    """A worker waits for permits."""
    FREE = "free"
    """A worker gave some back."""


def say(broker: Broker, namespace: str, queue: str, word: Word) -> None:
    """Tell all workers of a queue; it may be lost."""
    broker.publish(topology.holder_subject(namespace, queue, word), b"")


@asynccontextmanager
async def hearing_words(
    broker: Broker, namespace: str, queue: str, react: Callable[[Word], None]
) -> AsyncIterator[None]:
    """Call `react` with each word for the duration of the block, our own included."""

    async def hear(message: Msg) -> None:
        react(Word(message.subject.rpartition(".")[2]))

    words = [await broker.subscribe(topology.holder_subject(namespace, queue, each), hear) for each in Word]
    try:
        yield
    finally:
        for each in words:
            broker.unsubscribe(each)


@dataclass(frozen=True)
class LimitUse:
    """How a queue stands with its own limits (`spec.limits.concurrency` and `rate`)."""

    concurrency: int = 0
    """Tasks that may run at once; 0 does not limit them."""
    permits: int = 0
    """How many of these workers have."""
    workers: tuple[tuple[str, int], ...] = ()
    """The workers that have them, those with most first."""
    rate: Rate | None = None
    next_start: datetime | None = None
    """When a task may start, if none may now."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a user is told; nothing while no limit holds a task back."""
        said = []
        if 0 < self.concurrency <= self.permits:
            these = ", ".join(f"{name} ({permits})" for name, permits in self.workers[:_SHOWN])
            more = ", ..." if len(self.workers) > _SHOWN else ""
            tasks = "1 task" if self.concurrency == 1 else f"{self.concurrency} tasks"
            said.append(
                f"spec.limits.concurrency lets {tasks} run at once, and workers have all permits: "
                f"{these}{more}; others wait without a slot"
            )
        if self.rate is not None and self.next_start is not None:
            said.append(
                f"spec.limits.rate lets {self.rate.tasks} tasks start in {self.rate.seconds:g} s; "
                f"the next one may start at {self.next_start:%H:%M:%S} UTC"
            )
        return tuple(said)


async def limit_use(broker: Broker, namespace: str, queue: str) -> LimitUse:
    """Return how a queue stands with its own limits; all zero if it has none.

    Raises:
        BrokerUnreachable, BrokerRefused: if the broker does not answer.
    """
    shares = (await ShareRecord(broker, namespace, queue).read()).shares
    by_permits = sorted(shares.shares.values(), key=lambda share: (-share.permits, share.worker))
    rate = None if shares.rate is None else Rate(*shares.rate)
    now, next_start = datetime.now(UTC), None
    if rate is not None and not rate.ready(shares.full_at, now.timestamp()):
        next_start = datetime.fromtimestamp(rate.next_at(shares.full_at), UTC)
    return LimitUse(
        shares.concurrency, shares.permits, tuple((each.worker, each.permits) for each in by_permits),
        rate, next_start,
    )  # fmt: skip
