"""Makes the topics of a namespace what is asked for: their stream, who subscribes, and the consumers.

The owner of the streams runs it: the operator, and `galley dev`. Publishing and delivering do not need it.
The order of the writes matters (`tests/unit/protocol/topic_model.py`): the consumer of a queue takes a topic
before the subscription is there, and gives it up after the subscription is gone.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from galley.broker import namespace_streams, topology
from galley.broker.connection import Broker
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerRefused, QueueConflict
from galley.broker.listing import first_of, messages_of
from galley.broker.topic_writes import purge, put_last
from galley.broker.topics import encoded, topics_of
from galley.errors import EnvelopeInvalid, EventInvalid
from galley.lanes import Lane
from galley.topic import (
    LATE_SECONDS,
    SUBSCRIPTIONS_LIMIT,
    Origin,
    QueueSubscriptions,
    Subscribe,
    Subscription,
    Topic,
    check_subscription,
    decode_subscriptions,
    subscription_name,
)
from galley.unreadable import UNREADABLE

log = logging.getLogger(__name__)

_BEGINNING: Final = ("deliver_policy", "opt_start_time", "opt_start_seq")
_OVERHEAD_BYTES: Final = 2 * 1024**2
"""Of the stream, for what the topics are."""


class Declared(NamedTuple):
    """A topic as it is asked for, with the subscriptions that are declared with it."""

    topic: Topic
    subscriptions: tuple[Subscription, ...] = ()


class CodeSubscriptions(Struct, frozen=True, rename="camel"):
    """What a worker says of the code of its queue: the subscriptions by the names of the handlers."""

    handlers: Mapping[str, tuple[Subscribe, ...]]
    lanes: Mapping[str, Lane] = {}
    """Those of the handlers that name one."""
    v: int = 1


_decode_code: Final = msgspec.json.Decoder(CodeSubscriptions).decode

_By = dict[tuple[str, str], tuple[Subscription, ...]]
"""Subscriptions by topic and queue."""


class TopicKeeper:
    """Keeps the topics of one namespace."""

    def __init__(self, broker: Broker, namespace: str, install: str, replicas: int = 1) -> None:
        self._broker, self._namespace, self._install = broker, namespace, install
        self._replicas = replicas
        self._stream = topology.topics_stream(namespace)

    async def keep(
        self,
        declared: Iterable[Declared],
        *,
        implied: bool = False,
        expected: bool = False,
        unchanged: Collection[str] = (),
    ) -> list[str]:
        """Make the topics what is asked for.

        Args:
            declared: all topics of the namespace, with the subscriptions declared with them.
            implied: whether a topic that only code subscribes to is made, with the defaults.
            unchanged: names of topics that stay as they are, since what is asked of them cannot be read.
            expected: whether to make the stream though there is no topic yet, since code will subscribe.

        Returns:
            What is asked for by code and cannot be had, in words.

        Raises:
            QueueConflict: the stream belongs to another installation.
            TopicFull: the stream is so full of events that the change cannot be stored; try again later.
            BrokerRefused, BrokerUnreachable: if the broker refuses, or does not answer.
        """
        asked = list(declared)
        topics = {each.topic.name: each.topic for each in asked}
        wanted: _By = {}
        for each in asked:
            for subscription in each.subscriptions:
                key = each.topic.name, subscription.queue
                wanted[key] = (*wanted.get(key, ()), subscription)
        present = await self._present()
        before = {topic.name: topic for topic in await topics_of(self._broker, self._namespace)}
        for name in before.keys() & set(unchanged):
            topics[name] = before[name]
            for key, subscriptions in present.items():
                if key[0] == name:
                    wanted[key] = tuple(each for each in subscriptions if each.origin is Origin.OBJECT)
        problems = await self._add_code(topics, wanted, implied=implied)
        wanted = {key: subscriptions for key, subscriptions in wanted.items() if subscriptions}
        if not (topics or before or present or expected):
            return problems
        await self._ensure_stream(topics.values(), {queue for _, queue in (*present, *wanted)})
        for queue in sorted({queue for _, queue in wanted}):
            await self._ensure_consumer(
                queue, {topic for topic, of in (*present, *wanted) if of == queue}, wanted
            )
        now = await self.time()
        for key, subscriptions in wanted.items():
            await self._write(key, _with_since(subscriptions, present.get(key, ()), now), present.get(key))
        for name, topic in topics.items():
            await self._write_topic(topic, before.get(name), wanted, now)
        await self._remove(before, topics, present, wanted)
        await self._expire(max((each.retention_seconds for each in topics.values()), default=0), now)
        return problems

    async def _add_code(self, topics: dict[str, Topic], wanted: _By, *, implied: bool) -> list[str]:
        bodies: dict[str, bytes] = {}
        pattern = topology.code_subscriptions_subject(self._namespace, "*")
        async for message in messages_of(self._broker, self._stream, pattern):
            queue = message.subject.split(".")[-1]
            if queue in bodies:
                # Workers may not delete messages, and the last one of a queue counts.
                await purge(self._broker, self._namespace, message.subject, keep=1)
            bodies[queue] = message.body
        problems = []
        for queue, body in bodies.items():
            try:
                code = _decode_code(body)
            except UNREADABLE as error:
                log.warning("subscriptions of code not readable", extra={"queue": queue, "error": str(error)})
                continue
            problems += _take_code(topics, wanted, queue, code, implied=implied)
        return problems

    async def _present(self) -> _By:
        found: _By = {}
        pattern = topology.subscriptions_subject(self._namespace, "*", "*")
        async for message in messages_of(self._broker, self._stream, pattern):
            *_, topic, queue = message.subject.split(".")
            try:
                found[topic, queue] = decode_subscriptions(message.body)
            except EnvelopeInvalid as error:
                log.warning(
                    "subscriptions not readable", extra={"topic": topic, "queue": queue, "error": str(error)}
                )
                found[topic, queue] = ()
        return found

    async def _ensure_stream(self, topics: Iterable[Topic], queues: set[str]) -> None:
        kept = list(topics)
        definition = namespace_streams.topics_definition(
            self._namespace,
            self._install,
            max((each.retention_seconds for each in kept), default=namespace_streams.REPEATED_SECONDS),
            bytes_of(kept),
            queues,
        )
        info = await stream_info(self._broker, self._stream)
        if info is None:
            definition["num_replicas"] = self._replicas
            await self._broker.api(
                f"create stream {self._stream}", f"STREAM.CREATE.{self._stream}", definition
            )
            return
        present = info["config"]
        owner = (present.get("metadata") or {}).get(topology.OWNER_KEY)
        if owner != self._install:
            problem = f"it is not of installation {self._install!r}"
            raise QueueConflict(self._stream, f"installation {owner!r}", problem)
        # Less room than there are events would make the server delete some.
        definition["max_bytes"] = max(definition["max_bytes"], int(info["state"]["bytes"]))
        if any(not _same(present.get(key), value) for key, value in definition.items()):
            update = {**present, **definition}
            await self._broker.api(f"update stream {self._stream}", f"STREAM.UPDATE.{self._stream}", update)

    async def _ensure_consumer(self, queue: str, topics: set[str], wanted: _By) -> None:
        ordered = any(each.ordered for (_, of), several in wanted.items() if of == queue for each in several)
        now = await self.time()
        definition = namespace_streams.topics_consumer(
            self._namespace, queue, topics, now.isoformat(), ordered=ordered
        )
        action = "update"
        try:
            info = await self._broker.api(
                f"look at consumer {queue} of {self._stream}", f"CONSUMER.INFO.{self._stream}.{queue}"
            )
        except BrokerRefused as refusal:
            if not refusal.missing:
                raise
            action = "create"
        else:
            present = info["config"]
            # Where it began stays as it was made; one of a backup begins at a message, and not at a time.
            for key in _BEGINNING:
                definition.pop(key, None)
            definition |= {key: present[key] for key in _BEGINNING if key in present}
            if all(
                _same(present.get(key), definition[key]) for key in ("filter_subjects", "max_ack_pending")
            ):
                return
        await self._broker.api(
            f"{action} consumer {queue} of {self._stream}", f"CONSUMER.CREATE.{self._stream}.{queue}",
            {"stream_name": self._stream, "config": definition, "action": action},
        )  # fmt: skip

    async def time(self) -> datetime:
        """Return the time by the clock that stamps events: their stamps are compared with it."""
        info = await self._broker.api(f"look at stream {self._stream}", f"STREAM.INFO.{self._stream}")
        return msgspec.convert(info["ts"], datetime, strict=False)

    async def _write(
        self,
        key: tuple[str, str],
        subscriptions: tuple[Subscription, ...],
        present: tuple[Subscription, ...] | None,
    ) -> None:
        if subscriptions == present:
            return
        subject = topology.subscriptions_subject(self._namespace, *key)
        await put_last(self._broker, self._namespace, subject, encoded(QueueSubscriptions(subscriptions)))
        log.info("subscriptions kept", extra={"topic": key[0], "queue": key[1], "count": len(subscriptions)})

    async def _write_topic(self, topic: Topic, before: Topic | None, wanted: _By, now: datetime) -> None:
        queues = tuple(sorted(queue for name, queue in wanted if name == topic.name))
        created = before.created_at if before is not None and before.uid == topic.uid else now
        topic = replace(topic, queues=queues, created_at=created)
        if topic != before:
            subject = topology.topic_subject(self._namespace, topic.name)
            await put_last(self._broker, self._namespace, subject, encoded(topic))
            log.info("topic kept", extra={"topic": topic.name})

    async def _remove(
        self, before: Mapping[str, Topic], topics: Mapping[str, Topic], present: _By, wanted: _By
    ) -> None:
        for name in before.keys() - topics.keys():
            await purge(self._broker, self._namespace, topology.topic_subject(self._namespace, name))
        for key in present.keys() - wanted.keys():
            await purge(self._broker, self._namespace, topology.subscriptions_subject(self._namespace, *key))
            await purge(self._broker, self._namespace, topology.missed_subject(self._namespace, *key))
            log.info("subscriptions removed", extra={"topic": key[0], "queue": key[1]})
        for name in before.keys() - topics.keys():
            await purge(self._broker, self._namespace, topology.event_subject(self._namespace, name))
            log.info("topic removed", extra={"topic": name})
        queues = {queue for _, queue in wanted}
        for queue in sorted({queue for _, queue in present.keys() - wanted.keys()}):
            left = {topic for topic, of in wanted if of == queue}
            if left:
                await self._ensure_consumer(queue, left, wanted)
            else:
                await self._delete_consumer(queue)
        if {queue for _, queue in present} - queues:
            await self._ensure_stream(topics.values(), queues)

    async def _expire(self, seconds: int, now: datetime) -> None:
        """Remove events that are older than any may be: a client can publish one that the server keeps."""
        # A topic can be called `>`, which `*` does not mean.
        pattern = topology.event_subject(self._namespace, ">")
        oldest = now - timedelta(seconds=seconds + LATE_SECONDS)
        first = await first_of(self._broker, self._stream, pattern)
        if first is None or first.stored_at >= oldest:
            return
        # In this order: what is published meanwhile comes behind the end.
        info = await self._broker.api(f"look at stream {self._stream}", f"STREAM.INFO.{self._stream}")
        kept = await first_of(self._broker, self._stream, pattern, oldest)
        end = int(info["state"]["last_seq"]) + 1 if kept is None else kept.sequence
        await purge(self._broker, self._namespace, pattern, end=end)
        log.warning("events removed that were to stay", extra={"namespace": self._namespace})

    async def _delete_consumer(self, queue: str) -> None:
        try:
            action = f"delete consumer {queue} of {self._stream}"
            await self._broker.api(action, f"CONSUMER.DELETE.{self._stream}.{queue}")
        except BrokerRefused as refusal:
            if not refusal.missing:
                raise


def bytes_of(topics: Iterable[Topic]) -> int:
    """Return the bytes that a namespace sets aside for its topics."""
    return sum(each.retention_bytes for each in topics) + _OVERHEAD_BYTES


def code_body(handlers: Mapping[str, tuple[Subscribe, ...]], lanes: Mapping[str, Lane]) -> bytes:
    """Return what a worker says of the subscriptions of its code."""
    return msgspec.json.encode(CodeSubscriptions(handlers, lanes))


def _take_code(
    topics: dict[str, Topic], wanted: _By, queue: str, code: CodeSubscriptions, *, implied: bool
) -> list[str]:
    count = sum(map(len, code.handlers.values()))
    if count > SUBSCRIPTIONS_LIMIT:
        return [f"the code of queue {queue} has {count} subscriptions, the limit is {SUBSCRIPTIONS_LIMIT}"]
    problems = []
    for handler, asked in ((name, each) for name, several in code.handlers.items() for each in several):
        subscription = Subscription(
            subscription_name(queue, handler), queue, handler, asked.filter, input=asked.input,
            ordered=asked.ordered, origin=Origin.CODE, key=asked.key,
        )  # fmt: skip
        if handler in code.lanes:
            subscription = replace(subscription, lane=code.lanes[handler])
        try:
            check_subscription(subscription)
        except EventInvalid as error:
            problems.append(f"handler {handler} of queue {queue}: {error}; {error.hint}")
            continue
        if asked.topic not in topics:
            if not implied:
                what = f"handler {handler} of queue {queue} subscribes to topic {asked.topic}"
                problems.append(f"{what}, which is not declared")
                continue
            topics[asked.topic] = Topic(asked.topic, origin=Origin.CODE)
        key = asked.topic, queue
        wanted[key] = (*wanted.get(key, ()), subscription)
    return problems


def _with_since(
    wanted: tuple[Subscription, ...], present: tuple[Subscription, ...], now: datetime
) -> tuple[Subscription, ...]:
    """Return subscriptions with the time from which they count: one that stays keeps its own."""
    since = {each.name: each.since for each in present}
    return tuple(replace(each, since=since.get(each.name) or now) for each in wanted)


def _same(present: Any, wanted: Any) -> bool:
    """Whether the server's value says what ours does; it adds keys of its own to metadata."""
    if isinstance(wanted, dict) and isinstance(present, dict):
        return all(present.get(key) == value for key, value in wanted.items())
    return bool(present == wanted)
