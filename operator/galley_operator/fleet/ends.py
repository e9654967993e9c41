"""How workers ended, written where the worker that takes over their tasks finds it.

So the evidence (exit code, OOMKilled, evicted) is in the history of each task that ran there, and in its dead
letter: see `galley_worker.claimant`. It decides nothing, and a note that is lost is missed by people alone.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from galley.broker.connection import Broker
from galley.broker.notes import put_end
from galley.note import END_LIMIT, WorkerEnd
from galley_operator.fleet.pods import Pod
from galley_operator.fleet.trouble import end_of

_KEPT: Final = 1000
_WAITING: Final = 1000


class WorkerEnds:
    """Writes down how workers ended. `run` does so until it is cancelled."""

    def __init__(self, broker: Broker, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._broker, self._now = broker, now
        self._written: dict[str, str] = {}
        """What was written last, by the uid of the pod."""
        self._waiting: asyncio.Queue[tuple[str, str, str, WorkerEnd]] = asyncio.Queue(_WAITING)

    def see(self, queue: tuple[str, str], pod: Pod) -> None:
        """Take in a pod that was changed or is gone."""
        end = end_of(pod)
        if end is None or self._written.get(pod.uid) == end.message or self._waiting.full():
            return
        self._written[pod.uid] = end.message
        if len(self._written) > _KEPT:
            del self._written[next(iter(self._written))]
        container = pod.container
        ended = container.state.terminated or container.last_state.terminated
        at = ended.finished_at if ended is not None else None
        self._waiting.put_nowait((*queue, pod.name, WorkerEnd(at or self._now(), end.message[:END_LIMIT])))

    async def run(self) -> None:
        """Write until cancelled; what the broker does not take is left out."""
        while True:
            namespace, queue, worker, end = await self._waiting.get()
            await put_end(self._broker, namespace, queue, worker, end)
