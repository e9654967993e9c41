"""Pool: the children that run Python handlers, and the works that wait for one.

A pool of plain functions has a child per running function, made when first needed, the one used last
being used first. The pool of async functions has one child that runs them all, and another while a handler
blocks the event loop of the first. A child that has run its number of tasks, or grown too large, gets no more
work and leaves when it is idle; another takes its place meanwhile.
"""

import asyncio
import itertools
import math
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from galley_worker.ending import CutOff, NotBegun, TimedOut
from galley_worker.runners.blame import Quarantine, blame
from galley_worker.runners.execution import Execution
from galley_worker.runners.fork_server import ForkServer
from galley_worker.runners.frames import Ready
from galley_worker.runners.process import HandlerProcess, Holder
from galley_worker.runners.settings import RunnerSettings
from galley_worker.runners.starter import ChildFactory, Starter

SLOW_SECONDS: Final = 0.020
"""How long works may wait behind a running one before they are called back."""
RELEASE_SECONDS: Final = 0.1
"""How long every slot has to be held before what waits goes to another worker, which costs a claim each. On a
busy machine a process of quick handlers may stand still for some tens of milliseconds."""
STARVED_SECONDS: Final = 0.5
"""How long a child may take to begin what it was given before that counts as slow, too."""
_RECALL_SECONDS: Final = 1.0
"""How long a child may take to answer a recall: long, because C code may hold the interpreter."""
BLOCKED_SECONDS: Final = 0.5
"""How long one async handler may keep the event loop before new work goes to another child."""
STUCK_SECONDS: Final = 1.0
"""After so long without giving the event loop back, a handler that is to stop is killed, not asked."""
_DEATH_SECONDS: Final = 10.0
_PACKED_SECONDS: Final = 0.001
"""Work that takes no longer than this in all is queued in a busy child rather than waking an idle one."""
STARTS: Final = 2
"""Children that are begun at once. Each needs a processor to import, as those do that run, and quick works
have ended by the time it is ready."""
_STARTS_SECONDS: Final = 0.02
"""After this, as many more are begun if works still wait: those are not that quick."""


