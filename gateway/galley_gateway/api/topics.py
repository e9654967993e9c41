"""Operations on topics: publish events, follow them, and look at who subscribes."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response

from galley.errors import EventInvalid, FilterInvalid, TopicFull, TopicNotFound
from galley.event import DEFAULT_TYPE, encode, from_headers
from galley.lanes import Lane
from galley.listener import AsyncListener
from galley.topics import SubscribedQueue, TopicView
from galley_gateway.access import Right
from galley_gateway.api.events import event, stream
from galley_gateway.operation import TRACE, Ask, Operation, Parameter, reply

TOPICS: Final = "/topics"
TOPIC: Final = f"{TOPICS}/{{name}}"
CLOUDEVENT: Final = "application/cloudevents+json"


class NewEvent(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """An event to publish."""

    data: Annotated[Any, Meta(description="What handlers get as their input; any JSON up to 256 KiB.")] = None
    attributes: Annotated[
        dict[str, str | int | bool], Meta(description="What filters of subscriptions look at.")
    ] = {}
    id: Annotated[str | None, Meta(description="An id of your own, so that a repetition is safe.")] = None
    type: str = DEFAULT_TYPE
    source: str = "http"
    subject: str = ""
    key: Annotated[str, Meta(description="Events of one key keep their order where it is asked for.")] = ""


class PublishedView(Struct, frozen=True):
    """Where an event is."""

    topic: str
    id: str
    sequence: int


class SubscriptionView(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a queue does with the events of a topic."""

    name: str
    handler: str
    filter: str = ""
    lane: Lane = Lane.NORMAL
    input: Any = "data"
    ordered: bool = False
    key: Annotated[str, Meta(description="The part of an event that is the key of its task.")] = ""


