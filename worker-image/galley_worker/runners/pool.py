"""Pool: the children that run Python handlers, and the works that wait for one.

A pool of plain functions has a child per running function, made when first needed, the one used last
being used first. The pool of async functions has one child that runs them all. When a child dies, what
certainly had not started goes to another; if several had, nobody knows who did it, and each is run again
alone (quarantine.py).
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from galley_worker.ending import Crashed, CutOff
from galley_worker.errors import ModuleImportFailed
from galley_worker.runners.child.entry import Birth
from galley_worker.runners.execution import Execution
from galley_worker.runners.frames import Broken, Ready
from galley_worker.runners.nursery import Nursery
from galley_worker.runners.process import HandlerProcess
from galley_worker.runners.settings import RunnerSettings

IMPORT_SECONDS: Final = 120.0
"""How long a child may take to import its modules."""
SLOW_SECONDS: Final = 0.020
"""How long works may wait behind a running one before they are called back."""
_RECALL_SECONDS: Final = 1.0
"""How long a child may take to answer a recall: long, because C code may hold the interpreter."""
_PACKED_SECONDS: Final = 0.001
"""Work that takes no longer than this in all is queued in a busy child rather than waking an idle one."""
_BIRTHS: Final = 5
"""Births that may fail in a row before the works that wait are cut off."""
_BACKOFF_SECONDS: Final = (0.05, 5.0)


class Pool:
    """Hands works to children of one kind."""

    def __init__(
        self, kind: Literal["plain", "concurrent"], settings: RunnerSettings, nursery: Nursery,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.children: set[HandlerProcess] = set()
        self._kind = kind
        self._settings = settings
        self._nursery = nursery
        self._clock = clock
        self._plain = kind == "plain"
        self._most = settings.concurrency if self._plain else 1
        self._waiting: deque[Execution] = deque()
        self._suspects: deque[Execution] = deque()
        self._alone: HandlerProcess | None = None
        self._idle: list[HandlerProcess] = []
        self._open: HandlerProcess | None = None
        self._births: set[asyncio.Task[None]] = set()
        self._all: set[HandlerProcess] = set()
        self._failures = 0
        self._backing_off = False
        self._isolating: asyncio.Task[None] | None = None
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
        if not self._has_room(process, execution):
            return False
        return not self._plain or held * execution.service.seconds < _PACKED_SECONDS

    def _has_room(self, process: HandlerProcess, execution: Execution) -> bool:
        if process not in self.children or process.doomed or self._retires(process):
            return False
        held = len(process.running)
        if not self._plain:
            return held < self._settings.concurrency
        if not held:
            return True
        return not process.recalling and held < min(process.window, execution.service.window) and (
            self._clock() - process.head_since < SLOW_SECONDS
        )  # fmt: skip

    def _retires(self, process: HandlerProcess) -> bool:
        return self._settings.recycle_after is not None and process.sent >= self._settings.recycle_after

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
        if process is self._alone:
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
        if self._retires(process):
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
        if process in self.children or process is self._alone:
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
        self._all.discard(process)
        left = list(process.running.values())
        begun = set(process.started() if self._plain else left)
        if self._alone is process:
            self._alone = None
        if process.doomed:
            begun.clear()
        process.running.clear()
        self._requeue([execution for execution in left if execution not in begun])
        guilty = [execution for execution in left if execution in begun]
        if len(guilty) == 1:
            guilty[0].end(guilty[0].because or Crashed(detail))
        else:
            self._suspects.extend(guilty)
        if not self._closed:
            self._isolate()
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
        for queue in (self._waiting, self._suspects):
            if execution in queue:
                queue.remove(execution)
                execution.end(execution.because)  # type: ignore[arg-type]
                return
        process = next((one for one in self._all if one.running.get(execution.id) is execution), None)
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
        for process in self._all:
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

    # Births.

    async def first(self) -> Ready:
        """Make the first child and return which handlers it found.

        Raises:
            ModuleImportFailed: if a module does not import.
        """
        process, hello = await self._bear()
        self.children.add(process)
        process.idle = True
        self._idle.append(process)
        return hello

    async def _bear(self) -> tuple[HandlerProcess, Ready]:
        settings = self._settings
        birth = Birth(settings.queue, settings.modules, settings.import_paths, self._kind)
        try:
            born = await self._nursery.bear(birth)
        except OSError as error:
            raise self._import_failed(f"its process could not be made ({error})") from error
        process = HandlerProcess(born, self._nursery, settings, self, self._clock)
        self._all.add(process)
        await process.connect()
        try:
            hello = await asyncio.wait_for(process.hello, IMPORT_SECONDS)
        except TimeoutError:
            process.kill()
            raise self._import_failed(f"it had not finished after {IMPORT_SECONDS:g} s") from None
        if isinstance(hello, Ready):
            return process, hello
        process.kill()
        await process.gone
        if isinstance(hello, Broken):
            raise ModuleImportFailed(hello.module, hello.place, hello.problem)
        raise self._import_failed("its process died over it")

    def _import_failed(self, problem: str) -> ModuleImportFailed:
        return ModuleImportFailed(", ".join(self._settings.modules), "", problem)

    def _grow(self, at_least: int = 0) -> None:
        if self._closed or self._backing_off:
            return
        room = self._most - len(self.children) - len(self._births)
        if self._failures:
            room = min(room, 1 - len(self._births))
        wanted = max(len(self._waiting) - len(self._births), at_least - len(self._births))
        for _ in range(min(room, wanted)):
            birth = self._loop.create_task(self._add(), name=f"birth of a {self._kind} child")
            self._births.add(birth)
            birth.add_done_callback(self._births.discard)

    async def _add(self) -> None:
        try:
            process, _ = await self._bear()
        except (ModuleImportFailed, OSError) as error:
            self._births.discard(asyncio.current_task())
            self._failed(error)
            return
        self._births.discard(asyncio.current_task())
        self._failures = 0
        if self._closed or len(self.children) >= self._most:
            process.kill()
            return
        self.children.add(process)
        if not self._plain:
            self._open = process
        self._refill(process)

    def _failed(self, error: Exception) -> None:
        if self._backing_off:
            return
        self._failures += 1
        if self._failures >= _BIRTHS:
            for execution in (*self._waiting, *self._suspects):
                execution.end(CutOff(f"no child process survives its start: {error}"))
            self._waiting.clear()
            self._suspects.clear()
        self._backing_off = True
        first, most = _BACKOFF_SECONDS
        self._loop.call_later(min(most, first * 2 ** min(self._failures, 10)), self._try_again)

    def _try_again(self) -> None:
        self._backing_off = False
        self._isolate()
        self._grow()

    # Suspects: each alone in a fresh child, one at a time.

    def _isolate(self) -> None:
        if self._closed or self._backing_off or self._isolating or self._alone or not self._suspects:
            return
        self._isolating = self._loop.create_task(self._run_alone(), name="birth of a child for a suspect")

    async def _run_alone(self) -> None:
        try:
            process, _ = await self._bear()
        except (ModuleImportFailed, OSError) as error:
            self._isolating = None
            self._failed(error)
            return
        self._isolating = None
        self._failures = 0
        if self._closed or not self._suspects:
            process.kill()
            return
        self._alone = process
        self._send(process, self._suspects.popleft())

    async def close(self, why: str) -> None:
        """End what is left as cut off, and every child."""
        self._closed = True
        if self._tick is not None:
            self._tick.cancel()
        births = {*self._births, self._isolating} - {None}
        if births:
            await asyncio.wait(births, timeout=10)  # type: ignore[type-var]
        for execution in (*self._waiting, *self._suspects):
            execution.end(CutOff(why))
        for process in list(self._all):
            for execution in process.running.values():
                execution.because = execution.because or CutOff(why)
            process.kill()
        if self._all:
            await asyncio.wait([process.gone for process in self._all], timeout=10)
