"""Looking at queues again and again: what waits and runs, which workers there are, and how fast tasks end."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from galley.broker import counts, queue_view, topology
from galley.broker.connection import Broker
from galley.broker.control import Supply, ask_supply
from galley.broker.counts import Counted, CountReader
from galley.broker.errors import BrokerError, BrokerRefused
from galley.broker.queue_view import QueueView
from galley.broker.waiting_keys import count_waiting

_WINDOW = 12


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """One queue at one time; what is not known is None."""

    view: QueueView
    running: int
    waiting: int
    """Tasks a free slot would take."""
    keyed: int
    """Tasks that wait under their keys: for a turn, a permit, or a start that the rate allows."""
    supply: Supply | None
    succeeded_per_second: float | None
    failed_per_second: float | None
    retried_per_second: float | None

    @property
    def paused_by(self) -> list[str]:
        """All that keeps its tasks from being started although workers could run them."""
        return queue_view.pauses_of(paused=self.view.paused, supply=self.supply)

    @property
    def workers(self) -> str:
        """How many are ready, of how many that are wanted."""
        if self.supply is None or "desired" not in self.supply.workers:
            return ""
        return f"{self.supply.workers.get('ready', 0)}/{self.supply.workers['desired']}"


class Overview:
    """Looks at the queues of a namespace; rates are those of the last looks, a minute of them at most."""

    def __init__(self, broker: Broker, namespace: str, queue: str | None, clock: Callable[[], float]) -> None:
        """Args: queue: only this one; clock: monotonic, in seconds."""
        self._broker, self._namespace, self._queue, self._clock = broker, namespace, queue, clock
        self._reader = CountReader(broker)
        self._seen: dict[str, list[tuple[float, Counted]]] = {}

    async def look(self) -> list[QueueFigures]:
        """Return the queues as they are now, by name.

        Raises:
            QueueNotFound: if there is no such queue.
            BrokerUnreachable: if the broker does not answer.
        """
        if self._queue is None:
            views = await queue_view.queues(self._broker, self._namespace)
        else:
            views = [await queue_view.queue(self._broker, self._namespace, self._queue)]
        return list(await asyncio.gather(*(self._figures(view) for view in views)))

    async def _figures(self, view: QueueView) -> QueueFigures:
        supply = None
        with suppress(BrokerError):
            supply = await ask_supply(self._broker, view.namespace, view.queue)
        running, here, due = await self._in_lanes(view)
        keyed = 0
        if view.held > here:  # what is not in a lane waits to be planned, or under a key
            keyed = await count_waiting(self._broker, view.namespace, view.queue)
        waiting = max(0, view.held - keyed + due - running)
        counted = await self._reader.read(view.namespace, view.queue)
        seen = self._seen.setdefault(view.queue, [])
        seen.append((self._clock(), counted))
        del seen[:-_WINDOW]

        def rate(name: str) -> float | None:
            (began, before), (ended, now) = seen[0], seen[-1]
            if ended <= began:
                return None
            more = sum(number for *_, number in now.of(name)) - sum(number for *_, number in before.of(name))
            return max(0, more) / (ended - began)

        return QueueFigures(
            view, running, waiting, keyed, supply,
            rate(counts.SUCCEEDED), rate(counts.FAILED), rate(counts.RETRIED),
        )  # fmt: skip

    async def _in_lanes(self, view: QueueView) -> tuple[int, int, int]:
        """Return how many tasks run, how many lanes of the work stream have, and how many others are due."""
        place = view.namespace, view.queue
        streams = topology.work_stream(*place), topology.later_stream(*place)
        asked = [(stream, lane) for stream in streams for lane in view.lanes]

        async def held(stream: str, lane: str) -> tuple[int, int]:
            try:
                figures = await self._broker.api(f"look at lane {lane}", f"CONSUMER.INFO.{stream}.{lane}")
            except BrokerRefused:  # the lane was just removed
                return 0, 0
            return int(figures["num_ack_pending"]), int(figures["num_pending"])

        found = await asyncio.gather(*(held(stream, lane) for stream, lane in asked))
        work, later = found[: len(view.lanes)], found[len(view.lanes) :]
        return sum(each for each, _ in found), sum(map(sum, work)), sum(map(sum, later))
