"""Keeps the topics of each namespace in the broker as its Topic objects and the code of its queues say.

Nothing that publishes or copies needs it: programs and workers do that. While the operator is away topics
stay as they were.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from galley import topic as kept
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerError
from galley.broker.listing import all_streams
from galley.broker.missed_events import MissedEvents
from galley.broker.topic_keeper import Declared, TopicKeeper, bytes_of
from galley.broker.topics import topics_of
from galley.errors import GalleyError, ManifestInvalid, TopicFull
from galley.missed import Missed
from galley.resources.condition import Condition, Truth, with_condition
from galley.resources.topic import (
    COMPLETE,
    READY,
    Topic,
    TopicSpec,
    TopicStatus,
    declared_topic,
    refused_by,
    refuses_events,
)
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ClusterError
from galley_operator.cluster.kept_object import KeptObject, keep_looking, write_status
from galley_operator.cluster.reflector import Key, Reflector, Source
from galley_operator.cluster.resource import TOPICS
from galley_operator.errors import TopicsQuotaExceeded
from galley_operator.faults import Faults
from galley_operator.queues.quota import Reservations
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.topic_figures import TopicFigures

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
"""Time between two looks, which find what workers say of their code."""

_LATELY: Final = timedelta(days=1)
_MESSAGE_LENGTH: Final = 1000
_MOST_TOLD: Final = 20


class TopicsKeeper:
    """Keeps topics for as long as `run` runs; only the leader runs it."""

    def __init__(  # noqa: PLR0917 - what it is made of
        self,
        cluster: Cluster,
        broker: Broker,
        queues: KnownQueues,
        namespaces: tuple[str | None, ...],
        install: str,
        faults: Faults,
        reservations: Reservations,
        figures: TopicFigures,
        replicas: int = 1,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster, self._broker, self._queues, self._faults = cluster, broker, queues, faults
        self._install, self._replicas, self._clock = install, replicas, clock
        self._namespaces = namespaces
        self._reservations, self._figures = reservations, figures
        self._missed: dict[str, MissedEvents] = {}
        self._changed = asyncio.Event()
        self._told: dict[str, list[str]] = {}
        """What was said last about each namespace."""
        self._reflector: Reflector[KeptObject, KeptObject] = Reflector(
            cluster, Source(TOPICS, KeptObject, lambda shaped, _: shaped, namespaces), self, faults
        )

    def changed(self, key: Key, now: KeptObject, *, listed: bool) -> None:  # noqa: ARG002 - of a Listener
        """Look at all topics soon."""
        self._changed.set()

    def gone(self, key: Key, last: KeptObject) -> None:  # noqa: ARG002 - of a Listener
        """Remove the topic soon."""
        self._changed.set()

    async def run(self) -> None:
        """Keep topics until cancelled."""
        await keep_looking(self._reflector, self._changed, self.once, LOOK_SECONDS)

    async def once(self) -> None:
        """Look at the topics of each namespace."""
        by_namespace: dict[str, list[KeptObject]] = defaultdict(list)
        for (namespace, _), thing in list(self._reflector.things.items()):
            by_namespace[namespace].append(thing)
        try:
            for namespace in await self._with_streams():
                by_namespace.setdefault(namespace, [])
        except BrokerError as error:
            log.warning("topics not listed", extra={"error": str(error)})
        for namespace, things in by_namespace.items():
            try:
                await self._look_at(namespace, things)
            except (BrokerError, ClusterError) as error:
                log.warning("topics not looked at", extra={"namespace": namespace, "error": str(error)})
            except Exception as error:  # whatever it is costs this namespace alone
                self._faults.caught("topics", error, namespace)

    async def _with_streams(self) -> list[str]:
        """Return the namespaces we serve that have a stream of topics of ours."""
        found = []
        for each in self._namespaces:
            async for stream in all_streams(self._broker, topology.topic_subject(each or "*", ">")):
                metadata = stream["config"].get("metadata") or {}
                namespace = str(metadata.get(topology.NAMESPACE_KEY, ""))
                ours = metadata.get(topology.OWNER_KEY) == self._install
                if ours and stream["config"]["name"] == topology.topics_stream(namespace):
                    found.append(namespace)
        return found

    async def _look_at(self, namespace: str, things: list[KeptObject]) -> None:
        declared: list[Declared] = []
        problems: dict[str, GalleyError] = {}
        for thing in things:
            try:
                declared.append(Declared(*declared_topic(_topic(thing), thing.uid)))
            except ManifestInvalid as error:
                problems[thing.metadata.name] = error
        keeper = TopicKeeper(self._broker, namespace, self._install, self._replicas)
        try:
            # Those whose object cannot be read stay as they are.
            before = {topic.name: topic for topic in await topics_of(self._broker, namespace)}
            unread = [before[name] for name in problems.keys() & before.keys()]
            wanted = bytes_of([*(each.topic for each in declared), *unread])
            async with self._reservations.of_topics(namespace, wanted):
                not_kept = await keeper.keep(declared, unchanged=problems)
            if not_kept != self._told.get(namespace, []):
                # Workers choose their words: each is written once, and a few of them.
                self._told[namespace] = not_kept
                for problem in not_kept[:_MOST_TOLD]:
                    about = {"namespace": namespace, "error": problem, "of": len(not_kept)}
                    log.warning("subscription not kept", extra=about)
        except (TopicFull, TopicsQuotaExceeded, BrokerError) as error:
            problems |= {each.topic.name: error for each in declared}
        present = {topic.name: topic for topic in await topics_of(self._broker, namespace)}
        missed = await self._look_at_missed(keeper, namespace, present.values())
        for thing in things:
            name = thing.metadata.name
            topic = present.get(name)
            subscribed = [each for each in declared if each.topic.name == name]
            missing = sorted(
                {one.queue for each in subscribed for one in each.subscriptions}
                - {queue for of, queue in self._queues if of == namespace}
            )
            locked = [queue for queue in (topic.queues if topic else ()) if self._locked(namespace, queue)]
            status = self._status(thing, topic, problems.get(name), missing, locked)
            by_queue = {queue: each for (of, queue), each in missed.items() if of == name}
            await self._write(thing, self._with_missed(thing, status, by_queue))

    async def _look_at_missed(
        self, keeper: TopicKeeper, namespace: str, topics: Collection[kept.Topic]
    ) -> dict[tuple[str, str], Missed]:
        if not topics:
            self._missed.pop(namespace, None)
            self._figures.take(namespace, {})
            return {}
        missed = self._missed.setdefault(namespace, MissedEvents(self._broker, namespace))
        found = await missed.look(topics, await keeper.time())
        subscribed = {(topic.name, queue): Missed() for topic in topics for queue in topic.queues}
        self._figures.take(namespace, subscribed | found)
        return found

    def _with_missed(self, thing: KeptObject, status: TopicStatus, missed: dict[str, Missed]) -> TopicStatus:
        now = self._clock()
        truth, reason, message = Truth.TRUE, "NothingMissed", "no queue missed an event in the last day"
        lately = {
            queue: each for queue, each in missed.items()
            if each.last_at is not None and now - each.last_at < _LATELY
        }  # fmt: skip
        if lately:
            truth, reason = Truth.FALSE, "EventsMissed"
            message = "; ".join(
                f"queue {queue}: {each.failed} became dead letters, and the retention of {each.expired} "
                "ended before they were copied"
                for queue, each in sorted(lately.items())
            )
        fresh = Condition(
            type=COMPLETE, status=truth, reason=reason, message=message[:_MESSAGE_LENGTH],
            last_transition_time=now, observed_generation=thing.metadata.generation,
        )  # fmt: skip
        return status.model_copy(
            update={
                "conditions": with_condition(status.conditions, fresh),
                "missed": sum(each.total for each in missed.values()),
            }
        )

    def _locked(self, namespace: str, queue: str) -> bool:
        """Return whether a queue takes encrypted tasks only: events are not encrypted."""
        found = self._queues.found((namespace, queue))
        return found is not None and found.queue is not None and refuses_events(found.queue)

    def _status(
        self,
        thing: KeptObject,
        topic: Any,
        problem: GalleyError | None,
        missing: list[str],
        locked: list[str],
    ) -> TopicStatus:
        before = thing.status_as(TopicStatus)
        truth, reason, message = Truth.TRUE, "Active", "events are taken, and copied to the queues"
        if problem is not None:
            hint = f"; {problem.hint}" if problem.hint else ""
            truth, reason, message = Truth.FALSE, problem.reason, f"{problem}{hint}"
        elif missing:
            what = f"there is no TaskQueue {', '.join(missing)}; the events for it are kept for their time"
            truth, reason, message = Truth.FALSE, "QueueNotFound", what
        elif locked:
            truth, reason, message = Truth.FALSE, "QueueEncrypted", refused_by(locked)
        fresh = Condition(
            type=READY, status=truth, reason=reason, message=message[:_MESSAGE_LENGTH],
            last_transition_time=self._clock(), observed_generation=thing.metadata.generation,
        )  # fmt: skip
        return TopicStatus(
            observed_generation=thing.metadata.generation,
            conditions=with_condition(before.conditions, fresh),
            queues=len(topic.queues) if topic is not None else None,
            since=topic.created_at if topic is not None else None,
        )

    async def _write(self, thing: KeptObject, status: TopicStatus) -> None:
        if status != thing.status_as(TopicStatus):
            written = status.model_dump(mode="json", by_alias=True, exclude_none=True)
            await write_status(self._cluster, TOPICS, thing, written)


def _topic(thing: KeptObject) -> Topic:
    """Return a Topic.

    Raises:
        ManifestInvalid: if it is not valid: the API server does not check filters.
    """
    metadata = {"name": thing.metadata.name, "namespace": thing.metadata.namespace}
    return Topic.model_validate({"metadata": metadata, "spec": thing.spec_as(TopicSpec, "Topic")})
