"""Starter: starts the children of a pool, and pauses when one after the other fails."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from galley_worker.errors import ModuleImportFailed, StartHookFailed, WorkerError
from galley_worker.runners.child.entry import STARTING, Setup
from galley_worker.runners.fork_server import ForkServer
from galley_worker.runners.frames import Broken, Ready
from galley_worker.runners.process import HandlerProcess, Parent
from galley_worker.runners.settings import RunnerSettings

_FAILURES: Final = 5
"""Starts that may fail in a row before the works that wait are cut off."""
_PAUSE_SECONDS: Final = (0.05, 5.0)
"""After the first failure, and at most; each failure in a row doubles it."""


@dataclass(frozen=True, slots=True)
class ChildFactory:
    """What it takes to make a child of one kind."""

    kind: Literal["plain", "concurrent"]
    settings: RunnerSettings
    fork_server: ForkServer
    parent: Parent
    clock: Callable[[], float]

    async def make(self, *, first: bool) -> HandlerProcess:
        """Make a child, which then begins to import.

        Args:
            first: whether the child may choose its kind by the handlers it finds.

        Raises:
            OSError: if the operating system does not allow it.
        """
        settings = self.settings
        setup = Setup(
            settings.queue, (*settings.preload, *settings.modules), settings.import_paths,
            "first" if first else self.kind, settings.log_level,
        )  # fmt: skip
        child = await self.fork_server.fork(setup)
        return HandlerProcess(child, self.fork_server, settings, self.parent, self.clock)


class Starter:
    """Makes children, and pauses after failures."""

    def __init__(
        self, factory: ChildFactory, resumed: Callable[[], None], give_up: Callable[[str], None]
    ) -> None:
        self.alive: set[HandlerProcess] = set()
        """Every child that was made and is not gone."""
        self.failures = 0
        """Starts that failed in a row."""
        self.paused = False
        self._factory = factory
        self._resumed = resumed
        self._give_up = give_up
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._all = False

    def log_all(self, on: bool) -> None:
        """Have the handlers of all children, and of those to come, log from DEBUG on, or as before."""
        self._all = on
        for process in self.alive:
            process.log_all(on)

    async def start(self, *, first: bool = False) -> tuple[HandlerProcess, Ready]:
        """Make a child and return it with the handlers it found.

        Raises:
            ModuleImportFailed: if a module does not import, or not in time.
            StartHookFailed: if a start hook raises.
        """
        seconds = self._factory.settings.import_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._start(first)
        except TimeoutError:
            raise self._import_failed(f"it did not finish within {seconds:g} s") from None
        except OSError as error:
            raise self._import_failed(f"its process could not be made ({error})") from error

    async def _start(self, first: bool) -> tuple[HandlerProcess, Ready]:
        process = await self._factory.make(first=first)
        self.alive.add(process)
        try:
            await process.connect()
            hello = await process.hello
        except BaseException:
            process.kill()
            raise
        if isinstance(hello, Ready):
            if self._all:
                process.log_all(True)
            return process, hello
        process.kill()
        await process.gone
        if isinstance(hello, Broken):
            error = StartHookFailed if hello.stage == STARTING else ModuleImportFailed
            raise error(hello.name, hello.place, hello.problem, hello.trace)
        raise self._import_failed("its process died while importing it")

    def _import_failed(self, problem: str) -> ModuleImportFailed:
        return ModuleImportFailed(", ".join(self._factory.settings.modules), "", problem)

    def begin(self, take: Callable[[HandlerProcess | None], None]) -> bool:
        """Make a child in the background and hand it to `take`, or None if that fails.

        Returns:
            Whether it was begun; it is not once it is closed.
        """
        if self._closed:
            return False
        task = asyncio.get_running_loop().create_task(self._bring(take), name="start of a child")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _bring(self, take: Callable[[HandlerProcess | None], None]) -> None:
        try:
            process, _ = await self.start()
        except WorkerError as error:
            take(None)
            self._failed(error)
            return
        self.failures = 0
        take(process)

    def _failed(self, error: Exception) -> None:
        if self.paused:
            return
        self.failures += 1
        if self.failures >= _FAILURES:
            self._give_up(f"no child process survives its start: {error}")
        self.paused = True
        first, most = _PAUSE_SECONDS
        pause = min(most, first * 2 ** min(self.failures, 10))
        self._timer = asyncio.get_running_loop().call_later(pause, self._resume)

    def _resume(self) -> None:
        self.paused = False
        if not self._closed:
            self._resumed()

    async def close(self) -> None:
        """Make no more, and give up those on their way."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
