"""Topic: events that are published once and run a task in each queue that subscribes, declared."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, field_validator, model_validator

from galley import topic as kept
from galley.bounds import KEY_PATH_LENGTH, KEY_PATH_PATTERN, NAME_PATTERN
from galley.errors import EventInvalid
from galley.event import TEXT_LIMIT
from galley.filter import FILTER_LENGTH
from galley.filter import parse as parse_filter
from galley.lanes import Lane
from galley.resources.condition import Condition
from galley.resources.meta import (
    API_VERSION,
    Choice,
    HandlerName,
    Metadata,
    Name,
    Part,
    Whole,
    refusal,
)
from galley.resources.rule import keyed_by
from galley.resources.task_queue import Plaintext, TaskQueue
from galley.topic import NAME_LENGTH, RETENTION_SECONDS, SUBSCRIPTIONS_LIMIT, TOPIC_BYTES

_MOST = 2**53 - 1
_DAY = 24 * 3600

READY = "Ready"
"""The type of the condition that is True while events are published and copied as the Topic says."""


COMPLETE = "Complete"
"""The type of the condition that is False for a day after a queue missed an event."""


class TopicRetention(Part):
    """How long events are kept, and in how much room."""

    seconds: Whole = Field(RETENTION_SECONDS, ge=60, le=30 * _DAY)
    """Seconds an event is kept: a queue without workers gets its copy within that time, and earlier events
    can be replayed for a new subscription."""

    bytes: Whole = Field(TOPIC_BYTES, ge=1024**2, le=2**40)
    """Bytes of JetStream reserved for events. The topics of a namespace share the sum; if it is used up,
    events are refused until older ones have passed their time."""


class TopicSubscription(Part):
    """What a queue does with the events."""

    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=NAME_LENGTH)]
    """Name of the subscription, unique in the Topic; the ids of its tasks begin with it."""

    queue_name: Name
    """Name of the TaskQueue, in the Topic's namespace, whose workers run it."""

    handler: HandlerName
    """Which handler of the queue runs for each event."""

    filter: Annotated[str, Field(max_length=FILTER_LENGTH)] = ""
    """Which events: an expression such as `attributes.region == "eu"`; all when left out."""

    priority: Lane = Lane.NORMAL
    """The lane its tasks wait in; the queue must have it."""

    input: Annotated[
        dict[
            Annotated[str, Field(max_length=TEXT_LIMIT)],
            Annotated[str, Field(max_length=TEXT_LIMIT)],
        ],
        Field(max_length=64),
    ] = Field(default_factory=dict)
    """The parts of an event that become the arguments of the handler, by their names: `data.device`,
    `attributes.region`, `event`, `id`, `source`, `type`, `subject`, `key`, `time`. Left out, the data of the
    event is the input."""

    ordered: Choice = False
    """Whether its tasks are put into the queue in the order of the events, one after the other."""

    key: Annotated[str, Field(max_length=KEY_PATH_LENGTH, pattern=KEY_PATH_PATTERN)] | None = None
    """The part of an event that is the key of its task: `key`, `subject`, `source`, `type`,
    `attributes.device` or `data.device`. Turns and `limits.perKey` of the queue apply to it. Left out, the
    tasks have no key."""

    @field_validator("filter")
    @classmethod
    def _filter_is_one(cls, text: str) -> str:
        try:
            parse_filter(text)
        except EventInvalid as error:
            raise refusal(error.problem, error.hint) from None
        return text

    @field_validator("input")
    @classmethod
    def _paths_are_some(cls, paths: dict[str, str]) -> dict[str, str]:
        try:
            kept.check_mapping(paths)
        except EventInvalid as error:
            raise refusal(error.problem, error.hint) from None
        return paths


class TopicSpec(Part):
    """Who subscribes, and how long events are kept."""

    retention: TopicRetention = Field(default_factory=TopicRetention)
    """How long events are kept, and in how much room."""

    subscriptions: tuple[TopicSubscription, ...] = Field(
        (), max_length=SUBSCRIPTIONS_LIMIT, json_schema_extra=keyed_by("name")
    )
    """The queues that run a task for each event, with those that code subscribes (`@task(subscribe=...)`)."""

    @model_validator(mode="after")
    def _names_differ(self) -> "TopicSpec":
        seen: set[str] = set()
        for each in self.subscriptions:
            if each.name in seen:
                problem = f"has two subscriptions {each.name!r}"
                raise refusal(problem, "give each a name of its own", "subscriptions")
            seen.add(each.name)
        return self


class Topic(Part):
    """Events that are published once, and run a task in each queue that subscribes."""

    api_version: Literal["galley.dev/v1alpha1"] = API_VERSION
    """Version of this resource's shape."""

    kind: Literal["Topic"] = "Topic"
    """The kind of this resource."""

    metadata: Metadata
    """Name and namespace of the topic."""

    spec: TopicSpec = Field(default_factory=TopicSpec)
    """Who subscribes, and how long events are kept."""


class TopicStatus(Part):
    """State of a topic, up to a few seconds old."""

    observed_generation: Whole | None = Field(None, ge=0, le=_MOST)
    """Generation of the Topic that was looked at last."""

    conditions: tuple[Condition, ...] = Field((), max_length=8, json_schema_extra=keyed_by("type"))
    """`Ready` is True while events can be published and are copied. Its reason is `Active`, or why not.
    `Complete` is False for a day after a queue missed an event, with the reason `EventsMissed`."""

    queues: Whole | None = Field(None, ge=0, le=_MOST)
    """Queues that subscribe, by the Topic or by their code."""

    missed: Whole | None = Field(None, ge=0, le=_MOST)
    """Events that queues missed: they became dead letters, since a filter or an input mapping failed, or
    their retention ended before they were copied. An event counts once for each queue and subscription."""

    since: AwareDatetime | None = None
    """Since when it is there."""


def declared_topic(resource: Topic, uid: str = "") -> tuple[kept.Topic, tuple[kept.Subscription, ...]]:
    """Return a Topic as it is kept, and its subscriptions."""
    spec = resource.spec
    topic = kept.Topic(
        resource.metadata.name, spec.retention.seconds, spec.retention.bytes, kept.Origin.OBJECT, uid
    )
    subscriptions = tuple(
        kept.Subscription(
            each.name, each.queue_name, each.handler, each.filter, each.priority, each.input or "data",
            each.ordered, key=each.key or "",
        )
        for each in spec.subscriptions
    )  # fmt: skip
    return topic, subscriptions


def refuses_events(queue: TaskQueue) -> bool:
    """Return whether the copies of events become dead letters of a queue: it takes encrypted tasks only."""
    encryption = queue.spec.encryption
    return encryption is not None and encryption.plaintext is Plaintext.REFUSE


def refused_by(queues: Sequence[str]) -> str:
    """Return what is said of such queues."""
    return (
        f"TaskQueue {', '.join(queues)} takes encrypted tasks only, and events are not encrypted: each "
        "becomes a dead letter there; set spec.encryption.plaintext: Accept, or subscribe another queue"
    )
