"""Topics of a namespace: publishing and reading events, and what the topics are.

All topics of a namespace are in one stream, and each queue that subscribes has one consumer there. A worker
of the queue puts a copy of each event that passes a filter into its own queue (`galley_worker.fanout`), so
that a queue which is full, or has no workers, holds up no other one.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerFull, BrokerRefused, BrokerUnreachable, NotAllowed
from galley.broker.last_message import last_message
from galley.broker.lean_client import header_block
from galley.broker.listing import messages_of
from galley.broker.pipeline import DENIED, FULL, NO_RESPONDERS, NO_ROOM, TOO_LARGE, Ack
from galley.broker.refusals import given_up
from galley.errors import EnvelopeInvalid, EventInvalid, GalleyError, TopicFull, TopicNotFound
from galley.event import Event, decode, encode
from galley.missed import Missed, decode_missed
from galley.remembered import Remembered
from galley.topic import LATE_SECONDS, Subscription, Topic, decode_subscriptions, decode_topic

log = logging.getLogger(__name__)

_KNOWN_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 0.25
_FULL_SHARE: Final = 0.99


class Published(NamedTuple):
    """The broker has an event on disk."""

    topic: str
    id: str
    sequence: int
    """Its place among the events of the namespace."""


class StoredEvent(NamedTuple):
    """An event as it lies in the stream."""

    topic: str
    event: Event
    sequence: int
    stored_at: datetime


class TopicPublisher:
    """Publishes events to the topics of a namespace. One may be used by many at once."""

    def __init__(self, broker: Broker, namespace: str, patience_seconds: float = 30.0) -> None:
        self._broker, self._namespace, self._patience = broker, namespace, patience_seconds
        self._known: Remembered[Topic] = Remembered(_KNOWN_SECONDS, lambda: asyncio.get_running_loop().time())

    async def publish(self, topic: str, event: Event) -> Published:
        """Store an event, and return when the broker has it.

        Raises:
            TopicNotFound, TopicFull: it was not stored.
            EventInvalid: it is larger than the server takes.
            NotAllowed: the credentials are of another namespace.
            BrokerUnreachable, BrokerSilent: no answer; publishing the same event again doubles nothing.
            BrokerFull: the broker has no room; nothing was stored.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._patience
        # The server drops what has an id it knows, of any client, so it must be one that none can guess.
        token = secrets.token_hex(12)
        while True:
            try:
                known = await self._known.get(topic, partial(self._topic, topic))
                ack = await (await self._send(topic, known, event, token))
            except BrokerUnreachable as error:
                ack = Ack(0, problem=str(error))
            if ack.stored:
                return Published(topic, event.id, ack.sequence)
            if not ack.unanswered and ack.code != NO_RESPONDERS:
                raise self._refusal(topic, event, ack)
            self._known.forget(topic)
            if loop.time() >= give_up:
                problem = f"event {event.id} of topic {topic}: {ack.problem}"
                raise given_up(self._broker, problem, self._patience)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _send(self, topic: str, known: Topic, event: Event, token: str) -> asyncio.Future[Ack]:
        headers = {topology.TTL: str(known.retention_seconds + LATE_SECONDS), topology.MESSAGE_ID: token}
        subject = topology.event_subject(self._namespace, topic)
        return await self._broker.pipeline.send(subject, encode(event), header_block(headers))

    async def _topic(self, name: str) -> Topic:
        topic = await find_topic(self._broker, self._namespace, name)
        if topic is None:
            raise TopicNotFound(self._namespace, name)
        return topic

    def _refusal(self, topic: str, event: Event, ack: Ack) -> GalleyError:
        if ack.code == FULL:
            return TopicFull(topic, ack.problem)
        if ack.code == DENIED:
            return NotAllowed(topology.event_subject(self._namespace, topic))
        if ack.code == TOO_LARGE:
            return EventInvalid("data", ack.problem, "publish where the data is stored, and not the data")
        action = f"store event {event.id} of topic {topic}"
        if ack.code in NO_ROOM:
            return BrokerFull(action, ack.code, ack.problem)
        return BrokerRefused(action, ack.code, ack.problem)


async def find_topic(broker: Broker, namespace: str, name: str) -> Topic | None:
    """Return what a topic is, or None if there is none of that name.

    Raises:
        NotAllowed: if our credentials are of another namespace.
        BrokerUnreachable: if the broker does not answer.
    """
    body = await last_of(broker, namespace, topology.topic_subject(namespace, name))
    return None if body is None else _readable(body, name)


async def subscriptions_of(
    broker: Broker, namespace: str, topic: str, queue: str
) -> tuple[Subscription, ...]:
    """Return the subscriptions of a queue to a topic; none if there is no such topic.

    Raises:
        NotAllowed: if our credentials are of another namespace.
        BrokerUnreachable: if the broker does not answer.
        EnvelopeInvalid: if they are of a later version.
    """
    body = await last_of(broker, namespace, topology.subscriptions_subject(namespace, topic, queue))
    return () if body is None else decode_subscriptions(body)


