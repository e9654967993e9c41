"""Pool: the children that run Python handlers, and the works that wait for one.

A pool of plain functions has a child per running function, made when first needed, the one used last
being used first. The pool of async functions has one child that runs them all. When a child dies, what
certainly had not started goes to another; if several had, nobody knows who did it, and each goes to the
quarantine.
"""

import asyncio
import itertools
import math
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from galley_worker.ending import Crashed, CutOff, NotBegun
from galley_worker.runners.births import Births, Cradle
from galley_worker.runners.execution import Execution
from galley_worker.runners.frames import Ready
from galley_worker.runners.nursery import Nursery
from galley_worker.runners.process import HandlerProcess
from galley_worker.runners.quarantine import Quarantine
from galley_worker.runners.settings import RunnerSettings

SLOW_SECONDS: Final = 0.020
"""How long works may wait behind a running one before they are called back."""
_RECALL_SECONDS: Final = 1.0
"""How long a child may take to answer a recall: long, because C code may hold the interpreter."""
_PACKED_SECONDS: Final = 0.001
"""Work that takes no longer than this in all is queued in a busy child rather than waking an idle one."""


class Pool:
    """Hands works to children of one kind."""

    def __init__(
        self, kind: Literal["plain", "concurrent"], settings: RunnerSettings, nursery: Nursery,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.children: set[HandlerProcess] = set()
        self._settings = settings
        self._clock = clock
        self._plain = kind == "plain"
        self._most = settings.concurrency if self._plain else 1
        self._last = math.inf if settings.recycle_after is None else settings.recycle_after
        self._waiting: deque[Execution] = deque()
        self._idle: list[HandlerProcess] = []
        self._open: HandlerProcess | None = None
        self._births = Births(Cradle(kind, settings, nursery, self, clock), self._resume, self._cut_off)
        self._expected = 0
        self._quarantine = Quarantine(self._births, self._send)
        self._numbers = itertools.count(1)
        self._tick: asyncio.TimerHandle | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()

    # What waits, and who takes it.

    def submit(self, execution: Execution) -> None:
        """Run a work as soon as a child has room."""
        process = self._open
        if process is not None and self._packs(process, execution):
            self._send(process, execution)
        elif self._idle:
            self._send(self._take_idle(), execution)
        else:
            self._waiting.append(execution)
            self._grow()

    def _packs(self, process: HandlerProcess, execution: Execution) -> bool:
        held = len(process.running)
        if self._plain and held * execution.service.seconds >= _PACKED_SECONDS:
            return False
        return self._has_room(process, execution)

    def _has_room(self, process: HandlerProcess, execution: Execution) -> bool:
        if process not in self.children or process.doomed or process.sent >= self._last:
            return False
        held = len(process.running)
        if not self._plain:
            return held < self._settings.concurrency
        if not held:
            return True
        if process.recalling or held >= process.window or held >= execution.service.window:
            return False
        return self._clock() - process.head_since < SLOW_SECONDS

    def _take_idle(self) -> HandlerProcess:
        process = self._idle.pop()
        process.idle = False
        self._open = process
        return process

    def _send(self, process: HandlerProcess, execution: Execution) -> None:
        if process.idle:
            process.idle = False
            self._idle.remove(process)
        process.send(execution, next(self._numbers))
        if self._plain and self._tick is None and len(process.running) > 1:
            self._tick = self._loop.call_later(SLOW_SECONDS, self._call_back)
        elif not self._plain:
            execution.started_at = self._clock()

    def _serve(self) -> None:
        """Give what waits to idle children, or make some."""
        while self._waiting and self._idle:
            self._refill(self._take_idle())
        self._grow()

    def _refill(self, process: HandlerProcess) -> None:
        if process is self._quarantine.inmate:
            if not process.running:
                process.kill()
            return
        waiting = self._waiting
        if waiting:
            share = len(process.running) + 1 + len(waiting) // max(1, len(self.children))
            while waiting and self._has_room(process, waiting[0]):
                if len(process.running) >= share and not self._packs(process, waiting[0]):
                    break
                self._send(process, waiting.popleft())
        if process.running:
            self._open = process
            return
        if process.doomed:
            return
        if process.sent >= self._last:
            self._dismiss(process)
        elif not process.idle:
            process.idle = True
            self._idle.append(process)

    def _dismiss(self, process: HandlerProcess) -> None:
        self._forget(process)
        process.kill()

    def _forget(self, process: HandlerProcess) -> None:
        self.children.discard(process)
        if process.idle:
            process.idle = False
            self._idle.remove(process)
        if self._open is process:
            self._open = None

    def _call_back(self) -> None:
        """Call back what is queued behind a work that turned out to be slow."""
        self._tick = None
        now = self._clock()
        queued = [process for process in self.children if len(process.running) > 1]
        for process in queued:
            if now - process.head_since >= SLOW_SECONDS:
                process.recall()
        if queued:
            self._tick = self._loop.call_later(SLOW_SECONDS, self._call_back)

    # What children tell (Parent).

    def answered(self, process: HandlerProcess) -> None:
        """Give a child more; one that only reports its birth is taken in where it was made."""
        if process in self.children or process is self._quarantine.inmate:
            self._refill(process)

    def gave_back(self, process: HandlerProcess, executions: list[Execution]) -> None:
        """Hand what a child has not started to another, unless it is being stopped."""
        self._requeue(executions)
        if any(execution.because for execution in process.running.values()):
            self._doom(process)
        self._serve()

    def died(self, process: HandlerProcess, detail: str) -> None:
        """Judge what was in a dead child, and replace it."""
        self._forget(process)
        self._births.alive.discard(process)
        left = list(process.running.values())
        begun = set(process.started() if self._plain else left)
        if process.doomed:
            begun.clear()
        process.running.clear()
        self._requeue([execution for execution in left if execution not in begun])
        guilty = [execution for execution in left if execution in begun]
        if len(guilty) == 1:
            guilty[0].end(guilty[0].because or Crashed(detail))
        for execution in guilty:
            if execution.because is not None:
                execution.end(execution.because)
        self._quarantine.left(process)
        self._quarantine.admit([execution for execution in guilty if not execution.ending.done()])
        self._grow(at_least=1 if left else 0)

    def _requeue(self, executions: list[Execution]) -> None:
        for execution in reversed(executions):
            execution.started_at = None
            if execution.because is not None:
                execution.end(execution.because)
            else:
                self._waiting.appendleft(execution)

    # Stopping.

    def stop(self, execution: Execution) -> None:
        """End an execution for the reason it carries."""
        for queue in (self._waiting, self._quarantine.waiting):
            if execution in queue:
                queue.remove(execution)
                execution.end(execution.because)  # type: ignore[arg-type]
                return
        process = next(
            (one for one in self._births.alive if one.running.get(execution.id) is execution), None
        )
        if process is None:
            return
        if not self._plain:
            process.cancel(execution)
            self._loop.call_later(self._settings.kill_grace_seconds, self._insist, process, execution)
        elif len(process.running) == 1:
            self._doom(process)
        else:
            process.recall()
            self._loop.call_later(_RECALL_SECONDS, self._insist, process, execution)

    def _insist(self, process: HandlerProcess, execution: Execution) -> None:
        if process.running.get(execution.id) is execution:
            self._doom(process)

    def _doom(self, process: HandlerProcess) -> None:
        self._forget(process)
        process.kill()

    def sweep(self, now: float) -> list[Execution]:
        """Return the executions that have run longer than they may."""
        late = []
        for process in self._births.alive:
            for execution in process.running.values():
                begun = execution.started_at
                if begun is not None and now - begun > execution.work.timeout:
                    late.append(execution)
                if self._plain:
                    break
        return late

    def slow(self, now: float) -> int:
        """Return how many slots are taken by works that are not quick."""
        if self._plain:
            return sum(1 for one in self.children if one.running and now - one.head_since > SLOW_SECONDS)
        return sum(
            1 for one in self.children for execution in one.running.values()
            if execution.started_at is not None and now - execution.started_at > SLOW_SECONDS
        )  # fmt: skip

    def release(self, now: float) -> None:
        """End as `NotBegun` what waits while every child is held by a slow work."""
        if not self._waiting or self._closed or self._births.paused or self._births.failures:
            return
        if not self.children:
            return  # one is being replaced, and takes them soon
        if self._plain:
            if any(not one.running or now - one.head_since <= SLOW_SECONDS for one in self.children):
                return
            soon = self._expected
        else:
            held = [execution for one in self.children for execution in one.running.values()]
            if any(now - (execution.started_at or now) <= SLOW_SECONDS for execution in held):
                return
            soon = self._expected * self._settings.concurrency
        while len(self._waiting) > soon:
            self._waiting.pop().end(NotBegun("every slot is held by a slow handler"))

    # Births.

    async def first(self) -> Ready:
        """Make the first child and return which handlers it found.

        Raises:
            ModuleImportFailed: if a module does not import.
        """
        process, hello = await self._births.bear()
        self.children.add(process)
        process.idle = True
        self._idle.append(process)
        return hello

    def _grow(self, at_least: int = 0) -> None:
        if self._closed or self._births.paused:
            return
        room = self._most - len(self.children) - self._expected
        if self._births.failures:
            room = min(room, 1 - self._expected)
        wanted = max(len(self._waiting), at_least) - self._expected
        for _ in range(min(room, wanted)):
            self._expected += 1
            self._births.begin(self._take_in)

    def _take_in(self, process: HandlerProcess | None) -> None:
        self._expected -= 1
        if process is None:
            return
        if self._closed or len(self.children) >= self._most:
            process.kill()
            return
        self.children.add(process)
        if not self._plain:
            self._open = process
        self._refill(process)

    def _resume(self) -> None:
        self._quarantine.proceed()
        self._grow()

    def _cut_off(self, why: str) -> None:
        for execution in self._waiting:
            execution.end(CutOff(why))
        self._waiting.clear()
        self._quarantine.cut_off(why)

    async def close(self, why: str) -> None:
        """End what is left as cut off, and every child."""
        self._closed = True
        if self._tick is not None:
            self._tick.cancel()
        await self._births.close()
        self._cut_off(why)
        for process in list(self._births.alive):
            for execution in process.running.values():
                execution.because = execution.because or CutOff(why)
            process.kill()
        if self._births.alive:
            await asyncio.wait([process.gone for process in self._births.alive], timeout=10)
