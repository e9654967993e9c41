"""Removes events whose retention is over, and counts who missed them.

The owner of the topics does it. The server would remove them by itself, some minutes later
(`galley.topic.LATE_SECONDS`), but then none could tell which of them a queue never looked at. What is
about to be removed is counted and written before it is removed, with the sequence up to which it counts, so
an owner that dies in between counts nothing twice.
"""

import logging
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.counts import EXPIRED, MISSED, Counted, CountReader
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerRefused
from galley.broker.listing import count_of, first_of, messages_of
from galley.broker.topic_writes import purge, put_last
from galley.broker.topics import encoded, subscriptions_of
from galley.errors import EnvelopeInvalid, TopicFull
from galley.missed import Missed, decode_missed
from galley.topic import LATE_SECONDS, Topic

log = logging.getLogger(__name__)

_HELD: Final = timedelta(seconds=LATE_SECONDS / 2)
"""How long an event that a worker has is not removed: it may be stored, or counted, at any moment."""

Key = tuple[str, str]
"""A topic and a queue."""


class _Position(NamedTuple):
    """How far the consumer of a queue is."""

    delivered: int
    acknowledged: int
    """Up to there all that was delivered is acknowledged."""
    in_flight: int


class MissedEvents:
    """Counts what the queues of a namespace miss. One is kept from look to look."""

    def __init__(self, broker: Broker, namespace: str) -> None:
        self._broker, self._namespace = broker, namespace
        self._stream = topology.topics_stream(namespace)
        self._counts = CountReader(broker)
        self._next: dict[str, tuple[int, datetime]] = {}
        """Of each topic its retention, and the time before which none of its events can be too old."""
        self._unwritten: dict[Key, tuple[Missed, int]] = {}
        """What was counted and could not be written yet, with the sequence of what it replaces."""

    async def look(self, topics: Iterable[Topic], now: datetime) -> dict[Key, Missed]:
        """Remove events that are too old, and return what was missed so far by each topic and queue.

        Args:
            topics: all topics of the namespace.
            now: the time by the server's clock.

        Raises:
            BrokerError: if the broker does not answer, or another owner is at work.
        """
        kept = list(topics)
        found = await self._written()
        await self._write_late({(each.name, queue) for each in kept for queue in each.queues}, found)
        for queue in sorted({queue for topic in kept for queue in topic.queues}):
            counted = await self._counts.read(self._namespace, queue)
            for topic in kept:
                if queue in topic.queues:
                    key = topic.name, queue
                    before, sequence = found.get(key, (Missed(), 0))
                    fresh = before.told(*_by_workers(counted, topic.name), now)
                    if fresh != before:
                        # In a full topic it is written with what is removed, or at a later look.
                        with suppress(TopicFull):
                            sequence = await self._write(key, fresh, sequence)
                        found[key] = fresh, sequence
        for topic in kept:
            retention, due = self._next.get(topic.name, (0, now))
            if retention != topic.retention_seconds or due <= now:
                await self._remove_old(topic, found, now)
        self._next = {each.name: self._next[each.name] for each in kept if each.name in self._next}
        return {key: missed for key, (missed, _) in found.items()}

    async def _written(self) -> dict[Key, tuple[Missed, int]]:
        found: dict[Key, tuple[Missed, int]] = {}
        pattern = topology.missed_subject(self._namespace, "*", "*")
        async for message in messages_of(self._broker, self._stream, pattern):
            *_, topic, queue, _ = message.subject.split(".")
            try:
                found[topic, queue] = decode_missed(message.body), message.sequence
            except EnvelopeInvalid as error:
                log.warning(
                    "missed events not readable", extra={"topic": topic, "queue": queue, "error": str(error)}
                )
        return found

    async def _write(self, key: Key, missed: Missed, sequence: int) -> int:
        subject = topology.missed_subject(self._namespace, *key)
        return await put_last(self._broker, self._namespace, subject, encoded(missed), sequence)

    async def _remove_old(self, topic: Topic, found: dict[Key, tuple[Missed, int]], now: datetime) -> None:
        retention = timedelta(seconds=topic.retention_seconds)
        pattern, oldest = topology.event_subject(self._namespace, topic.name), now - retention
        first = await first_of(self._broker, self._stream, pattern)
        if first is None or first.stored_at >= oldest:
            since = now if first is None else first.stored_at
            self._next[topic.name] = topic.retention_seconds, since + retention
            return
        # In this order: what is published meanwhile comes behind the end.
        info = await stream_info(self._broker, self._stream)
        kept = await first_of(self._broker, self._stream, pattern, oldest)
        end = kept.sequence if kept is not None else int(info["state"]["last_seq"]) + 1 if info else 0
        positions = {queue: await self._position(queue) for queue in topic.queues}
        if first.stored_at >= oldest - _HELD:
            held = (
                each.acknowledged + 1 for each in positions.values() if each is not None and each.in_flight
            )
            end = min([end, *held])
        if end <= first.sequence:
            return
        for queue, position in positions.items():
            key = topic.name, queue
            before, sequence = found.get(key, (Missed(), 0))
            count = 0 if position is None else await self._never_looked_at(key, before, position, end)
            fresh = before.removed(count, end - 1, now)
            if fresh == before:
                continue
            log.warning("events missed", extra={"topic": topic.name, "queue": queue, "count": count})
            try:
                found[key] = fresh, await self._write(key, fresh, sequence)
            except TopicFull:
                self._unwritten[key] = fresh, sequence
        await purge(self._broker, self._namespace, pattern, end=end)
        await self._write_late(set(self._unwritten), found)

    async def _write_late(self, wanted: set[Key], found: dict[Key, tuple[Missed, int]]) -> None:
        """Write what had no room: publishers may have been faster. It is lost if the owner dies before."""
        for key, (fresh, sequence) in list(self._unwritten.items()):
            if key not in wanted or found.get(key, (Missed(), 0))[1] != sequence:
                del self._unwritten[key]  # it is not a subscription any more, or another owner has counted
                continue
            found[key] = fresh, sequence
            with suppress(TopicFull):
                found[key] = fresh, await self._write(key, fresh, sequence)
                del self._unwritten[key]

    async def _position(self, queue: str) -> _Position | None:
        try:
            info = await self._broker.api(
                f"look at consumer {queue} of {self._stream}", f"CONSUMER.INFO.{self._stream}.{queue}"
            )
        except BrokerRefused as refusal:
            if refusal.missing:
                return None  # it is gone, or to be made yet: it cannot have missed anything
            raise
        return _Position(
            int(info["delivered"]["stream_seq"]),
            int(info["ack_floor"]["stream_seq"]),
            int(info["num_ack_pending"]),
        )

    async def _never_looked_at(self, key: Key, missed: Missed, position: _Position, end: int) -> int:
        """Return how many events before a sequence a queue did not look at."""
        begin = max(missed.through, position.delivered) + 1
        count = 0
        if begin < end and (begin := max(begin, await self._begin(key))) < end:
            count = await self._between(key, begin, end)
        if position.in_flight and position.acknowledged + 1 < end:
            # Workers had them, and did not say what became of them.
            begin = max(missed.through, position.acknowledged) + 1
            lost = await self._between(key, begin, min(end, position.delivered + 1))
            count += min(position.in_flight, lost)
        return count

    async def _begin(self, key: Key) -> int:
        """Return the sequence of the first event that concerns a queue."""
        since = [each.since for each in await subscriptions_of(self._broker, self._namespace, *key)]
        earliest = min((each for each in since if each is not None), default=None)
        if None in since or earliest is None:
            return 0
        pattern = topology.event_subject(self._namespace, key[0])
        first = await first_of(self._broker, self._stream, pattern, earliest)
        return 0 if first is None else first.sequence

    async def _between(self, key: Key, begin: int, end: int) -> int:
        pattern = topology.event_subject(self._namespace, key[0])
        if begin >= end:
            return 0
        from_begin = await count_of(self._broker, self._stream, pattern, begin)
        return from_begin - await count_of(self._broker, self._stream, pattern, end)


def _by_workers(counted: Counted, topic: str) -> tuple[int, int]:
    """Return how many events of a topic workers counted as failed, and as expired."""
    failed, expired = (sum(n for *_, n in counted.of(f"{name}_{topic}")) for name in (MISSED, EXPIRED))
    return failed, expired
