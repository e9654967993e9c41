"""Collecting the streams of queues that are gone, once they have been gone for long enough."""

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Final

from galley.broker.connection import Broker
from galley.broker.errors import BrokerUnreachable
from galley.broker.orphans import Kept, collect, collect_namespace, kept_queues, mark_orphaned
from galley.errors import GalleyError
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ObjectNotFound
from galley_operator.cluster.resource import TASKQUEUES
from galley_operator.credentials.queue_secrets import QueueSecrets
from galley_operator.settings import OperatorSettings

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 300.0
"""Time between two looks; streams are kept for longer by as much at most."""


class StreamCollector:
    """Marks streams whose queue is gone, and deletes those marked for long enough. `run` goes on doing so."""

    def __init__(
        self,
        cluster: Cluster,
        broker: Broker,
        settings: OperatorSettings,
        queues_in: Callable[[str], Collection[tuple[str, str]] | None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        secrets: QueueSecrets | None = None,
    ) -> None:
        """Describe what is collected.

        Args:
            cluster: where TaskQueues are.
            broker: where streams are.
            settings: of the operator.
            queues_in: returns the queues there are in a namespace, None if that is not known: it is left
                alone then.
            clock: the present time.
            secrets: forgets the accounts of a queue; None if NATS requires no credentials.
        """
        self._cluster, self._broker, self._settings = cluster, broker, settings
        self._secrets = secrets
        self._queues_in, self._clock = queues_in, clock

    async def run(self) -> None:
        """Look again and again until cancelled; errors are logged."""
        while True:
            pause = min(LOOK_SECONDS, self._settings.orphan_seconds / 4)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
            try:
                await self.sweep()
            except GalleyError as error:
                log.warning("streams not collected", extra={"error": str(error), "hint": error.hint})

    async def sweep(self) -> None:
        """Look once. What cannot be done for one queue keeps none of the others.

        Raises:
            BrokerUnreachable: if the broker does not answer; the next look goes on where it was.
        """
        for kept in await kept_queues(self._broker, self._settings.install):
            there = self._queues_in(kept.namespace)
            if there is None or (kept.namespace, kept.queue) in there:
                continue
            try:
                await self._look_at(kept, in_use=bool(there))
            except BrokerUnreachable:
                raise
            except GalleyError as error:
                labels = {"namespace": kept.namespace, "queue": kept.queue}
                log.warning(
                    "streams of a queue not collected",
                    extra=labels | {"error": str(error), "hint": error.hint},
                )

    async def _look_at(self, kept: Kept, *, in_use: bool) -> None:
        now = self._clock()
        labels = {"namespace": kept.namespace, "queue": kept.queue}
        if await self._exists(kept):
            return
        if kept.orphaned_at is None:
            await mark_orphaned(self._broker, kept.namespace, kept.queue, now)
            log.info("queue is gone, its streams are kept", extra=labels)
        elif (now - kept.orphaned_at).total_seconds() >= self._settings.orphan_seconds:
            if self._secrets is not None:
                await self._secrets.forget(kept.namespace, kept.queue)
            await collect(self._broker, kept.namespace, kept.queue)
            log.info("streams collected", extra=labels | {"gone_since": kept.orphaned_at})
            left = {each.namespace for each in await kept_queues(self._broker, self._settings.install)}
            if not in_use and kept.namespace not in left:
                await collect_namespace(self._broker, kept.namespace)

    async def _exists(self, kept: Kept) -> bool:
        """Ask for this one queue: a listing may be as old as a sweep, and what is deleted is deleted."""
        try:
            await self._cluster.get(TASKQUEUES, kept.namespace, kept.queue)
        except ObjectNotFound:
            return False
        return True
