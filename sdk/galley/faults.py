"""Unexpected exceptions: each costs the one thing that raised it, and is logged and counted."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, ParamSpec

from galley.errors import GalleyError

log = logging.getLogger(__name__)

P = ParamSpec("P")

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0


class Faults:
    """Counts and logs exceptions that are not expected."""

    def __init__(
        self,
        count: Callable[[str], None] = lambda _: None,
        interrupted: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Describe them.

        Args:
            count: is told where each happened.
            interrupted: is told which loop an error of ours ended, such as a broker that is away.
        """
        self.seen = 0
        self._count, self._interrupted = count, interrupted

    def caught(self, where: str, error: Exception, about: str = "") -> Exception:
        """Log and count an exception; returns it as it is to be shown.

        Args:
            where: the place, as the metric names it.
            error: what was raised.
            about: the Task, queue or record that it costs.
        """
        self.seen += 1
        self._count(where)
        log.error("unexpected error", exc_info=error, extra={"where": where, "about": about})
        return error

    def guarded(self, where: str, call: Callable[P, object]) -> Callable[P, None]:
        """Return what calls `call`, and raises nothing."""

        def guard(*args: P.args, **named: P.kwargs) -> None:
            try:
                call(*args, **named)
            except Exception as error:
                self.caught(where, error)

        return guard

    async def keep_running(
        self, where: str, work: Callable[[], Awaitable[None]], longest: float = _LONGEST_PAUSE
    ) -> None:
        """Run `work` until it returns; if it raises, again after a pause that grows to `longest` seconds.

        A `GalleyError` is logged as a warning, without a traceback.
        """
        loop, pause = asyncio.get_running_loop(), _FIRST_PAUSE
        while True:
            began = loop.time()
            try:
                await work()
            except GalleyError as error:
                self._interrupted(where)
                log.warning("interrupted", extra={"where": where, "error": str(error), "hint": error.hint})
            except Exception as error:
                self.caught(where, error)
            else:
                return
            pause = _FIRST_PAUSE if loop.time() - began > _LONGEST_PAUSE else pause * 2
            pause = min(pause, longest)
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def beside(
        self, where: str, work: Callable[[], Awaitable[None]], longest: float = _LONGEST_PAUSE
    ) -> AsyncIterator[None]:
        """Keep `work` running for the duration of the block."""
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self.keep_running(where, work, longest), name=where)
            yield
            running.cancel()
