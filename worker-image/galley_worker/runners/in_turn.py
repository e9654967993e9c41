"""What runs a bounded number of works at once in the event loop: the rest waits for its turn."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

from galley.history import MESSAGE_LIMIT
from galley_worker.ending import Crashed, CutOff, Finish, NotBegun
from galley_worker.runners.execution import Execution

log = logging.getLogger(__name__)

END_SECONDS = 10.0
"""How long to wait for what is interrupted at the end."""


class InTurn(ABC):
    """A runner of works that are each a task of the event loop, at most `concurrency` at a time."""

    def __init__(self, kind: str, concurrency: int, clock: Callable[[], float]) -> None:
        """Args: kind: what one work is, as a noun; concurrency: works at once; clock: monotonic seconds."""
        self._kind, self._concurrency, self._clock = kind, concurrency, clock
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Execution] = deque()
        self._running: dict[Execution, asyncio.Task[None]] = {}

    @abstractmethod
    async def _execute(self, execution: Execution) -> Finish:
        """Run one work and return how it ended; sets `started_at` once it has begun."""

    @abstractmethod
    def _interrupt(self, execution: Execution, *, at_once: bool) -> None:
        """End a work that runs."""

    def submit(self, execution: Execution) -> None:
        """Run a work as soon as there is room."""
        if len(self._running) >= self._concurrency:
            self._waiting.append(execution)
            return
        name = f"{self._kind} {execution.work.task_id}"
        self._running[execution] = self._loop.create_task(self._run(execution), name=name)

    def stop(self, execution: Execution) -> None:
        """End an execution for the reason it carries."""
        if execution in self._waiting:
            self._waiting.remove(execution)
            execution.end(execution.because)  # type: ignore[arg-type]
        elif execution in self._running:
            self._interrupt(execution, at_once=False)

    def sweep(self, now: float) -> list[Execution]:
        """Return the executions that have run longer than they may."""
        return [
            execution for execution in self._running
            if execution.started_at is not None and now - execution.started_at > execution.work.timeout
        ]  # fmt: skip

    @property
    def load(self) -> int:
        """Works that run or wait."""
        return len(self._running) + len(self._waiting)

    def slow(self, _now: float) -> int:
        """Return how many slots are taken: none of these works is expected to be quick."""
        return len(self._running)

    def release(self, _now: float) -> int:
        """End as `NotBegun` what waits, since no work ends soon; return how many those were."""
        released = len(self._waiting)
        while self._waiting:
            self._waiting.pop().end(NotBegun(f"every slot is held by a {self._kind}"))
        return released

    async def close(self, why: str) -> None:
        """End what is left as cut off."""
        for execution in self._waiting:
            execution.end(CutOff(why))
        self._waiting.clear()
        for execution in list(self._running):
            execution.because = execution.because or CutOff(why)
            self._interrupt(execution, at_once=True)
        if self._running:
            await asyncio.wait(self._running.values(), timeout=END_SECONDS)

    async def _run(self, execution: Execution) -> None:
        try:
            execution.end(await self._execute(execution))
        except Exception as error:
            log.exception("unexpected error", extra={"where": self._kind, "task": execution.work.task_id})
            execution.end(
                Crashed(f"the {self._kind} failed: {type(error).__name__}: {error}"[:MESSAGE_LIMIT])
            )
        finally:
            execution.end(Crashed(f"the {self._kind} could not be followed to its end"))
            del self._running[execution]
            if self._waiting:
                self.submit(self._waiting.popleft())
