"""Writing statuses: few at once, the latest of each task only, and nothing that already stands there.

A status waits a moment before it is written. What comes meanwhile takes its place, at the earlier of the two
times; so a task that is over soon costs two writes, and one that is over at once a single one.
"""

import asyncio
import heapq
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import (
    ClusterError,
    ObjectConflict,
    ObjectInvalid,
    ObjectNotFound,
    TooManyRequests,
)
from galley_operator.cluster.resource import TASKS
from galley_operator.faults import Faults
from galley_operator.key_queue import Backoff
from galley_operator.status.linger import LINGER_SECONDS
from galley_operator.status.written_status import WrittenStatus, bare, without_result
from galley_operator.tasks.active_tasks import ActiveTask, ActiveTasks

log = logging.getLogger(__name__)

MOST: Final = 16
"""Writes at once; 4 saturate an API server on small machines, 16 one on large ones."""


class Pace:
    """Additive increase, multiplicative decrease, and a pause for as long as the server asked for."""

    def __init__(self, clock: Callable[[], float], most: int = MOST) -> None:
        """Args: clock: seconds that only grow; most: writes at once."""
        self._clock, self._most = clock, most
        self._window = float(most)
        self._paused_until = 0.0

    @property
    def window(self) -> int:
        """How many may be under way now."""
        return int(self._window)

    @property
    def pause(self) -> float:
        """Seconds for which nothing is to be begun."""
        return max(0.0, self._paused_until - self._clock())

    def succeeded(self) -> None:
        """Take in that one was done: after as many as fit into the window, it is one wider."""
        self._window = min(float(self._most), self._window + 1.0 / self._window)

    def refused(self, retry_after: float) -> None:
        """Take in that the server had no room, and when to come back. Refusals of one moment count once."""
        if self._clock() >= self._paused_until:
            self._window = max(1.0, self._window / 2)
        self._paused_until = max(self._paused_until, self._clock() + retry_after)


class _Entry:
    __slots__ = ("due", "refused", "status", "task")

    def __init__(self, task: ActiveTask, status: WrittenStatus, due: float) -> None:
        self.task, self.status, self.due = task, status, due
        self.refused = 0
        """How often the API server did not accept it."""


class _Metadata(Struct):
    uid: str = ""
    resource_version: str = field(default="", name="resourceVersion")


class _Answer(Struct):
    metadata: _Metadata


_answer = msgspec.json.Decoder(_Answer).decode


