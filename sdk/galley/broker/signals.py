"""Reading how much work queues have, at a cost that follows what changes and not how many there are.

One listing of all streams a sweep shows which changed; only lanes of those, and of queues that are
not empty, are asked for their figures. A lane that does not answer keeps its last figures, marked stale:
a failed reading is never taken for an empty queue.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from galley.backlog import LaneBacklog, QueueBacklog, Unknown
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerError
from galley.broker.stream_listing import Answer, Stream, StreamListing, ask, request
from galley.broker.upcoming import Upcoming
from galley.lanes import Lane

log = logging.getLogger(__name__)

OLDEST_SECONDS: Final = 5.0
"""Time between two looks at the oldest task of a lane: a read of the task itself, dearer than a count."""

_ANY: Final = 2**31
"""Tasks there may be while the streams cannot be listed."""


class _Delivered(Struct):
    stream_seq: int = 0


class _Figures(Answer):
    num_pending: int = 0
    num_ack_pending: int = 0
    paused: bool = False
    delivered: _Delivered = msgspec.field(default_factory=_Delivered)


_decode_figures = msgspec.json.Decoder(_Figures).decode


class _Source(NamedTuple):
    """A lane of the work or the later stream, the tasks to be planned, or the schedules: one consumer."""

    stream: str
    consumer: str
    filter: str


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was last known of one source."""

    waiting: int
    in_flight: int
    delivered: int
    """Sequence of the last message handed out: those waiting come after it."""
    fingerprint: tuple[int, int, int] | None
    """State of the stream before the reading; None if that was not known, so that it is read again."""
    settled: bool
    """Whether the figures include all that the stream held: the server counts a message a moment after it
    has confirmed it."""
    read_at: datetime
    oldest_at: datetime | None = None
    oldest_read: float = float("-inf")
    stale: str = ""
    paused: bool = False

    @property
    def empty(self) -> bool:
        return self.waiting == 0 and self.in_flight == 0 and not self.stale

    def still_empty(self, fingerprint: tuple[int, int, int] | None) -> bool:
        """Whether there is nothing to ask for, given the present state of the stream."""
        return self.empty and self.settled and fingerprint is not None and fingerprint == self.fingerprint


