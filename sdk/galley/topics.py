"""Topics as programs use them: publish an event once, and each queue that subscribes runs a task for it."""

import os
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from msgspec.structs import replace

from galley import tracing
from galley.audit import Action
from galley.broker import topology
from galley.broker.audit import note
from galley.broker.connection import Broker
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerRefused, NotAllowed
from galley.broker.publish import Publisher
from galley.broker.topics import (
    Published,
    StoredEvent,
    TopicPublisher,
    events_of,
    find_topic,
    is_full,
    missed_of,
    subscriptions_of,
    topics_of,
)
from galley.errors import EventInvalid, HopLimit, TopicNotFound
from galley.event import (
    DEFAULT_TYPE,
    HOPS_LIMIT,
    Attribute,
    Event,
    check_topic_name,
    decode,
    event_of,
    from_headers,
)
from galley.filter import FilterFailed
from galley.inside import WORKER_VARIABLE, hops
from galley.listener import BUFFER, AsyncListener
from galley.missed import Missed
from galley.topic import MappingFailed, Subscription, Topic, concerns, copy_address, task_of


class SubscribedQueue(NamedTuple):
    """A queue that subscribes to a topic."""

    queue: str
    subscriptions: tuple[Subscription, ...]
    pending: int
    """Events of all topics the queue subscribes to that are not copied into it yet."""
    missed: Missed = Missed()
    """What it missed of this topic, a few seconds old at most while the topic's owner runs."""
    full: bool = False
    """Whether it takes no copies now since it is full; False as well if the credentials may not tell."""


class TopicView(NamedTuple):
    """A topic as it stands."""

    topic: Topic
    queues: tuple[SubscribedQueue, ...]
    events: int
    """Events that are kept."""

    @property
    def name(self) -> str:
        """Its name."""
        return self.topic.name


class Replayed(NamedTuple):
    """What a replay did."""

    copied: int
    """Tasks that were stored."""
    present: int
    """Tasks that waited in the queue already. One that has ended, and whose record is kept, counts as copied,
    and does not run again."""
    filtered: int
    failed: int
    """Events to which the filter or the input mapping could not be applied."""