class MissedView(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a queue missed of a topic."""

    failed: Annotated[int, Meta(description="Events that became dead letters of the queue.")] = 0
    expired: Annotated[
        int, Meta(description="Events whose retention ended before they were copied into the queue.")
    ] = 0
    last_at: Annotated[datetime | None, Meta(description="When the last of them was counted.")] = None


class SubscribedView(Struct, frozen=True, rename="camel"):
    """A queue that subscribes to a topic."""

    queue: str
    pending: Annotated[int, Meta(description="Events that are not copied into the queue yet.")]
    subscriptions: list[SubscriptionView]
    missed: MissedView
    full: Annotated[bool, Meta(description="Whether it takes no copies now, since it is full.")] = False


class TopicDocument(Struct, frozen=True, rename="camel"):
    """A topic."""

    name: str
    events: Annotated[int, Meta(description="Events that are kept.")]
    retention_seconds: int
    retention_bytes: int
    origin: str
    queues: list[SubscribedView]


class TopicList(Struct, frozen=True):
    """The topics of a namespace, by name."""

    topics: list[TopicDocument]


async def publish(ask: Ask) -> Response:
    """Publish one event: our own shape, or a CloudEvent in either mode of HTTP."""
    if isinstance(ask.body, bytes):
        event = from_headers(dict(ask.request.headers), ask.body, datetime.now(UTC))
        done = await ask.client.topics.publish_event(ask.name, event)
    else:
        new: NewEvent = ask.body
        done = await ask.client.topics.publish(
            ask.name, new.data, new.attributes, key=new.key, event_id=new.id, event_type=new.type,
            source=new.source, subject=new.subject,
        )  # fmt: skip
    return reply(PublishedView(done.topic, done.id, done.sequence), 201)


class MissedEvents(Struct, frozen=True):
    """What a stream of events left out since it began."""

    dropped: Annotated[int, Meta(description="Events that came faster than they were read.")]
    gaps: Annotated[int, Meta(description="How often events may have been missed.")]
    failed: Annotated[int, Meta(description="Events to which the filter could not be applied.")]


async def follow(ask: Ask) -> Response:
    """Send the events of a topic as they are published."""
    listener = ask.client.topics.listen(ask.name, ask.query.get("filter", ""))
    # What is wrong from the start is told with a status of its own.
    await ask.client.topics.get(ask.name)
    return stream(ask, _live(ask, listener))


async def _live(ask: Ask, listener: AsyncListener) -> AsyncGenerator[bytes, None]:
    said = MissedEvents(0, 0, 0)
    async with listener as heard:
        yield event("listening", b"{}")
        async for stored in heard:
            now = MissedEvents(heard.dropped, heard.gaps, heard.failed)
            if now != said:
                ask.gateway.metrics.dropped.inc(now.dropped - said.dropped)
                said = now
                yield event("missed", msgspec.json.encode(now))
            yield event("event", encode(stored.event))


async def list_topics(ask: Ask) -> Response:
    """Return the topics of a namespace."""
    return reply(TopicList([topic_view(view) for view in await ask.client.topics.list()]))


async def get_topic(ask: Ask) -> Response:
    """Return one topic."""
    return reply(topic_view(await ask.client.topics.get(ask.name)))


def topic_view(view: TopicView) -> TopicDocument:
    """Return a topic, and who subscribes to it."""
    topic = view.topic
    return TopicDocument(
        topic.name, view.events, topic.retention_seconds, topic.retention_bytes, topic.origin.value,
        [_subscriber(queue) for queue in view.queues],
    )  # fmt: skip


def _subscriber(queue: SubscribedQueue) -> SubscribedView:
    several = [
        SubscriptionView(each.name, each.handler, each.filter, each.lane, each.input, each.ordered, each.key)
        for each in queue.subscriptions
    ]
    missed = MissedView(queue.missed.failed, queue.missed.expired, queue.missed.last_at)
    return SubscribedView(queue.queue, queue.pending, several, missed, queue.full)


_TOPIC: Final = {
    "name": "readings", "events": 12, "retentionSeconds": 86400, "retentionBytes": 67108864,
    "origin": "object",
    "queues": [{"queue": "alarms", "pending": 0, "subscriptions": [
        {"name": "hot", "handler": "warn", "filter": "attributes.celsius > 80", "lane": "high"},
    ], "missed": {"expired": 3, "lastAt": "2026-01-01T12:00:00Z"}, "full": False}],
}  # fmt: skip

_BINARY: Final = tuple(
    Parameter(f"ce-{name}", f"{meaning} of a CloudEvent in binary mode.", where="header")
    for name, meaning in (
        ("specversion", "`1.0`, the version"), ("id", "The id"), ("source", "The source"),
        ("type", "The type"), ("subject", "The subject"), ("partitionkey", "The key"),
        ("traceparent", "The W3C trace"),
    )
)  # fmt: skip

OPERATIONS: Final = (
    Operation(
        "listTopics", "GET", TOPICS, Right("list", "topics"), list_topics, "List the topics of a namespace",
        answers=TopicList, example_answer={"topics": [_TOPIC]},
    ),
    Operation(
        "getTopic", "GET", TOPIC, Right("get", "topics"), get_topic, "Look at a topic",
        "With the queues that subscribe, and how many events are not copied into each yet.",
        answers=TopicDocument, example_answer=_TOPIC, fails=(TopicNotFound,),
    ),
    Operation(
        "followTopic", "GET", f"{TOPIC}/events", Right("watch", "topics/events"), follow, "Follow a topic",
        "Server-sent events: `listening` once all that is published from then on is heard, and `event` with "
        "a CloudEvent for each. `missed` says how many were left out since the stream began: `dropped`, "
        "which came faster than they were read; `gaps`, how often some may have been missed; `failed`, to "
        "which the filter could not be applied. Nothing is kept for a stream: one that is opened "
        "again starts with what is published then.",
        parameters=(
            Parameter("filter", "Which events, in the language of subscriptions; all by default."),
        ),
        fails=(TopicNotFound, FilterInvalid), streams=True,
    ),
    Operation(
        "publishEvent", "POST", f"{TOPIC}/events", Right("create", "topics/events"), publish,
        "Publish an event",
        "Answers when the event is on disk; each queue that subscribes runs a task for it. The same `id` and "
        f"`source` is the same event. A body of type `{CLOUDEVENT}` is a CloudEvent 1.0 in structured mode. "
        "With headers that begin with `ce-` it is one in binary mode: the body is its data, JSON or a text.",
        takes=NewEvent, takes_raw=(CLOUDEVENT,), takes_raw_with="ce-", parameters=(*_BINARY, TRACE),
        answers=PublishedView,
        status=((201, "The event was published."),),
        example={"data": {"device": 7, "celsius": 81}, "attributes": {"region": "eu"}, "type": DEFAULT_TYPE},
        example_answer={"topic": "readings", "id": "01M8K988EF1JMJDNSTRVJVJ4YF", "sequence": 13},
        fails=(TopicNotFound, EventInvalid, TopicFull),
    ),
)  # fmt: skip
