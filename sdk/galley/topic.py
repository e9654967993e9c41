"""A topic as the broker keeps it, and the task that follows from an event. Pure: times are arguments."""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from galley import filter as filters
from galley.address import Kind, TaskAddress
from galley.bounds import KEY_PATH_LENGTH, KEY_PATH_PATTERN
from galley.envelope import NO_INPUT, Envelope
from galley.errors import EnvelopeInvalid, EventInvalid, SubmissionInvalid
from galley.event import Event, check_topic_name, encode, variables
from galley.history import Moment
from galley.inside import HOPS_WORD, LIFE_WORD
from galley.key import key_of_value
from galley.lanes import Lane
from galley.unreadable import UNREADABLE

RETENTION_SECONDS: Final = 24 * 3600
LATE_SECONDS: Final = 600
"""How long the server keeps an event beyond its retention, so that the topic's owner can count who missed it
before it removes it."""

TOPIC_BYTES: Final = 64 * 1024**2
SUBSCRIPTIONS_LIMIT: Final = 1_000
"""Subscriptions of one topic."""

LIFE_TYPE: Final = "dev.galley.task."
"""Before the kind of a life event, in its type."""

_VERSION: Final = 1
_PATH: Final = re.compile(
    r"(data|event|attributes)(\.[A-Za-z0-9_-]{1,64}){0,8}|id|source|type|subject|key|time"
)
_KEY_PATH: Final = re.compile(KEY_PATH_PATTERN.strip("^$"))
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_MOST_FIELDS: Final = 64

NAME_LENGTH: Final = 32
"""Characters of the name of a subscription: the ids of its tasks begin with it."""


class Origin(StrEnum):
    """Where a topic or a subscription was declared."""

    CODE = "code"
    """By `@task(subscribe=...)`."""
    OBJECT = "object"
    """In a Topic."""


class MappingFailed(Exception):
    """An input cannot be made of an event, since it does not have what is asked for."""


class KeyFailed(MappingFailed):
    """The key of a task cannot be made of an event."""