class AsyncTopics:
    """The topics of a client's namespace."""

    def __init__(self, broker: Broker, namespace: str, publisher: Publisher) -> None:
        self._broker, self._namespace, self._tasks = broker, namespace, publisher
        self._publisher = TopicPublisher(broker, namespace, publisher.patience)

    async def publish(
        self, topic: str, data: Any = None, attributes: Mapping[str, Attribute] | None = None, *,
        key: str = "", event_id: str | None = None, event_type: str = DEFAULT_TYPE, source: str = "",
        subject: str = "",
    ) -> Published:  # fmt: skip
        """Publish an event, and return when the broker has it on disk.

        Args:
            topic: name of the topic.
            data: what handlers get as their input unless their subscription says otherwise: what can be
                written as JSON, at most 256 KiB.
            attributes: what filters look at: names of a to z and digits; texts, whole numbers, true, false.
            key: events of one key keep their order where a subscription asks for it.
            event_id: an id of your own. The same source and id is the same event: publishing it again runs
                no handler again, for as long as the records of its tasks are kept.
            event_type: `type` of the CloudEvent.
            source: `source` of the CloudEvent; the queue in a handler, else `galley`.
            subject: `subject` of the CloudEvent.

        Raises:
            EventInvalid: there can be no such event or topic.
            TopicNotFound, TopicFull: nothing was stored.
            HopLimit: the handler that publishes runs for an event that came of too many others.
            NotAllowed: the credentials are of another namespace.
            BrokerUnreachable, BrokerSilent: no answer; publishing it again with the same `event_id` is safe.
            ClientClosed, ClientElsewhere: the client is closed, or belongs to another event loop.
        """
        event = event_of(
            data, datetime.now(UTC), source=source or _source(), attributes=attributes, event_id=event_id,
            event_type=event_type, subject=subject, key=key,
        )  # fmt: skip
        return await self.publish_event(topic, event)

    async def publish_cloudevent(
        self, topic: str, body: bytes | str, headers: Mapping[str, str] | None = None
    ) -> Published:
        """Publish a CloudEvent as other programs write it.

        Args:
            topic: name of the topic.
            body: a CloudEvent in structured JSON, or in binary mode its data.
            headers: in binary mode those that have its attributes: `ce-id`, `ce-source`, `ce-type` ...

        Raises:
            EventInvalid: it is no CloudEvent 1.0, or one that Galley does not take.
            As `publish` besides.
        """
        data, now = body.encode() if isinstance(body, str) else body, datetime.now(UTC)
        return await self.publish_event(
            topic, decode(data, now) if headers is None else from_headers(headers, data, now)
        )

    async def publish_event(self, topic: str, event: Event) -> Published:
        """As `publish`, for an event at hand."""
        self._broker.check_usable()
        check_topic_name(topic)
        led = hops()
        if led >= HOPS_LIMIT:
            raise HopLimit(topic, led)
        if WORKER_VARIABLE in os.environ:
            event = replace(event, hops=led + 1)
        with tracing.span("publish", topic, kind="PRODUCER"):
            if not event.traceparent:
                event = replace(event, traceparent=tracing.present())
            return await self._publisher.publish(topic, event)

    async def get(self, topic: str) -> TopicView:
        """Return a topic, who subscribes to it, and how far they are.

        Raises:
            TopicNotFound, EventInvalid: there is none of that name, or can be none.
            NotAllowed: the credentials are of another namespace.
            BrokerUnreachable, ClientClosed, ClientElsewhere: as `publish`.
        """
        self._broker.check_usable()
        found = await find_topic(self._broker, self._namespace, check_topic_name(topic))
        if found is None:
            raise TopicNotFound(self._namespace, topic)
        return await self._view(found)

    async def list(self) -> list[TopicView]:
        """Return all topics of the namespace, by name.

        Raises:
            NotAllowed: the credentials are not those of a manager of a queue of the namespace.
            BrokerUnreachable, ClientClosed, ClientElsewhere: as `publish`.
        """
        self._broker.check_usable()
        return [await self._view(topic) for topic in await topics_of(self._broker, self._namespace)]

    async def events(self, topic: str, since: datetime | None = None) -> AsyncGenerator[StoredEvent, None]:
        """Yield the events of a topic that are kept, oldest first.

        Args:
            topic: its name.
            since: only those stored then, or later; a time with its offset from UTC.

        Raises:
            EventInvalid: the time has no offset from UTC.
            TopicNotFound, NotAllowed, BrokerUnreachable: as `get`; the credentials have to be a manager's.
        """
        _check_time("since", since)
        await self.get(topic)
        async for stored in events_of(self._broker, self._namespace, topic, since=since):
            yield stored

    def listen(self, topic: str, filter: str = "", *, buffer: int = BUFFER) -> AsyncListener:  # noqa: A002
        """Hear the events of a topic as they are published, while a block runs: `AsyncListener`.

        An event comes once or not at all, and nothing is kept for who listens: what is published while the
        connection is lost, or faster than it is taken, is missed, and counted. Tasks of queues that subscribe
        are not affected. On one connection the listeners of a namespace hear 5,000 events a second together,
        of 4 MiB; an event that two of them hear counts twice.

        Args:
            topic: name of the topic.
            filter: which events; the language of subscriptions. An event it cannot be applied to is passed
                over, and counted in `failed`.
            buffer: events that are kept until they are taken, 8 MiB of them at most; a new one replaces the
                oldest, which is counted in `dropped`.

        Raises:
            EventInvalid: there can be no such topic or buffer.
            FilterInvalid: it is no filter.
        """
        return AsyncListener(self._broker, self._namespace, topic, filter, buffer)

    async def replay(
        self, topic: str, subscription: str, since: datetime, until: datetime | None = None
    ) -> Replayed:
        """Run the handler of a subscription for events that are kept, as if it had been there before.

        An event whose task waits, runs, or ended and still has its record is not run again, so a replay that
        was interrupted can be repeated.

        Args:
            topic: name of the topic.
            subscription: name of the subscription.
            since: events stored from then on; a time with its offset from UTC.
            until: events stored before then; None for all that are there now.

        Raises:
            TopicNotFound: there is no such topic.
            EventInvalid: the topic has no such subscription, or a time has no offset from UTC.
            QueueFull: the queue took only a part; repeat it later.
            NotAllowed: the credentials are not those of a manager of the queue.
            BrokerUnreachable, ClientClosed, ClientElsewhere: as `publish`.
        """
        _check_time("since", since)
        _check_time("until", until)
        view = await self.get(topic)
        several = [each for queue in view.queues for each in queue.subscriptions]
        chosen = next((each for each in several if each.name == subscription), None)
        if chosen is None:
            known = ", ".join(sorted(each.name for each in several)) or "none"
            raise EventInvalid("subscription", f"topic {topic!r} has no {subscription!r}", f"it has: {known}")
        chosen = replace(chosen, since=None)
        info = await stream_info(self._broker, topology.topics_stream(self._namespace))
        last = info["state"]["last_seq"] if info is not None else 0
        counts = [0, 0, 0, 0]
        async for stored in events_of(self._broker, self._namespace, topic, since=since):
            if stored.sequence > last or (until is not None and stored.stored_at >= until):
                break
            counts[await self._replay_one(topic, chosen, stored)] += 1
        detail = f"topic {topic}, subscription {subscription}"
        await note(self._broker, self._namespace, chosen.queue, Action.REPLAY, count=counts[0], detail=detail)
        return Replayed(*counts)

    async def _replay_one(self, topic: str, subscription: Subscription, stored: StoredEvent) -> int:
        """Copy one event; returns which of the figures of `Replayed` counts it."""
        try:
            if not concerns(subscription, topic, stored.event, stored.stored_at):
                return 2
            task = task_of(topic, subscription, stored.event, stored.stored_at)
        except (FilterFailed, MappingFailed):
            return 3
        address = copy_address(self._namespace, topic, subscription, stored.event)
        receipt = await self._tasks.publish(address, task, chosen_id=True)
        return 1 if receipt.duplicate else 0

    async def _view(self, topic: Topic) -> TopicView:
        queues = []
        for queue in topic.queues:
            several = await subscriptions_of(self._broker, self._namespace, topic.name, queue)
            pending = await self._pending(queue)
            missed = await missed_of(self._broker, self._namespace, topic.name, queue)
            full = pending > 0 and await self._is_full(queue)
            queues.append(SubscribedQueue(queue, several, pending, missed, full))
        subject = topology.event_subject(self._namespace, topic.name)
        stream = topology.topics_stream(self._namespace)
        info = await stream_info(self._broker, stream, {"subjects_filter": subject})
        counts = (info or {}).get("state", {}).get("subjects") or {}
        return TopicView(topic, tuple(queues), sum(counts.values()))

    async def _is_full(self, queue: str) -> bool:
        try:
            info = await stream_info(self._broker, topology.work_stream(self._namespace, queue))
        except NotAllowed:
            return False
        return info is not None and is_full(info)

    async def _pending(self, queue: str) -> int:
        stream = topology.topics_stream(self._namespace)
        try:
            info = await self._broker.api(
                f"look at consumer {queue} of {stream}", f"CONSUMER.INFO.{stream}.{queue}"
            )
        except BrokerRefused as refusal:
            if refusal.missing:
                return 0
            raise
        return int(info["num_pending"]) + int(info["num_ack_pending"])


def _source() -> str:
    return os.environ.get(WORKER_VARIABLE) or "galley"


def _check_time(name: str, moment: datetime | None) -> None:
    """Refuse a time that does not say its offset: elsewhere it is another one, and finds other events."""
    if moment is not None and moment.utcoffset() is None:
        hint = "pass an aware datetime, such as datetime.now(UTC) - timedelta(hours=1)"
        raise EventInvalid(name, f"{moment!r}"[:80] + " has no offset from UTC", hint)
