"""Deletes objects that no task refers to in all queues of an installation, whether or not they have workers.

The operator and `galley dev` run it. The workers of a queue look at its objects, too, and more often: the
one that looked last keeps the others from it for two minutes. Queues whose streams of objects are empty cost
nothing but their place in a listing, and a queue of which nothing could be deleted is left alone for longer
each time.
"""

import asyncio
import functools
import logging
import random
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Final, TypeAlias

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.listing import all_streams
from galley.broker.object_sweep import Sweep, Swept
from galley.broker.objects import Place
from galley.broker.stream_kind import StreamKind, name_of
from galley.errors import GalleyError

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 300.0
"""Time between two looks at all queues."""

LONGEST_REST: Final = 12
"""Looks that a queue is left out of at most, after nothing could be deleted: an hour."""

Caught: TypeAlias = Callable[[str, Exception, str], object]


def _logged(where: str, error: Exception, about: str) -> None:
    log.error("unexpected error", exc_info=error, extra={"where": where, "about": about})


class ObjectCollector:
    """`run` looks at all queues of an installation, one after the other, now and then."""

    def __init__(
        self,
        broker: Broker,
        install: str,
        is_ours: Callable[[str], bool] = lambda _namespace: True,
        pause: Callable[[], float] = lambda: LOOK_SECONDS * random.uniform(0.8, 1.2),  # noqa: S311 - spreads load
        *,
        now: Callable[[], datetime] | None = None,
        caught: Caught = _logged,
    ) -> None:
        """Describe what is looked at.

        Args:
            broker: a connection with the rights to all streams.
            install: whose streams are looked at.
            is_ours: returns whether a namespace is looked at.
            pause: returns the seconds until the next look.
            now: the time of day.
            caught: takes an unexpected exception: its place, it, and what it costs.
        """
        self._caught = caught
        self._broker, self._install, self._is_ours, self._pause = broker, install, is_ours, pause
        self._now = now
        self._rests: dict[Place, tuple[int, int]] = {}
        """Looks that a queue is still left out of, and of how many."""

    async def run(self) -> None:
        """Look again and again until cancelled. A failure is logged, and the next look goes on."""
        while True:
            await asyncio.sleep(self._pause())
            try:
                await self.once()
            except GalleyError as error:
                log.warning("objects not looked through", extra={"error": str(error), "hint": error.hint})

    async def once(self) -> int:
        """Look at each queue whose turn it is; returns how many objects were deleted.

        Raises:
            BrokerError: if the queues cannot be listed. What goes wrong with one of them is logged.
        """
        deleted, seen = 0, set()
        async for place in self._filled():
            seen.add(place)
            left, rest = self._rests.get(place, (0, 0))
            if left:
                self._rests[place] = left - 1, rest
                continue
            try:
                swept = await self._sweep(place)
            except GalleyError as error:
                about = {"namespace": place.namespace, "queue": place.queue, "error": str(error)}
                log.warning("objects not looked through", extra=about)
                continue
            except Exception as error:  # one queue must not keep the others from their turn
                self._caught("objects", error, f"{place.namespace}/{place.queue}")
                continue
            rest = 0 if swept.deleted or swept.leaving else min(2 * rest + 1, LONGEST_REST)
            self._rests[place] = rest, rest
            deleted += swept.deleted
        self._rests = {place: rests for place, rests in self._rests.items() if place in seen}
        return deleted

    async def _sweep(self, place: Place) -> Swept:
        remove = functools.partial(self._broker.objects.remove, place)
        sweep = Sweep(self._broker, place, remove, self._now)
        if not await sweep.taken():
            return Swept()
        swept = await sweep.run()
        if swept.deleted:
            about = {"namespace": place.namespace, "queue": place.queue, "deleted": swept.deleted}
            log.info("objects deleted", extra={**about, "bytes": swept.bytes})
        return swept

    async def _filled(self) -> AsyncIterator[Place]:
        """Yield the queues whose streams of objects hold something."""
        async for stream in all_streams(self._broker):
            config = stream["config"]
            metadata = config.get("metadata") or {}
            namespace = metadata.get(topology.NAMESPACE_KEY, "")
            place = Place(namespace, metadata.get(topology.QUEUE_KEY, ""))
            if (
                stream["state"]["messages"]
                and metadata.get(topology.OWNER_KEY) == self._install
                and config["name"] == name_of(StreamKind.OBJECTS, *place)
                and self._is_ours(namespace)
            ):
                yield place