async def missed_of(broker: Broker, namespace: str, topic: str, queue: str) -> Missed:
    """Return what a queue missed of the events of a topic.

    Raises:
        NotAllowed: if our credentials are of another namespace.
        BrokerUnreachable: if the broker does not answer.
        EnvelopeInvalid: if it is of a later version.
    """
    body = await last_of(broker, namespace, topology.missed_subject(namespace, topic, queue))
    return Missed() if body is None else decode_missed(body)


def is_full(work: Mapping[str, Any]) -> bool:
    """Return whether a queue is full, by what the server says of its stream of submitted tasks."""
    state, config = work["state"], work["config"]
    # A task is refused that does not fit, so the last of its bytes are never used.
    return bool(
        state["messages"] >= config["max_msgs"] or state["bytes"] >= config["max_bytes"] * _FULL_SHARE
    )


async def topics_of(broker: Broker, namespace: str) -> list[Topic]:
    """Return the topics of a namespace, by name; one that cannot be read is left out.

    Raises:
        NotAllowed: if our credentials are not those of a manager.
        BrokerUnreachable: if the broker does not answer.
    """
    found: dict[str, Topic] = {}
    stream = topology.topics_stream(namespace)
    async for message in messages_of(broker, stream, topology.topic_subject(namespace, "*")):
        name = message.subject.split(".")[-1]
        if (topic := _readable(message.body, name)) is not None:
            found[name] = topic
    return [found[name] for name in sorted(found)]


async def events_of(
    broker: Broker, namespace: str, topic: str, sequence: int = 1, since: datetime | None = None
) -> AsyncIterator[StoredEvent]:
    """Yield the events of a topic that are kept, oldest first; what is none is logged and left out.

    Args:
        broker: an open connection.
        namespace: of the topic.
        topic: its name.
        sequence: where to begin.
        since: only events that were stored then, or later.

    Raises:
        NotAllowed: if our credentials are not those of a manager.
        BrokerUnreachable: if the broker does not answer.
    """
    stream, subject = topology.topics_stream(namespace), topology.event_subject(namespace, topic)
    async for message in messages_of(broker, stream, subject, sequence, since):
        try:
            event = decode(message.body, message.stored_at)
        except EventInvalid as error:
            log.warning("event not readable", extra={"sequence": message.sequence, "error": str(error)})
            continue
        yield StoredEvent(topic, event, message.sequence, message.stored_at)


async def last_of(broker: Broker, namespace: str, subject: str) -> bytes | None:
    """Return the last message of a subject in the stream of topics, or None if there is none."""
    stream = topology.topics_stream(namespace)
    try:
        found = await last_message(broker, stream, subject)
    except BrokerRefused as refusal:
        # There is no answer for a stream that does not exist, nor for one without a leader.
        if refusal.code == NO_RESPONDERS and await stream_info(broker, stream) is None:
            return None
        raise BrokerUnreachable(broker.server, f"stream {stream}: {refusal.description}") from refusal
    return None if found is None else found.body


def _readable(body: bytes, name: str) -> Topic | None:
    try:
        return decode_topic(body)
    except EnvelopeInvalid as error:
        log.warning("topic not readable", extra={"topic": name, "error": str(error)})
        return None


def encoded(value: object) -> bytes:
    """Return a topic, or subscriptions, as it is kept."""
    return msgspec.json.encode(value)


async def subscribes_not(broker: Broker, namespace: str, queue: str) -> bool:
    """Return whether no code of a queue was ever said to subscribe to anything.

    Raises:
        NotAllowed: if our credentials are not those of a worker of the queue.
        BrokerUnreachable: if the broker does not answer.
    """
    return await last_of(broker, namespace, topology.code_subscriptions_subject(namespace, queue)) is None


async def declare_code(broker: Broker, namespace: str, queue: str, body: bytes) -> bool:
    """Say which subscriptions the code of a queue has; returns False if the namespace has no topics yet.

    Args:
        broker: an open connection.
        namespace: of the queue.
        queue: its name.
        body: from `galley.broker.topic_keeper.code_body`.

    Raises:
        NotAllowed: if our credentials are not those of a worker of the queue.
        BrokerUnreachable: if the broker does not answer.
        TopicFull: there is no room for it now.
        BrokerRefused: if it refuses it for another reason.
    """
    subject = topology.code_subscriptions_subject(namespace, queue)
    if await last_of(broker, namespace, subject) == body:
        return True
    ack = await (await broker.pipeline.send(subject, body, header_block({topology.TTL: "never"})))
    if ack.code == NO_RESPONDERS:
        return False
    if ack.code == DENIED:
        raise NotAllowed(subject)
    if ack.code == FULL:
        raise TopicFull("", ack.problem)
    if ack.unanswered:
        raise BrokerUnreachable(broker.server, f"store {subject}: {ack.problem}")
    if not ack.stored:
        raise BrokerRefused(f"store {subject}", ack.code, ack.problem)
    return True
