"""Topics of `galley dev`: those of the manifests, and those that code subscribes to."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerError
from galley.broker.missed_events import MissedEvents
from galley.broker.topic_keeper import Declared, TopicKeeper, code_body
from galley.broker.topics import declare_code, topics_of
from galley.errors import TopicFull
from galley.lanes import Lane
from galley.resources.topic import refused_by, refuses_events
from galley.topic import Subscribe
from galley_local.module import Module, file_of
from galley_local.plan import LocalQueue
from galley_local.queue_runtime import INSTALL

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 5.0


class LocalTopics:
    """Keeps the topics of one namespace. `run` does so until it is cancelled."""

    def __init__(self, broker: Broker, namespace: str, say: Callable[[str], None]) -> None:
        self.namespace = namespace
        self._broker, self._namespace, self._say = broker, namespace, say
        self._keeper = TopicKeeper(broker, namespace, INSTALL)
        self._missed = MissedEvents(broker, namespace)
        self._declared: list[Declared] = []
        self._changed = asyncio.Event()
        self._told: list[str] = []
        self._locked: set[str] = set()
        self._subscribing: set[str] = set()
        """Queues whose code subscribes."""

    async def begin(self, declared: Iterable[Declared], queues: Iterable[LocalQueue]) -> None:
        """Make the topics before anything is published.

        Raises:
            QueueConflict, TopicFull, BrokerRefused, BrokerUnreachable: as `TopicKeeper.keep`.
        """
        self._declared = list(declared)
        there = list(queues)
        self._locked = {queue.name[1] for queue in there if refuses_events(queue.resource)}
        served = [queue for queue in there if queue.name[0] == self._namespace]
        await self._keeper.keep(self._declared, implied=True, expected=any(map(may_subscribe, served)))
        for queue in served:
            handlers, lanes = _subscriptions(queue.given, queue.name[1])
            if handlers:
                self._subscribing.add(queue.name[1])
                await declare_code(self._broker, *queue.name, code_body(handlers, lanes))
        await self.keep()

    def declare(self, declared: Iterable[Declared]) -> None:
        """Take over what changed manifests say."""
        self._declared = list(declared)
        self._changed.set()

    async def keep(self) -> None:
        """Make the topics what is asked for.

        Raises:
            QueueConflict, TopicFull, BrokerRefused, BrokerUnreachable: as `TopicKeeper.keep`.
        """
        problems = await self._keeper.keep(self._declared, implied=True)
        if topics := await topics_of(self._broker, self._namespace):
            await self._missed.look(topics, await self._keeper.time())
        of_objects = {one.queue for each in self._declared for one in each.subscriptions}
        if locked := sorted(self._locked & (of_objects | self._subscribing)):
            problems.append(refused_by(locked))
        for problem in problems:
            if problem not in self._told:
                self._say(problem)
        self._told = problems

    async def run(self) -> None:
        """Keep them whenever a worker says what its code subscribes to, and now and then."""

        async def hear(_message: object) -> None:
            self._changed.set()

        subject = topology.code_subscriptions_subject(self._namespace, "*")
        subscription = await self._broker.subscribe(subject, hear)
        try:
            while True:
                try:
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._changed.wait()
                except TimeoutError:
                    pass
                self._changed.clear()
                try:
                    await self.keep()
                except (BrokerError, TopicFull) as error:
                    log.warning("topics not kept", extra={"error": str(error)})
        finally:
            self._broker.unsubscribe(subscription)


def may_subscribe(queue: LocalQueue) -> bool:
    """Return whether the code of a queue may subscribe to topics, which a worker that starts declares.

    By its text: a stream that is made in vain costs little.
    """
    files = (file_of(name, queue.import_paths) for name in queue.resource.spec.worker.modules)
    return any(b"subscribe" in file.read_bytes() for file in files if file is not None)


def _subscriptions(
    modules: Iterable[Module], queue: str
) -> tuple[dict[str, tuple[Subscribe, ...]], dict[str, Lane]]:
    handlers: dict[str, tuple[Subscribe, ...]] = {}
    lanes: dict[str, Lane] = {}
    for module in modules:
        for name, (several, lane) in module.subscribes.get(queue, {}).items():
            handlers[name] = several
            if lane is not None:
                lanes[name] = lane
    return handlers, lanes