class Pool:
    """Hands works to children of one kind."""

    def __init__(
        self, kind: Literal["plain", "concurrent"], settings: RunnerSettings, fork_server: ForkServer,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.children: set[HandlerProcess] = set()
        self._settings = settings
        self._clock = clock
        self._plain = kind == "plain"
        self._most = settings.concurrency if self._plain else 1
        self._at_once = 1 if self._plain else settings.concurrency
        """Works that a child runs at a time; more wait in it, behind quick ones."""
        self._last = math.inf if settings.recycle_tasks is None else settings.recycle_tasks
        self._waiting: deque[Execution] = deque()
        self._idle: list[HandlerProcess] = []
        self._open: HandlerProcess | None = None
        self._starter = Starter(
            ChildFactory(kind, settings, fork_server, self, clock), self._resume, self._cut_off
        )
        self._expected = 0
        self._quarantine = Quarantine(self._starter, self._send)
        self._numbers = itertools.count(1)
        self._tick: asyncio.TimerHandle | None = None
        self._more: asyncio.TimerHandle | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()

    def log_all(self, on: bool) -> None:
        """Have handlers log from DEBUG on, or as before."""
        self._starter.log_all(on)

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
        if (
            process not in self.children
            or process.ended_by_us
            or process.blocked
            or process.worn
            or process.sent >= self._last
        ):
            return False
        held = len(process.running)
        if not self._plain and len(self._starter.alive) > 1:
            # Also counts what still runs in a child that is blocked or about to leave.
            return sum(len(one.running) for one in self._starter.alive) < self._at_once
        if held < self._at_once:
            return True
        ahead = held - self._at_once + 1
        if process.recalling or ahead >= process.window or ahead >= execution.service.window:
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
        if self._tick is None and len(process.running) > self._at_once:
            self._tick = self._loop.call_later(SLOW_SECONDS, self._call_back)
        if not self._plain:
            execution.started_at = self._clock()

    def _serve(self) -> None:
        """Give what waits to idle children, or make some."""
        while self._waiting and self._idle:
            self._refill(self._take_idle())
        self._grow()

    def _refill(self, process: HandlerProcess) -> None:
        if process is self._quarantine.child:
            if not process.running:
                process.leave()
            return
        waiting = self._waiting
        if waiting:
            share = len(process.running) + 1 + len(waiting) // max(1, len(self.children))
            while waiting and self._has_room(process, waiting[0]):
                if len(process.running) >= share and not self._packs(process, waiting[0]):
                    break
                self._send(process, waiting.popleft())
        if process.ended_by_us:
            return
        if self._worn(process):
            self._retire(process)
        elif process.running:
            self._open = process
        elif not process.idle:
            process.idle = True
            self._idle.append(process)

    def _worn(self, process: HandlerProcess) -> bool:
        """Whether a child is to be replaced: as worn, after its tasks, by its size, or as one too many."""
        limit = self._settings.recycle_bytes
        return (
            process.worn
            or process.sent >= self._last
            or (limit is not None and process.memory() > limit)
            or (not self._plain and not process.running and len(self.children) > self._most)
        )

    def _retire(self, process: HandlerProcess) -> None:
        """Give a child no more work, and have it end in order once it has none."""
        self._forget(process)
        if not process.running:
            process.leave()
        elif self._plain and process.sent < self._last:
            process.recall()
        self._grow()

    def _forget(self, process: HandlerProcess) -> None:
        self.children.discard(process)
        if process.idle:
            process.idle = False
            self._idle.remove(process)
        if self._open is process:
            self._open = None

    def _call_back(self) -> None:
        """Call back what is queued behind works that turned out to be slow."""
        self._tick = None
        now = self._clock()
        queued = [process for process in self.children if len(process.running) > self._at_once]
        if queued:
            self._tick = self._loop.call_later(SLOW_SECONDS, self._call_back)
        for process in queued:
            if self._slow_in(process, now):
                process.recall()

    # What children tell (Parent).

    def answered(self, process: HandlerProcess) -> None:
        """Give a child more; one that only reports its start is taken in by `_take_in`."""
        if process in self.children or process is self._quarantine.child:
            self._refill(process)
        elif not process.running and not process.ended_by_us and process.sent:
            process.leave()
            self._grow()
        if self._waiting and not self._plain:
            # A slot that is free in one child may be used in another.
            for other in list(self.children):
                self._refill(other)

    def gave_back(self, process: HandlerProcess, executions: list[Execution]) -> None:
        """Hand what a child has not started to another, unless it is being stopped."""
        self._requeue(executions)
        if self._plain and any(execution.because for execution in process.running.values()):
            self._kill(process)
        self._serve()

    def died(self, process: HandlerProcess, detail: str) -> None:
        """Judge what was in a dead child, and replace it."""
        self._forget(process)
        self._starter.alive.discard(process)
        left = list(process.running.values())
        begun = process.begun()
        holder = process.holder()
        culprit = (begun[-1] if begun else None) if self._plain else (holder.execution if holder else None)
        process.running.clear()
        self._requeue([execution for execution in left if execution not in begun])
        suspects = blame(begun, culprit, detail, ours=process.ended_by_us)
        for execution in suspects:
            self._settings.notice(
                execution.work, f"its process died ({detail}) with {len(begun)} attempts in it; "
                "this attempt is run again, alone, to find the one that caused it",
            )  # fmt: skip
        self._quarantine.left(process)
        self._quarantine.admit(suspects)
        self._grow(at_least=1 if left else 0)

    def _requeue(self, executions: list[Execution]) -> None:
        for execution in reversed(executions):
            execution.started_at = execution.asked_at = None
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
            (one for one in self._starter.alive if one.running.get(execution.id) is execution), None
        )
        if process is None:
            return
        if process.withdraw(execution):
            execution.end(execution.because)  # type: ignore[arg-type]
            if not process.running:
                self.answered(process)  # it is idle, and gets no answer that says so
            return
        if not self._plain:
            self._stop_async(process, execution)
        elif len(process.running) == 1:
            self._kill(process)
        else:
            process.recall()
            self._loop.call_later(_RECALL_SECONDS, self._insist, process, execution)

    def _stop_async(self, process: HandlerProcess, execution: Execution) -> None:
        holder = process.holder()
        if holder is not None and holder.execution is execution and holder.held >= STUCK_SECONDS:
            self._kill(process, f"it blocked the event loop for {holder.held:.1f} s")
            return
        process.cancel(execution)
        self._loop.call_later(self._settings.kill_grace_seconds, self._insist, process, execution)

    def _insist(self, process: HandlerProcess, execution: Execution) -> None:
        if process.running.get(execution.id) is not execution:
            return
        holder = None if self._plain else process.holder()
        if holder is not None and holder.execution is not execution:
            # Another one blocks the loop: this one can obey only once that has ended.
            self._loop.call_later(self._settings.kill_grace_seconds, self._insist, process, execution)
            return
        self._kill(process, "it did not stop when it was asked to")

    def _kill(self, process: HandlerProcess, why: str = "") -> None:
        self._forget(process)
        process.kill(why)

    def sweep(self, now: float) -> list[Execution]:
        """Return the executions that have run longer than they may."""
        late = []
        for process in list(self._starter.alive):
            if self._plain:
                head = next(iter(process.running.values()), None)
                late += [head] if head is not None and _late(head, now) else []
            else:
                late += self._late_in(process, now)
        return late

    def _late_in(self, process: HandlerProcess, now: float) -> list[Execution]:
        """Return the async handlers that are late. While one blocks the loop, no other one can be."""
        holder = process.holder()
        self._watch_loop(process, holder)
        if process.blocked and holder is not None:
            execution = holder.execution
            return [execution] if holder.ran > execution.work.timeout else []
        late = []
        for execution in process.running.values():
            if not _late(execution, now):
                continue
            if execution.certain:
                late.append(execution)
            elif execution.asked_at is None:
                process.ask(execution)
            elif now - execution.asked_at > self._settings.kill_grace_seconds and execution.because is None:
                self._give_up_on(process)
                break
        return late

    def _watch_loop(self, process: HandlerProcess, holder: Holder | None) -> None:
        """Note whether one handler keeps the event loop; new work then goes to another child."""
        was, process.blocked = process.blocked, holder is not None and holder.held >= BLOCKED_SECONDS
        if process.blocked and holder is not None and not was:
            self._settings.notice(
                holder.execution.work, "it blocks the event loop, so other async tasks of this process wait: "
                "await what it waits for, use asyncio.to_thread, or make the handler a plain function",
            )  # fmt: skip
            if process.idle:
                process.idle = False
                self._idle.remove(process)
            if self._open is process:
                self._open = None
            self._grow()
        elif was and not process.blocked:
            for execution in process.running.values():
                # Asked while the loop was blocked: what the child says now counts.
                execution.asked_at = None if not execution.certain else execution.asked_at
            if process in self.children:
                self._refill(process)

    def _give_up_on(self, process: HandlerProcess) -> None:
        """Kill a child whose event loop does not answer, and which does not show whose code runs in it."""
        begun = process.begun()
        if len(begun) == 1:
            begun[0].because = TimedOut(begun[0].work.timeout)
        self._forget(process)
        process.kill("its event loop did not answer", ours=False)

    @property
    def load(self) -> int:
        """Works that run or wait."""
        held = sum(len(one.running) for one in self._starter.alive)
        return held + len(self._waiting) + len(self._quarantine.waiting)

    def slow(self, now: float) -> int:
        """Return how many slots are taken by works that are not quick."""
        return self._running_beyond(SLOW_SECONDS, now)

    def _running_beyond(self, seconds: float, now: float) -> int:
        return sum([self._slow_in(process, now, seconds) for process in self.children])

    def _slow_in(self, process: HandlerProcess, now: float, seconds: float = SLOW_SECONDS) -> int:
        """Return how many of the works that a child runs have taken longer than so many seconds.

        What has not begun is none of them: its child waits for a processor, and on a busy machine so would
        the next one, or another worker.
        """
        if not self._plain:
            since = [(one, now - (one.started_at or now)) for one in process.running.values()]
        else:
            since = [(one, now - process.head_since) for one in itertools.islice(process.running.values(), 1)]
        return sum(
            [taken > seconds and (taken > STARVED_SECONDS or process.has_begun(one)) for one, taken in since]
        )

    def release(self, now: float) -> int:
        """End as `NotBegun` what waits while every child runs a slow work; return how many."""
        if not self._waiting or self._closed or self._starter.paused or self._starter.failures:
            return 0
        if not self.children:
            return 0  # one is being replaced, and takes them soon
        if self._plain:
            busy, soon = len(self.children), self._most - self._taken()
        else:
            busy = sum([len(one.running) for one in self.children])
            soon = self._expected * self._settings.concurrency
        if self._running_beyond(RELEASE_SECONDS, now) < busy:
            return 0
        released = max(0, len(self._waiting) - soon)
        for _ in range(released):
            self._waiting.pop().end(NotBegun("every slot is held by a slow handler"))
        return released

    # Children that start.

    async def first(self) -> tuple[HandlerProcess, Ready]:
        """Make the first child and return it with the handlers it found; a pool has to adopt it.

        Raises:
            ModuleImportFailed: if a module does not import.
            StartHookFailed: if a start hook raises.
        """
        process, hello = await self._starter.start(first=True)
        self._starter.alive.discard(process)
        return process, hello

    def adopt(self, process: HandlerProcess) -> None:
        """Take in a child that is ready and idle."""
        process.parent = self
        self._starter.alive.add(process)
        self.children.add(process)
        process.idle = True
        self._idle.append(process)

    def _grow(self, at_least: int = 0, starts: int = 0) -> None:
        """Begin children for what waits: `starts`, or until `STARTS` are on their way. More follow."""
        if self._closed or self._starter.paused:
            return
        room = self._most - self._taken() - self._expected
        if self._starter.failures:
            room = min(room, 1 - self._expected)
        wanted = max(len(self._waiting), at_least) - self._expected
        missing = min(room, wanted)
        for _ in range(min(missing, max(starts, STARTS - self._expected))):
            missing -= 1
            self._expected += 1
            self._starter.begin(self._take_in)
        if missing > 0 and self._more is None:
            self._more = self._loop.call_later(_STARTS_SECONDS, self._grow_more)

    def _grow_more(self) -> None:
        self._more = None
        self._grow(starts=STARTS)

    def _taken(self) -> int:
        """Return how many children there are that count: not those that are blocked, or get no more work."""
        if not self._plain:
            return sum(not one.blocked and one.sent < self._last for one in self.children)
        # One that is about to leave holds its slot as long as it runs something.
        return len(self.children | {one for one in self._starter.alive if one.running})

    def _take_in(self, process: HandlerProcess | None) -> None:
        self._expected -= 1
        if process is None:
            return
        if self._closed or self._taken() >= self._most:
            process.leave()
            return
        self.children.add(process)
        if not self._plain:
            self._open = process
        self._refill(process)
        self._grow()

    def _resume(self) -> None:
        self._quarantine.proceed()
        self._grow()

    def _cut_off(self, why: str) -> None:
        for execution in self._waiting:
            execution.end(CutOff(why))
        self._waiting.clear()
        self._quarantine.cut_off(why)

    async def close(self, why: str) -> None:
        """End what is left as cut off, and every child: idle ones in order, others at once."""
        self._closed = True
        for timer in (self._tick, self._more):
            if timer is not None:
                timer.cancel()
        await self._starter.close()
        self._cut_off(why)
        for process in list(self._starter.alive):
            for execution in process.running.values():
                execution.because = execution.because or CutOff(why)
            if process.running or not process.hello.done():
                process.kill()
            else:
                process.leave()
        if self._starter.alive:
            seconds = self._settings.leave_seconds + _DEATH_SECONDS
            await asyncio.wait([process.gone for process in self._starter.alive], timeout=seconds)


def _late(execution: Execution, now: float) -> bool:
    return execution.started_at is not None and now - execution.started_at > execution.work.timeout
