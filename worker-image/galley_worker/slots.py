"""Slots: how many attempts a worker runs, and how many it could."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from galley_worker.runners.runners import Runners


class Changes:
    """Tells those who listen that slots have become free, or more."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def tell(self) -> None:
        """Call all who listen."""
        for listener in self._listeners:
            listener()

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

    def __init__(self, runners: Runners, concurrency: int, grown: Changes) -> None:
        """Args: grown: told by the runners when they can run more at a time than before."""
        self.busy = 0
        """Attempts under way."""
        self.concurrency = concurrency
        self.grown = grown
        self._runners = runners

    @property
    def capacity(self) -> int:
        """Attempts that can be under way at a time; more than `concurrency` while handlers are quick."""
        return self._runners.capacity

    @property
    def free(self) -> int:
        """Attempts that could begin now."""
        return self._runners.capacity - self.busy

    @property
    def brisk(self) -> bool:
        """Whether slots come free within milliseconds."""
        return self._runners.capacity > self.concurrency