class StatusWriter:
    """Writes what it is offered for as long as `run` runs."""

    def __init__(self, cluster: Cluster, tasks: ActiveTasks, faults: Faults) -> None:
        self.written = 0
        self.skipped = 0
        """Statuses that stood there already."""
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._cluster, self._tasks, self._faults = cluster, tasks, faults
        self._pace = Pace(self._now)
        self._backoff: Backoff[str] = Backoff(random.random, first=0.5, longest=30.0)
        self._waiting: dict[str, _Entry] = {}
        self._order: list[tuple[float, int, str]] = []
        self._count = 0
        self._in_hand: set[str] = set()
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()

    def offer(self, task: ActiveTask, status: WrittenStatus, linger: float = LINGER_SECONDS) -> None:
        """Have a status written after `linger` seconds, unless another takes its place or it stands there."""
        before = self._waiting.get(task.uid)
        if before is not None and before.status.final and not status.final:
            return
        due = self._now() + linger
        if before is not None and before.due <= due:
            before.status = status
            return
        self._waiting[task.uid] = _Entry(task, status, due)
        self._count += 1
        heapq.heappush(self._order, (due, self._count, task.uid))
        self._changed.set()

    def forget(self, uid: str) -> None:
        """Write nothing more about a task that is gone."""
        self._waiting.pop(uid, None)
        self._backoff.forget(uid)

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as writes:
            while True:
                uid = await self._next()
                self._in_hand.add(uid)
                entry = self._waiting.pop(uid)
                writes.create_task(self._write(entry), name=f"status {uid}")

    async def flush(self, within: float) -> bool:
        """Write at once what waits; returns whether all was written in time. `run` has to go on meanwhile."""
        for uid, entry in self._waiting.items():
            entry.due = self._now()
            self._count += 1
            heapq.heappush(self._order, (entry.due, self._count, uid))
        self._changed.set()
        give_up = self._now() + within
        while len(self) and (left := give_up - self._now()) > 0:
            self._ended.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._ended.wait()
        return not len(self)

    def __len__(self) -> int:
        """Return how many statuses wait or are being written."""
        return len(self._waiting) + len(self._in_hand)

    async def _next(self) -> str:
        """Return the task whose status is due, as soon as one may be written."""
        while True:
            wait = self._pace.pause or (None if len(self._in_hand) >= self._pace.window else 0.0)
            if wait == 0.0:
                uid, wait = self._due()
                if uid is not None:
                    return uid
            self._changed.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _due(self) -> tuple[str | None, float | None]:
        """Return a task whose status is due; if there is none, how long until there is."""
        while self._order:
            due, _, uid = self._order[0]
            entry = self._waiting.get(uid)
            if entry is None or entry.due != due:
                heapq.heappop(self._order)  # another took its place, at another time
            elif uid in self._in_hand:
                # The one before is under way; its end looks again.
                heapq.heappop(self._order)
                entry.due = -1.0
            elif due <= self._now():
                heapq.heappop(self._order)
                return uid, None
            else:
                return None, due - self._now()
        return None, None

    async def _write(self, entry: _Entry) -> None:
        known = self._tasks.get(entry.task.key)
        task = known if known is not None and known.uid == entry.task.uid else entry.task
        try:
            if entry.status.shown == task.shown:
                self.skipped += 1
            else:
                await self._patch(task, entry.status)
                self._pace.succeeded()
            self._backoff.forget(task.uid)
        except ObjectNotFound:
            self._backoff.forget(task.uid)
        except TooManyRequests as refusal:
            self._pace.refused(refusal.retry_after)
            self._again(entry, 0.0)
        except ObjectConflict:
            pause = self._backoff.after_failure(task.uid)
            self._again(entry, pause if await self._reread(entry) else None)
        except ObjectInvalid as error:
            # Better a task that is known to have ended without its result than one that seems to go on.
            log.warning("status refused", extra=_about(task, error))
            entry.refused += 1
            entry.status = without_result(entry.status) if entry.refused == 1 else bare(entry.status)
            self._again(entry, self._backoff.after_failure(task.uid))
        except ClusterError as error:
            log.info("status not written", extra=_about(task, error))
            self._again(entry, self._backoff.after_failure(task.uid))
        except Exception as error:
            self._faults.caught("status written", error, "/".join(task.key))
            self._again(entry, self._backoff.after_failure(task.uid))
        finally:
            self._in_hand.discard(task.uid)
            after = self._waiting.get(task.uid)
            if after is not None and after.due == -1.0:
                after.due = self._now()
                self._count += 1
                heapq.heappush(self._order, (after.due, self._count, task.uid))
            self._changed.set()
            self._ended.set()

    async def _patch(self, task: ActiveTask, status: WrittenStatus) -> None:
        answer = await self._cluster.replace_status(
            TASKS, task.namespace, task.name, task.version, status.body
        )
        self._tasks.written(task, _answer(answer).metadata.resource_version, status.shown)
        self.written += 1

    async def _reread(self, entry: _Entry) -> bool:
        """Learn the present version of a task; returns whether it is still the same one."""
        task = entry.task
        try:
            present = await self._cluster.get(TASKS, task.namespace, task.name)
        except ObjectNotFound:
            return False
        except ClusterError as error:
            log.info("task not read", extra=_about(task, error))
            return True
        metadata: dict[str, Any] = present["metadata"]
        entry.task = replace(task, version=metadata["resourceVersion"])
        self._tasks.written(task, metadata["resourceVersion"])
        return bool(metadata["uid"] == task.uid)

    def _again(self, entry: _Entry, seconds: float | None) -> None:
        """Have a status written later, unless a newer one waits; None means never."""
        if seconds is not None and entry.task.uid not in self._waiting:
            self.offer(entry.task, entry.status, seconds)
            self._waiting[entry.task.uid].refused = entry.refused


def _about(task: ActiveTask, error: ClusterError) -> dict[str, str]:
    return {"task": f"{task.namespace}/{task.name}", "error": str(error), "hint": error.hint}