class Subscription(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a queue does with the events of a topic."""

    name: str
    """Unique in its topic; the ids of the tasks begin with it."""
    queue: str
    handler: str
    filter: str = ""
    lane: Lane = Lane.NORMAL
    input: Mapping[str, str] | str = "data"
    """A path, or paths by the names of the handler's arguments: `data`, `data.device`, `attributes.region`,
    `key`, `event` ..."""
    ordered: bool = False
    """Whether the tasks are put into the queue in the order of the events."""
    since: Moment | None = None
    """Events stored from then on concern it; None until it is kept."""
    origin: Origin = Origin.OBJECT
    key: str = ""
    """The part of the event that is the key of the task, as a path; empty for tasks without a key."""


class QueueSubscriptions(Struct, frozen=True, rename="camel"):
    """The subscriptions of a queue to one topic, as they are kept."""

    subscriptions: tuple[Subscription, ...]
    v: Annotated[int, Meta(ge=1)] = _VERSION


class Subscribe(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A subscription of a handler: `@task(subscribe=galley.Subscribe("readings", filter=...))`."""

    topic: str
    """Name of the topic."""
    filter: str = ""
    """Which of its events: an expression such as `attributes.region == "eu"`; empty for all."""
    input: Mapping[str, str] | str = "data"
    """The part of the event that becomes the input, or parts by the names of the handler's arguments: `data`,
    `data.device`, `attributes.region`, `event`, `id`, `source`, `type`, `subject`, `key`, `time`."""
    ordered: bool = False
    """Whether its tasks are put into the queue in the order of the events, one after the other."""
    key: str = ""
    """The part of the event that is the key of its task: `key`, `subject`, `source`, `type`,
    `attributes.device` or `data.device`; empty for tasks without a key."""


Asked = str | Subscribe | Sequence[str | Subscribe]
"""What `@task(subscribe=...)` takes."""


def subscribes(asked: Asked | None) -> tuple[Subscribe, ...]:
    """Return the subscriptions that `@task(subscribe=...)` asks for.

    Raises:
        FilterInvalid: a filter cannot be used.
        EventInvalid: a topic cannot have such a name, two are of one topic, or an input mapping or the path
            of a key is wrong.
    """
    if asked is None:
        return ()
    several = (asked,) if isinstance(asked, str | Subscribe) else asked
    listed = isinstance(several, tuple | list | set)
    if not listed or not all(isinstance(each, str | Subscribe) for each in several):
        hint = "use the name of a topic, a galley.Subscribe, or a list of them"
        raise EventInvalid("subscribe", f"{asked!r}"[:80], hint)
    found = tuple(Subscribe(each) if isinstance(each, str) else each for each in several)
    for each in found:
        check_topic_name(each.topic)
        filters.parse(each.filter)
        check_mapping(each.input)
        check_key_path(each.key)
    if len({each.topic for each in found}) < len(found):
        raise EventInvalid("subscribe", "names a topic twice", "join the two filters with ||")
    return found


class Topic(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A topic, as it is kept."""

    name: str
    retention_seconds: int = RETENTION_SECONDS
    """How long an event is kept."""
    retention_bytes: int = TOPIC_BYTES
    """Room for its events; the topics of a namespace share the sum."""
    origin: Origin = Origin.OBJECT
    uid: str = ""
    created_at: Moment | None = None
    queues: tuple[str, ...] = ()
    """Those that subscribe."""
    v: Annotated[int, Meta(ge=1)] = _VERSION


_decode_topic: Final = msgspec.json.Decoder(Topic).decode
_decode_subscriptions: Final = msgspec.json.Decoder(QueueSubscriptions).decode


def decode_topic(body: bytes) -> Topic:
    """Return the topic in a body.

    Raises:
        EnvelopeInvalid: if it is none, or of a later version.
    """
    try:
        topic = _decode_topic(body)
    except UNREADABLE as error:
        raise EnvelopeInvalid(f"no topic: {error}") from None
    if topic.v != _VERSION:
        raise EnvelopeInvalid(f"the version of topic {topic.name} is {topic.v}, known here is {_VERSION}")
    return topic


def decode_subscriptions(body: bytes) -> tuple[Subscription, ...]:
    """Return the subscriptions in a body.

    Raises:
        EnvelopeInvalid: if it has none, or is of a later version.
    """
    try:
        found = _decode_subscriptions(body)
    except UNREADABLE as error:
        raise EnvelopeInvalid(f"no subscriptions: {error}") from None
    if found.v != _VERSION:
        raise EnvelopeInvalid(f"the version of subscriptions is {found.v}, known here is {_VERSION}")
    return found.subscriptions


def check_subscription(subscription: Subscription) -> None:
    """Check what can be checked before there is an event.

    Raises:
        FilterInvalid: the filter cannot be used.
        EventInvalid: the name, the input mapping or the path of the key cannot be used.
    """
    if not _NAME.fullmatch(subscription.name):
        hint = f"use 1 to {NAME_LENGTH} of a-z, 0-9 and -, starting and ending with a letter or digit"
        problem = f"{subscription.name[:80]!r} cannot be the name of a subscription"
        raise EventInvalid("name", problem, hint)
    filters.parse(subscription.filter)
    check_mapping(subscription.input)
    check_key_path(subscription.key)


def check_mapping(mapping: Mapping[str, str] | str) -> None:
    """Check an input mapping.

    Raises:
        EventInvalid: if it cannot be used.
    """
    paths: Collection[Any] = (mapping,) if isinstance(mapping, str) else mapping.values()
    if len(paths) > _MOST_FIELDS:
        raise EventInvalid("input", f"has {len(paths)} fields", f"use at most {_MOST_FIELDS}")
    for path in paths:
        if not isinstance(path, str) or not _PATH.fullmatch(path):
            hint = "use data, data.NAME, attributes.NAME, event, id, source, type, subject, key or time"
            raise EventInvalid("input", f"{str(path)[:80]!r} is no part of an event", hint)


def check_key_path(path: Any) -> None:
    """Check the path of a key; an empty one asks for none.

    Raises:
        EventInvalid: if it cannot be used.
    """
    if isinstance(path, str) and len(path) <= KEY_PATH_LENGTH and (not path or _KEY_PATH.fullmatch(path)):
        return
    hint = "use key, subject, source, type, attributes.NAME or data.NAME"
    raise EventInvalid("key", f"{str(path)[:80]!r} is no part of an event that can be a key", hint)


def subscription_name(queue: str, handler: str) -> str:
    """Return the name of the subscription of `@task(subscribe=...)`: the same in every process."""
    plain = re.sub(r"[^a-z0-9]+", "-", f"{queue}-{handler}".lower()).strip("-")
    if len(plain) <= NAME_LENGTH:
        return plain
    digest = sha256(f"{queue}/{handler}".encode()).hexdigest()[:8]
    return f"{plain[: NAME_LENGTH - 9].rstrip('-')}-{digest}"


def copy_id(topic: str, subscription: str, event: Event) -> str:
    """Return the id of the task of an event for a subscription: the same in every process."""
    words = f"{topic}\0{subscription}\0{event.source}\0{event.id}"
    return f"{subscription}-{sha256(words.encode()).hexdigest()[:24]}"


def copy_address(namespace: str, topic: str, subscription: Subscription, event: Event) -> TaskAddress:
    """Return where the task of an event for a subscription goes."""
    task_id = copy_id(topic, subscription.name, event)
    return TaskAddress(namespace, subscription.queue, subscription.lane, Kind.DIRECT, task_id)


def concerns(subscription: Subscription, topic: str, event: Event, stored_at: datetime) -> bool:
    """Return whether a subscription gets an event.

    Raises:
        FilterFailed: if its filter cannot tell.
    """
    if subscription.since is not None and stored_at < subscription.since:
        return False
    return not subscription.filter or filters.parse(subscription.filter).matches(variables(event, topic))


def task_of(topic: str, subscription: Subscription, event: Event, stored_at: datetime) -> Envelope:
    """Return the task of an event for a subscription.

    Raises:
        MappingFailed: if its input cannot be made of the event.
        KeyFailed: if its key cannot.
    """
    return Envelope(
        subscription.handler, stored_at, input=_input(subscription.input, event), event=f"{topic}/{event.id}",
        ancestors=_ancestors(event), trace=event.traceparent, key=_key(subscription.key, event),
    )  # fmt: skip


def _ancestors(event: Event) -> tuple[str, ...]:
    life = (LIFE_WORD,) if event.type.startswith(LIFE_TYPE) else ()
    return (*life, f"{HOPS_WORD}{event.hops}") if event.hops else life


def task_of_miss(topic: str, subscription: Subscription, event: Event, stored_at: datetime) -> Envelope:
    """Return the task for an event that could not be looked at as asked: its input is the whole event."""
    return Envelope(
        subscription.handler, stored_at, input=Raw(b'{"event":' + encode(event) + b"}"),
        event=f"{topic}/{event.id}", ancestors=_ancestors(event), trace=event.traceparent,
    )  # fmt: skip


def _input(mapping: Mapping[str, str] | str, event: Event) -> Raw:
    if mapping == "data":
        return event.data if bytes(event.data) != b"null" else NO_INPUT
    parts: dict[str, Any] = {}
    if isinstance(mapping, str):
        return _part(mapping, event, parts)
    return Raw(msgspec.json.encode({name: _part(path, event, parts) for name, path in mapping.items()}))


def _key(path: str, event: Event) -> str:
    if not path:
        return ""
    try:
        value = _value(path, event, {})
        # An event without a key, or without a subject, has an empty one.
        return "" if value == "" else key_of_value(value, f"{path} of the event", "")
    except (MappingFailed, SubmissionInvalid) as error:
        raise KeyFailed(f"no key: {error}") from None


def _part(path: str, event: Event, parts: dict[str, Any]) -> Raw:
    return Raw(msgspec.json.encode(_value(path, event, parts)))


def _value(path: str, event: Event, parts: dict[str, Any]) -> Any:
    first, *rest = path.split(".")
    if first not in parts:
        parts[first] = _top(first, event)
    value = parts[first]
    for at, name in enumerate(rest):
        if not isinstance(value, Mapping) or name not in value:
            raise MappingFailed(f"the event has no {'.'.join((first, *rest[: at + 1]))}")
        value = value[name]
    return value


def _top(name: str, event: Event) -> Any:
    try:
        if name == "data":
            return msgspec.json.decode(event.data)
        if name == "event":
            return msgspec.json.decode(encode(event))
    except UNREADABLE as error:
        raise MappingFailed(f"its data cannot be read: {error}") from None
    if name == "time":
        return event.time
    return getattr(event, name)