class SignalReader:
    """The backlogs of all queues behind one connection; share one among all who ask.

    Every call is bounded by a few times `ANSWER_SECONDS`; a reading never raises for what the broker does.
    """

    def __init__(self, broker: Broker, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._broker = broker
        self._clock = clock
        self._streams = StreamListing(broker)
        self._lanes: dict[tuple[str, str], tuple[Lane, ...]] = {}
        self._readings: dict[_Source, _Reading] = {}
        self._unknown: dict[tuple[str, str], Unknown] = {}
        self._upcoming: dict[tuple[str, str], Upcoming] = {}
        self._seen: dict[tuple[str, str], dict[str, Stream | None]] = {}
        """The streams of a queue in the listing that its backlog was read from."""

    async def unchanged(self, namespace: str, queue: str) -> bool:
        """Return whether the streams of a queue are as they were before its backlog was read last.

        It costs a listing that all share, and nothing for the queue.
        """
        await self._streams.refresh()
        seen = self._seen.get((namespace, queue))
        return seen is not None and all(self._streams.get(name) == was for name, was in seen.items())

    async def queues(self, namespace: str) -> list[str]:
        """Return the names of the queues of a namespace, in order.

        Raises:
            BrokerUnreachable, BrokerRefused: the streams cannot be listed.
        """
        await self._streams.refresh()
        return self._streams.queues(namespace)

    async def read(self, namespace: str, queue: str, *, rung: bool = False) -> QueueBacklog | Unknown:
        """Return the backlog of a queue.

        Args:
            namespace: of the queue.
            queue: its name.
            rung: its doorbell rang: do not look for changes, ask its lanes.
        """
        name = namespace, queue
        if rung and name in self._lanes:
            self._seen.pop(name, None)
        else:
            await self._streams.refresh()
            self._seen[name] = {each: self._streams.get(each) for each in self._streams_of(*name)}
        stream = topology.work_stream(namespace, queue)
        if (work := self._streams.get(stream)) is not None:
            self._lanes[name] = work.lanes
        elif self._streams.lacks(stream):
            # The listing is complete and the queue is not in it: nothing known of it holds any longer.
            self._forget(name)
            return self._not_known(name, f"there are no streams of queue {queue!r}")
        if name not in self._lanes:
            return self._not_known(name, self._streams.problem or f"stream {stream} has no leader")
        lanes = self._lanes[name]
        pairs = [_sources(namespace, queue, lane) for lane in lanes]
        beside = self._beside_lanes(namespace, queue)
        sources = [*(source for pair in pairs for source in pair), *beside]
        self._take_as_empty((*(later for later, _ in pairs), *beside), rung)
        # Idle queues are many, and a gather of nothing costs more than all the rest of their look.
        if asked := [source for source in sources if not self._known_empty(source, rung)]:
            await asyncio.gather(*(self._refresh(source, rung) for source in asked))
            await asyncio.gather(*(self._look_at_oldest(source) for source in asked))
        await self._look_ahead(name)
        backlog = self._backlog(name, lanes)
        if work is not None and not isinstance(backlog, Unknown):
            backlog = await self._with_keyed(name, work, backlog)
        if not isinstance(backlog, Unknown):
            self._unknown.pop(name, None)
        return backlog

    async def _with_keyed(
        self, name: tuple[str, str], work: Stream, backlog: QueueBacklog
    ) -> QueueBacklog | Unknown:
        """Return a backlog with tasks that wait under keys; a slot takes them if the queue has no limits."""
        limits = work.config.metadata.get(topology.LIMITED_KEY, "")
        backlog = replace(backlog, keyed_for=limits) if limits else backlog
        others = [_sources(*name, lane.lane)[1] for lane in backlog.lanes]
        known = (self._readings.get(each) for each in (*others, _beside_lanes(*name)[0]))
        left = work.state.messages - sum(each.waiting + each.in_flight for each in known if each is not None)
        try:
            if left <= 0 or not await self._any_keyed(name, work.config.name):
                return backlog
        except BrokerError as error:
            return self._not_known(name, f"what waits under keys is not known: {error}")
        if limits:
            return replace(backlog, keyed=left)
        *upper, last = backlog.lanes
        return replace(backlog, keyed=left, lanes=(*upper, replace(last, waiting=last.waiting + left)))

    async def _any_keyed(self, name: tuple[str, str], stream: str) -> bool:
        # The figures are of different moments, so their difference alone proves nothing.
        question = {"seq": 1, "next_by_subj": topology.waiting_of_queue(*name)}
        answer = await request(self._broker, f"DIRECT.GET.{stream}", question)
        return "Nats-Subject" in (answer.headers or {})

    def _backlog(self, name: tuple[str, str], lanes: Sequence[Lane]) -> QueueBacklog | Unknown:
        backlogs = []
        for lane in lanes:
            known = self._known(name, lane)
            if len(known) < len(_sources(*name, lane)):
                return self._not_known(name, f"lane {lane} has not answered yet")
            backlogs.append(_together(lane, known))
        beside = (self._readings.get(each) for each in self._beside_lanes(*name))
        if any(each is not None and not each.empty for each in beside) and not any(
            each.waiting or each.in_flight for each in backlogs
        ):
            # One worker moves thousands a second: they count as one task, which wakes it.
            backlogs[-1] = replace(backlogs[-1], waiting=1)
        later = self._streams.get(topology.later_stream(*name))
        due = sum(
            reading.waiting + reading.in_flight
            for lane in lanes
            if (reading := self._readings.get(_sources(*name, lane)[0])) is not None
        )
        plan = self._readings.get(_beside_lanes(*name)[0])
        planned = plan.waiting + plan.in_flight if plan is not None else 0
        left = max(0, later.state.messages - due) if later else 0
        ahead = self._upcoming.get(name)
        coming = ahead.listed(self._clock(), left if later else _ANY) if ahead is not None else ()
        paused = any(reading.paused for lane in lanes for reading in self._known(name, lane))
        return QueueBacklog(
            tuple(backlogs),
            left + planned,
            tuple(self._streams.usage(*name)),
            paused,
            self._streams.totals(*name),
            coming,
        )

    async def _look_ahead(self, name: tuple[str, str]) -> None:
        """Read when tasks for later fall due, if some were added; what fails is read at the next look."""
        later = self._streams.get(topology.later_stream(*name))
        if later is None:
            return
        state = later.state
        if state.messages == 0 and name not in self._upcoming:
            return
        ahead = self._upcoming.setdefault(name, Upcoming(*name))
        try:
            await ahead.refresh(self._broker, state.messages, state.last_seq)
        except BrokerError as error:
            log.debug("tasks for later not read", extra={"queue": name[1], "error": str(error)})

    def _known(self, name: tuple[str, str], lane: Lane) -> list[_Reading]:
        found = (self._readings.get(source) for source in _sources(*name, lane))
        return [reading for reading in found if reading is not None]

    def _streams_of(self, namespace: str, queue: str) -> list[str]:
        """Return the streams that something of a queue's backlog is read from."""
        kinds = (
            topology.work_stream, topology.later_stream, topology.dead_stream, topology.counts_stream,
            topology.object_stream, topology.flow_stream,
        )  # fmt: skip
        return [*(kind(namespace, queue) for kind in kinds), *self._topics_of(namespace, queue)]

    def _topics_of(self, namespace: str, queue: str) -> tuple[str, ...]:
        """Return the stream of events, if the queue subscribes to some."""
        topics = topology.topics_stream(namespace)
        stream = self._streams.get(topics)
        subscribers = stream.config.metadata.get(topology.SUBSCRIBERS_KEY, "") if stream is not None else ""
        return (topics,) if queue in subscribers.split(",") else ()

    def _forget(self, name: tuple[str, str]) -> None:
        self._seen.pop(name, None)
        self._upcoming.pop(name, None)
        for lane in self._lanes.pop(name, ()):
            for source in _sources(*name, lane):
                self._readings.pop(source, None)
        for source in self._beside_lanes(*name):
            self._readings.pop(source, None)

    def _beside_lanes(self, namespace: str, queue: str) -> tuple[_Source, ...]:
        """Return the sources that take no slot; events only if the queue subscribes to some."""
        events = (
            _Source(topics, queue, topology.event_subject(namespace, "*"))
            for topics in self._topics_of(namespace, queue)
        )
        return (*_beside_lanes(namespace, queue), *events)

    def _not_known(self, name: tuple[str, str], why: str) -> Unknown:
        before = self._unknown.get(name)
        unknown = Unknown(why, before.since if before else self._clock())
        self._unknown[name] = unknown
        return unknown

    def _fingerprint(self, source: _Source, rung: bool) -> tuple[int, int, int] | None:
        stream = self._streams.get(source.stream)
        return stream.state.fingerprint if stream is not None and not rung else None

    def _take_as_empty(self, sources: Sequence[_Source], rung: bool) -> None:
        """Take sources that were never asked as empty, if their stream is: it keeps what is handed out.

        The lanes of the work stream are not among them, since only they tell whether the queue is paused.
        """
        for source in sources:
            fingerprint = self._fingerprint(source, rung)
            if fingerprint is not None and fingerprint[0] == 0 and source not in self._readings:
                self._readings[source] = _Reading(0, 0, 0, fingerprint, settled=True, read_at=self._clock())

    def _known_empty(self, source: _Source, rung: bool) -> bool:
        """Return whether a source was empty and its stream did not change since."""
        before = self._readings.get(source)
        return before is not None and before.still_empty(self._fingerprint(source, rung))

    async def _refresh(self, source: _Source, rung: bool) -> None:
        """Ask a source for its figures."""
        fingerprint = self._fingerprint(source, rung)
        before = self._readings.get(source)
        try:
            figures = await ask(
                self._broker, f"CONSUMER.INFO.{source.stream}.{source.consumer}", None, _decode_figures
            )
        except BrokerError as error:
            if before is not None:
                self._readings[source] = replace(before, stale=str(error))
            return
        self._readings[source] = _Reading(
            figures.num_pending,
            figures.num_ack_pending,
            figures.delivered.stream_seq,
            fingerprint,
            # Where there are messages, the second look at the same state is the first to be trusted.
            fingerprint is not None
            and (fingerprint[0] == 0 or (before is not None and before.fingerprint == fingerprint)),
            self._clock(),
            before.oldest_at if before and figures.num_pending else None,
            before.oldest_read if before and figures.num_pending else float("-inf"),
            paused=figures.paused,
        )

    async def _look_at_oldest(self, source: _Source) -> None:
        """Read when the first undelivered task arrived, if some wait and the last reading is old."""
        reading = self._readings.get(source)
        now = asyncio.get_running_loop().time()
        if reading is None or not reading.waiting or now - reading.oldest_read < OLDEST_SECONDS:
            return
        question = {"seq": reading.delivered + 1, "next_by_subj": source.filter}
        oldest_at = None
        try:
            answer = await request(self._broker, f"DIRECT.GET.{source.stream}", question)
            if stamp := (answer.headers or {}).get("Nats-Time-Stamp"):
                oldest_at = msgspec.convert(stamp, datetime, strict=False)
        except (BrokerError, msgspec.ValidationError) as error:
            log.debug("oldest task not read", extra={"stream": source.stream, "error": str(error)})
        # Another reader may have found meanwhile that the queue is gone, or read the lane again.
        if (reading := self._readings.get(source)) is not None:
            self._readings[source] = replace(reading, oldest_at=oldest_at, oldest_read=now)


def _sources(namespace: str, queue: str, lane: Lane) -> tuple[_Source, _Source]:
    later, work = topology.later_stream(namespace, queue), topology.work_stream(namespace, queue)
    return (
        _Source(later, lane.value, topology.due_of_lane(namespace, queue, lane)),
        _Source(work, lane.value, topology.ready_of_lane(namespace, queue, lane)),
    )


def _beside_lanes(namespace: str, queue: str) -> tuple[_Source, _Source]:
    """Return the sources that take no slot: tasks to be planned, and schedules that are due."""
    work, later = topology.work_stream(namespace, queue), topology.later_stream(namespace, queue)
    return (
        _Source(work, topology.PLAN, topology.planned(namespace, queue)),
        _Source(later, topology.TIMER, topology.fired_subject(namespace, queue, "*")),
    )


def _together(lane: Lane, readings: Sequence[_Reading]) -> LaneBacklog:
    stale = [reading for reading in readings if reading.stale]
    longest = min(stale, key=lambda reading: reading.read_at, default=None)
    return LaneBacklog(
        lane,
        waiting=sum(reading.waiting for reading in readings),
        in_flight=sum(reading.in_flight for reading in readings),
        oldest_at=min((r.oldest_at for r in readings if r.oldest_at and r.waiting), default=None),
        stale=Unknown(longest.stale, longest.read_at) if longest else None,
    )
