"""Runners: everything a worker can run, behind one `start`."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Protocol, Self

from galley.errors import HandlerExists, HandlersMissing
from galley.record import Failure
from galley_worker.ending import NotBegun, Raised, TimedOut
from galley_worker.runners.batches import Batches
from galley_worker.runners.commands import Commands
from galley_worker.runners.execution import FAST_SECONDS, PREFETCH, Execution, Service
from galley_worker.runners.fork_server import ForkServer
from galley_worker.runners.frames import HandlerRules
from galley_worker.runners.pool import Pool
from galley_worker.runners.settings import RunnerSettings
from galley_worker.work import Work

SWEEP_SECONDS: Final = 0.1
"""How often timeouts are looked at: one look at all, rather than a timer for each."""

REST_SECONDS: Final = 5.0
"""The same while there is no work: ten looks a second at nothing are three quarters of what a worker at rest
costs."""

_RELEASED_SECONDS: Final = 0.5
"""After works were released, none are taken ahead for so long, or into the room of a batch."""

_CLOSE_SECONDS: Final = 0.02
"""How often handlers are looked at while works wait behind quick ones, which may turn out slow."""

_FIRST_LOOKS: Final = 5
"""Looks in which a worker finds out how quick its handlers are. They follow closely upon each other: it was
probably started since there is a backlog."""


class Runner(Protocol):
    """Runs the works of one kind of handler."""

    def submit(self, execution: Execution) -> None:
        """Run a work as soon as there is room."""

    def stop(self, execution: Execution) -> None:
        """End an execution for the reason it carries."""

    def sweep(self, now: float) -> list[Execution]:
        """Return the executions that have run longer than they may."""

    @property
    def load(self) -> int:
        """How many slots are taken."""

    def slow(self, now: float) -> int:
        """Return how many slots are taken by works that are not quick."""

    def release(self, now: float) -> int:
        """End as `NotBegun` what waits while every slot has a slow work; return how many."""

    async def close(self, why: str) -> None:
        """End what is left as cut off, and every process; those that are idle in order."""


class Runners:
    """Starts works. When it is left, every process it made is gone."""

    def __init__(
        self,
        settings: RunnerSettings,
        clock: Callable[[], float] = time.monotonic,
        grown: Callable[[], None] = lambda: None,
    ) -> None:
        """Describe the runners; they start when entered.

        Args:
            settings: which handlers there are.
            clock: monotonic seconds.
            grown: called when `capacity` has become larger though no work ended.
        """
        self.handlers: frozenset[str] = frozenset()
        """Names of the handlers; known once entered."""
        self.rules: dict[str, HandlerRules] = {}
        """What `@task` says of some of them."""
        self._settings = settings
        self._clock = clock
        self._by_name: dict[str, tuple[Runner, Service]] = {}
        self.changing: Callable[[], None] = lambda: None
        """Called before works begin or cease to share a slot."""
        self._runners: list[Runner] = []
        self._batches: dict[str, Batches] = {}
        self.batched = False
        """Whether some handler gets batches; without one, each work takes a slot of its own."""
        self._shut_until: float | None = None
        """Until when batches have no room, since works of other handlers came into it."""
        self._slow = 0
        self._mean = FAST_SECONDS
        self._ahead = 0
        self._grown = grown
        self._close_look = False
        self._rests = False
        self._first_looks = _FIRST_LOOKS
        """Those that are left."""
        self._looked_ahead_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._exits = ExitStack()

    async def __aenter__(self) -> Self:
        """Import the modules, in a child.

        Raises:
            ModuleImportFailed: if one does not import.
            StartHookFailed: if a start hook raises.
            HandlersMissing: if there is no command and no URL, and the modules have no handler of the queue.
            HandlerExists: if two handlers have the same name.
            SigningKeysInvalid: if the keys of an HTTP handler cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        self._sweep()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _open(self) -> None:
        settings = self._settings
        commands = Commands(settings, self._clock)
        self._runners.append(commands)
        for command in settings.commands:
            self._by_name[command.name] = commands, Service()
        if settings.http:
            self._open_http()
        if settings.modules:
            fork_server = self._exits.enter_context(ForkServer(settings.preload, settings.import_paths))
            plain = Pool("plain", settings, fork_server, self._clock)
            concurrent = Pool("concurrent", settings, fork_server, self._clock)
            self._runners += plain, concurrent
            process, found = await plain.first()
            (concurrent if found.several else plain).adopt(process)
            self.rules = found.rules
            for names, pool in ((found.plain, plain), (found.concurrent, concurrent)):
                for name in names:
                    if name in self._by_name:
                        other = "a command" if commands.knows(name) else "an HTTP handler"
                        raise HandlerExists(settings.queue, name, other, "a Python function")
                    self._by_name[name] = self._in_front(name, pool), Service()
        self.handlers = frozenset(self._by_name)
        if not self.handlers:
            raise HandlersMissing(settings.queue, ", ".join(settings.modules))

    def _open_http(self) -> None:
        from galley_worker.runners.webhooks import (  # noqa: PLC0415 - most workers need no HTTP client
            Webhooks,
        )

        webhooks = Webhooks(self._settings, self._clock)
        self._runners.append(webhooks)
        for handler in self._settings.http:
            if handler.name in self._by_name:
                raise HandlerExists(self._settings.queue, handler.name, "a command", "an HTTP handler")
            self._by_name[handler.name] = webhooks, Service()

    def _in_front(self, name: str, pool: Pool) -> Runner:
        """Return what takes the works of a handler: the pool, or what gathers batches for it."""
        rules = self.rules.get(name)
        if rules is None or rules.batch is None:
            return pool
        batches = Batches(rules.batch, pool, self._settings.concurrency, self._clock, self._told)
        self._batches[name] = batches
        self.batched = True
        # Before the pools, so that what is not on its way is ended first.
        self._runners.insert(0, batches)
        return batches

    def quick(self, name: str) -> bool:
        """Return whether a handler has ended within milliseconds lately, and takes its tasks one by one."""
        known = self._by_name.get(name)
        return known is not None and name not in self._batches and known[1].window > 1

    def log_all(self, on: bool) -> None:
        """Have Python handlers log from DEBUG on, or as before."""
        for runner in self._runners:
            if isinstance(runner, Pool):
                runner.log_all(on)

    def _told(self, *, before: bool) -> None:
        (self.changing if before else self._grown)()

    async def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*(runner.close("the worker stops") for runner in self._runners))
        await asyncio.to_thread(self._exits.close)

    def start(self, work: Work) -> Execution:
        """Begin a work, or have it wait for the next free process. Never blocks, never raises."""
        known = self._by_name.get(work.handler)
        if known is None:
            return self._not_found(work)
        runner, service = known
        execution = Execution(work, service, runner.stop)
        if self._batches and self._is_astray(runner, work):
            self._shut_until = self._clock() + _RELEASED_SECONDS
            execution.end(NotBegun("every slot is taken, and the room that is left is for a batch"))
            return execution
        runner.submit(execution)
        if self._rests:
            self._rests = False
            self._look_in(SWEEP_SECONDS)
        if not self._close_look and (self._ahead or self._first_looks):
            self._look_closely()
        return execution

    def _is_astray(self, runner: Runner, work: Work) -> bool:
        """Whether a work came into the room of a batch that it is no member of.

        Who pulls does not know the handlers of what comes. If such works waited here, they would take the
        slot that is kept for the batch, and those of a long backlog would take it again and again.
        """
        if isinstance(runner, Batches) and runner.room and not work.apart:
            return False
        if not any(one.room for one in self._batches.values()):
            return False
        return sum(one.load for one in self._runners) >= self.slots

    def _not_found(self, work: Work) -> Execution:
        execution = Execution(work, Service(), lambda _execution: None)
        known = ", ".join(sorted(self.handlers)) or "none"
        message = f"no handler {work.handler!r} in queue {work.queue!r}; known here: {known}"
        execution.end(Raised(Failure("HandlerNotFound", message), retryable=False))
        return execution

    @property
    def capacity(self) -> int:
        """Works that may be started and not ended at one time, for now.

        `concurrency`, and up to sixteen more per slot that is not held by a slow work, while handlers are
        so quick that waiting in a child costs less than waiting at the broker. A batch takes one slot, and
        what has room in the one that is gathered may come.
        """
        if not self._batches:
            return self.slots
        room = sum([one.room for one in self._batches.values()]) if self._shut_until is None else 0
        return self.slots + self.sharing + room

    @property
    def slots(self) -> int:
        """The same without what batches have room for."""
        concurrency = self._settings.concurrency
        return concurrency + self._ahead * max(0, concurrency - self._slow)

    @property
    def sharing(self) -> int:
        """Works under way that take no slot of their own: all but one of each batch."""
        return sum([one.sharing for one in self._batches.values()]) if self._batches else 0

    @property
    def waiting(self) -> int:
        """Slots that are kept for batches which are gathered, and so not busy yet."""
        return sum([one.gathers for one in self._batches.values()]) if self._batches else 0

    @property
    def batch_sizes(self) -> dict[str, Counter[int]]:
        """How many batches of each size there were, by handler."""
        return {name: one.sizes for name, one in self._batches.items()}

    def _look_closely(self) -> None:
        self._close_look = True
        self._look_in(_CLOSE_SECONDS)

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        try:
            self._look()
        finally:
            self._rests = self._shut_until is None and not any(one.load for one in self._runners)
            if self._rests:
                self._close_look = False
            pause = REST_SECONDS if self._rests else SWEEP_SECONDS
            self._look_in(_CLOSE_SECONDS if self._close_look else pause)

    def _look(self) -> None:
        now = self._clock()
        before = self.capacity
        if self._shut_until is not None and now >= self._shut_until:
            self._shut_until = None
        slow = 0
        for runner in self._runners:
            for execution in runner.sweep(now):
                execution.stop(TimedOut(execution.work.timeout))
            slow += runner.slow(now)
        self._slow = slow
        if now - self._looked_ahead_at >= (_CLOSE_SECONDS if self._first_looks else SWEEP_SECONDS):
            self._looked_ahead_at = now
            self._look_ahead()
        # After the capacity is known to be smaller, so that what is given back does not come again at once.
        if sum([runner.release(now) for runner in self._runners]):
            # Whatever is taken ahead now would be released soon, too.
            self._ahead = 0
            self._looked_ahead_at = now + _RELEASED_SECONDS
        if self.capacity > before:
            self._grown()
        # Closely for as long as something slow runs; otherwise the next start looks closely again.
        self._close_look = bool(self._ahead and slow)

    def _look_ahead(self) -> None:
        services = [service for _, service in self._by_name.values() if service.runs]
        if not services:
            return
        self._first_looks = max(0, self._first_looks - 1)
        mean = sum(service.total for service in services) / sum(service.runs for service in services)
        for service in services:
            service.runs, service.total = 0, 0.0
        self._mean += (mean - self._mean) / 2
        self._ahead = min(PREFETCH, int(FAST_SECONDS / self._mean)) if self._mean < FAST_SECONDS else 0
