"""Unexpected exceptions: each costs the one Task, queue or loop that raised it, and is logged and counted."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from galley.errors import GalleyError
from galley_operator.errors import OperatorFault

log = logging.getLogger(__name__)

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

    def caught(self, where: str, error: Exception, about: str = "") -> OperatorFault:
        """Log and count an exception; returns it as an error for a condition.

        Args:
            where: the place, as the metric names it.
            error: what was raised.
            about: the Task, queue or record that it costs.
        """
        self.seen += 1
        self._count(where)
        log.error("unexpected error", exc_info=error, extra={"where": where, "about": about})
        return OperatorFault(error)

    async def keep_running(self, where: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` until it returns; if it raises, run it again after a pause that grows.

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
            pause = _FIRST_PAUSE if loop.time() - began > _LONGEST_PAUSE else min(pause * 2, _LONGEST_PAUSE)
            await asyncio.sleep(pause)
