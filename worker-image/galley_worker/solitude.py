"""Solitude: an attempt that has to be alone on its worker waits for the others, and others wait for it."""

import asyncio
from collections.abc import Callable
from typing import Final

_FIRST_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 64.0
AWAY_TIMES: Final = 5
"""It stays away for so many times as long as it waited, so that it idles a sixth of a worker at most."""


def patience(before: int) -> float | None:
    """Return for how many seconds an attempt may hold up a worker to be alone; None: as long as it takes.

    It doubles each time, and has no limit after some minutes: otherwise a worker that is never idle would
    never run it.

    Args:
        before: how often it waited in vain.
    """
    seconds = _FIRST_SECONDS * 2.0 ** min(before, 60)
    return seconds if seconds <= _LONGEST_SECONDS else None


class Solitude:
    """Counts the attempts of a worker, and lets one of them be alone when it has to be."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        """Args: changed: called when other attempts may begin again."""
        self._changed = changed
        self._running = 0
        self._claimants = 0
        self.closed = False
        """Whether an attempt is alone, or waits until it is: no other begins meanwhile."""
        self._turn = asyncio.Lock()
        self._idle, self._open = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._open.set()

    async def enter(self) -> None:
        """Begin an attempt, once none is alone any more."""
        while self._claimants:
            await self._open.wait()
        self.enter_at_once()

    def leave(self) -> None:
        """End an attempt that was not alone."""
        self._running -= 1
        if not self._running:
            self._idle.set()

    async def alone(self, within: float | None = None) -> bool:
        """Wait until the other attempts have ended; no other begins before `leave_alone`.

        For an attempt that has entered.

        Args:
            within: seconds to wait at most; None waits for the longest of the others, whose times are
                limited.

        Returns:
            Whether it is alone. If not, others may begin again, and it has still entered.
        """
        try:
            async with asyncio.timeout(within):
                await self._wait()
        except TimeoutError:
            return False
        return True

    async def _wait(self) -> None:
        self._claimants += 1
        self.closed = True
        self._open.clear()
        self.leave()
        try:
            await self._turn.acquire()
            try:
                await self._idle.wait()
            except BaseException:
                self._turn.release()
                raise
        except BaseException:
            self.enter_at_once()
            self._give_up()
            raise

    def leave_alone(self) -> None:
        """End an attempt that was alone."""
        self._turn.release()
        self._give_up()

    def enter_at_once(self) -> None:
        """Begin an attempt while it is not `closed`."""
        if not self._running:
            self._idle.clear()
        self._running += 1

    def _give_up(self) -> None:
        self._claimants -= 1
        if not self._claimants:
            self.closed = False
            self._open.set()
            self._changed()
