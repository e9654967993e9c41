"""Counts of a queue that outlive its workers: how tasks ended, and how long they waited and took.

Workers hand over what they counted, and the server adds it up in the queue's stream of counts. Whatever
is started again later goes on from there. An increment is never added twice: one that was not answered is
sent again under the same id, which the server knows for two minutes; after that it is given up.
"""

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from galley.address import TaskAddress
from galley.bounds import COUNTED, is_queue_name
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.lean_client import header_block
from galley.broker.listing import messages_of
from galley.broker.pipeline import Ack
from galley.broker.stream_config import COUNT_REPEAT_SECONDS
from galley.lanes import HIGHEST_FIRST
from galley.unreadable import UNREADABLE

log = logging.getLogger(__name__)

SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
RETRIED: Final = "retried"
DEFERRED: Final = "deferred"
HANDED_BACK: Final = "handed-back"
LOST: Final = "lost"
OUTCOMES: Final = (SUCCEEDED, FAILED, CANCELLED)
"""How tasks end for good."""
CONTINUED: Final = (RETRIED, DEFERRED, HANDED_BACK, LOST)
"""How attempts end that do not end their task."""

TOPICS: Final = "events"
"""What counts of topics have in the place of a lane."""
MISSED: Final = "missed"
"""Events of a topic that became dead letters of the queue: `missed_TOPIC`."""
EXPIRED: Final = "expired"
"""Those a worker had, and could not copy until their retention was over: `expired_TOPIC`."""

WAIT: Final = "wait"
ATTEMPT: Final = "attempt"

SECONDS: Final = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
"""Upper bounds of the buckets of times."""
EDGES: Final = (*map(str, SECONDS), "+Inf")
"""The same as Prometheus writes them."""

_LANES: Final = frozenset(map(str, HIGHEST_FIRST))
_NAMES: Final = frozenset((
    *OUTCOMES, *CONTINUED,
    *(f"{kind}-{place}" for kind in (WAIT, ATTEMPT) for place in (*range(len(EDGES)), "ms")),
))  # fmt: skip
_MOST: Final = 4096
"""Counts of one queue that are kept, more than its stream holds: workers choose the names of topics."""

_GIVE_UP_SECONDS: Final = COUNT_REPEAT_SECONDS * 0.75

Name = tuple[str, str]
"""A lane and what is counted in it."""


class Times:
    """Times of one kind in one lane: their sum, and the count of each bucket."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * len(EDGES)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.seconds += seconds

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """Each bound with the number of times up to it."""
        return list(zip(EDGES, accumulate(self.counts), strict=True))

    def named(self, kind: str) -> Iterator[tuple[str, int]]:
        """Yield what is not 0, under the names it is counted by; the sum is in milliseconds."""
        for place, count in enumerate(self.counts):
            if count:
                yield f"{kind}-{place}", count
        if self.seconds:
            yield f"{kind}-ms", round(self.seconds * 1000)


@dataclass(slots=True)
class _Sent:
    """An increment that is not known to be stored."""

    amount: int
    token: str
    since: float


class Outbox:
    """Hands the counts of one process over, each difference once."""

    def __init__(
        self, broker: Broker, place: tuple[str, str], token: str, clock: Callable[[], float]
    ) -> None:
        """Args: place: namespace and queue; token: of this process alone; clock: monotonic, in seconds."""
        self._broker, self._place, self._token, self._clock = broker, place, token, clock
        self._handed: Counter[Name] = Counter()
        self._sent: dict[Name, _Sent] = {}
        self._number = 0
        self.given_up = 0
        """Increments that may not have been stored."""

    async def hand_over(self, totals: Counter[Name]) -> bool:
        """Send what was counted since the last time; returns whether all of it is stored.

        Args:
            totals: all that the process ever counted.
        """
        repeats = bool(self._sent)
        await self._send(totals)
        if repeats and not self._sent:
            await self._send(totals)  # what was counted since those were sent first
        return all(totals[name] == self._handed[name] for name in totals)

    async def _send(self, totals: Counter[Name]) -> None:
        answers = []
        for name in {*totals, *self._sent}:
            sent = self._sent.get(name)
            if sent is not None and self._clock() - sent.since > _GIVE_UP_SECONDS:
                self.given_up += 1
                self._handed[name] += sent.amount
                del self._sent[name]
                sent = None
            if sent is None:
                if not (amount := totals[name] - self._handed[name]):
                    continue
                self._number += 1
                sent = self._sent[name] = _Sent(amount, f"{self._token}-{self._number}", self._clock())
            headers = {topology.INCREMENT: f"{sent.amount:+d}", topology.MESSAGE_ID: sent.token}
            subject = topology.count_subject(*self._place, *name)
            answers.append((name, await self._broker.pipeline.send(subject, b"", header_block(headers))))
        for name, answer in answers:
            self._take(name, await answer)

    def _take(self, name: Name, ack: Ack) -> None:
        if ack.stored:
            self._handed[name] += self._sent.pop(name).amount
        elif not ack.unanswered:
            # The stream is not there yet, or does not take it: tried again, with all that came since.
            del self._sent[name]
            log.debug("count not stored", extra={"count": ".".join(name), "error": ack.problem})


def add_one(broker: Broker, address: TaskAddress, name: str) -> None:
    """Count one task of a lane, without waiting for the broker's answer."""
    subject = topology.count_subject(address.namespace, address.queue, address.lane, name)
    broker.pipeline.put(subject, b"", header_block({topology.INCREMENT: "+1"}))


