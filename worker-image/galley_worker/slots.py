"""Slots: how many attempts a worker runs, and how many it could."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from galley_worker.circuit import Circuit
from galley_worker.queue_limit import QueueLimit
from galley_worker.runners.runners import Runners
from galley_worker.solitude import Solitude

log = logging.getLogger(__name__)


class Changes:
    """Tells those who listen that slots have become free, or more."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def tell(self) -> None:
        """Call all who listen."""
        for listener in self._listeners:
            try:
                listener()
            except Exception:  # whatever it is, the others hear of it
                log.exception("free slots not noticed")

    @contextmanager
    def heard_by(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call `listener` at each change for the duration of the block."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)


class WorkerSlots:
    """The slots of one worker."""

    def __init__(
        self, runners: Runners, concurrency: int, grown: Changes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Args: grown: told by the runners when they can run more at a time than before."""
        self.busy = 0
        """Attempts under way."""
        self.done = 0
        """Attempts that have ended."""
        self._clock = clock
        self._busy_seconds, self._counted_at = 0.0, clock()
        self.concurrency = concurrency
        self.grown = grown
        self.solitude = Solitude(grown.tell)
        self.circuit: Circuit | None = None
        self.limit: QueueLimit | None = None
        """The limit of the queue, if it has one."""
        self._runners = runners
        runners.changing = self._count

    def take(self) -> None:
        """Count an attempt that begins."""
        try:
            if self.busy <= self.concurrency or self._runners.batched:
                self._count()  # else all slots are busy, before and after
        finally:
            self.busy += 1
        if self.limit is not None:
            self.limit.look()

    def leave(self) -> None:
        """Count an attempt that has ended."""
        try:
            if self.busy <= self.concurrency or self._runners.batched:
                self._count()
        finally:
            self.busy -= 1
            self.done += 1
        if self.limit is not None:
            self.limit.look()

    @property
    def taken(self) -> int:
        """Slots that attempts take: a batch takes one. At least one while any attempt is under way."""
        return max(min(1, self.busy), self.busy - self._runners.sharing)

    @property
    def busy_seconds(self) -> float:
        """Seconds that slots were busy, all together and so far.

        Divided by `done` it is what one attempt takes of a slot. Attempts beyond `concurrency`, which wait
        in the worker while handlers are quick, take none; a batch takes one, from when it is complete.
        """
        self._count()
        return self._busy_seconds

    def _count(self) -> None:
        now, busy = self._clock(), self.busy
        if self._runners.batched:
            busy = max(0, busy - self._runners.sharing - self._runners.waiting)
        busy = min(busy, self.concurrency)
        self._busy_seconds += busy * (now - self._counted_at)
        self._counted_at = now

    @property
    def capacity(self) -> int:
        """Attempts that can be under way at a time; more than `concurrency` while handlers are quick."""
        return self._runners.capacity

    @property
    def free(self) -> int:
        """Attempts that could begin now; none while one is alone on this worker."""
        free = self.unlimited
        return free if self.limit is None else self.limit.room(free)

    @property
    def unlimited(self) -> int:
        """The same if the queue had no limit of its own."""
        if self.solitude.closed:
            return 0
        free = self._runners.capacity - self.busy
        return free if self.circuit is None else self.circuit.room(free, self.busy)

    @property
    def brisk(self) -> bool:
        """Whether slots come free within milliseconds."""
        return self._runners.slots > self.concurrency

    @property
    def supplied(self) -> bool:
        """Whether pulling for more can wait: all slots are busy, and half of what is taken ahead is there.

        A pull for many costs hardly more than one for a single task, and what comes together is handled
        together. Each attempt that ends asks again. What batches gather is pulled at once.
        """
        return not self._runners.batched and 2 * self.busy > self.concurrency + self._runners.slots