class _Value(Struct):
    val: str


_decode = msgspec.json.Decoder(_Value).decode


class Counted(NamedTuple):
    """What a queue's counts say."""

    totals: dict[Name, int]

    def of(self, *names: str) -> Iterator[tuple[str, str, int]]:
        """Yield lane, name and number of these counts."""
        for (lane, name), number in self.totals.items():
            if name in names:
                yield lane, name, number

    def times(self, kind: str) -> dict[str, Times]:
        """Return the times of a kind, by lane."""
        found: dict[str, Times] = {}
        for (lane, name), number in self.totals.items():
            begins, _, place = name.rpartition("-")
            if begins != kind:
                continue
            times = found.setdefault(lane, Times())
            if place == "ms":
                times.seconds = number / 1000
            else:
                times.counts[int(place)] = number
        return found


def _known(lane: str, name: str) -> bool:
    """Return whether it is one of ours: workers of a queue can count under any words.

    Each name becomes a series of Prometheus, on the page of all namespaces.
    """
    if lane != TOPICS:
        return lane in _LANES and name in _NAMES
    word, _, topic = name.partition("_")
    return word in {MISSED, EXPIRED} and is_queue_name(topic)


def _number_in(lane: str, name: str, body: bytes) -> int:
    """Return the number in a message.

    Raises:
        ValueError: if it is less than 0, or more than can be counted, or no count of ours.
    """
    if not _known(lane, name):
        raise ValueError("there is no such count")
    number = int(_decode(body).val)
    if not COUNTED.holds(number):
        raise ValueError(f"it has {len(body)} characters, or is less than 0")
    return number


class CountReader:
    """Reads the counts of queues, of each only what changed since it was read last."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._read: dict[tuple[str, str], tuple[int, dict[Name, int]]] = {}

    async def read(self, namespace: str, queue: str) -> Counted:
        """Return what was counted in a queue; nothing at all if it has no counts.

        Raises:
            BrokerError: if the broker does not answer.
        """
        last, totals = self._read.get((namespace, queue), (0, {}))
        unreadable, problem = 0, ""
        stream = topology.counts_stream(namespace, queue)
        pattern = topology.count_subject(namespace, queue, "*", "*")
        async for message in messages_of(self._broker, stream, pattern, last + 1):
            last = message.sequence
            *_, lane, name = message.subject.split(".")
            try:
                number = _number_in(lane, name, message.body)
            except (*UNREADABLE, ValueError) as error:
                unreadable, problem = unreadable + 1, f"{message.subject[:200]}: {error}"
                continue
            if (lane, name) in totals or len(totals) < _MOST:
                totals[lane, name] = number
        if unreadable:
            log.warning("counts not readable", extra={
                "namespace": namespace, "queue": queue, "count": unreadable, "error": problem})  # fmt: skip
        self._read[namespace, queue] = last, totals
        return Counted(dict(totals))

    def forget(self, namespace: str, queue: str) -> None:
        """Read a queue from the beginning the next time: it is gone, or its counts began again."""
        self._read.pop((namespace, queue), None)
