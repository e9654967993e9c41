"""Solitude: an attempt that has to be alone on its worker waits for the others, and others wait for it."""

import asyncio
from collections.abc import Callable


class Solitude:
    """Counts the attempts of a worker, and lets one of them be alone when it has to be."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        """Args: changed: called when other attempts may begin again."""
        self._changed = changed
        self._running = 0
        self._claimants = 0
        self._turn = asyncio.Lock()
        self._idle, self._open = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._open.set()

    @property
    def closed(self) -> bool:
        """Whether an attempt is alone, or waits until it is: no other begins meanwhile."""
        return self._claimants > 0

    async def enter(self) -> None:
        """Begin an attempt, once none is alone any more."""
        while self._claimants:
            await self._open.wait()
        self._begin()

    def leave(self) -> None:
        """End an attempt that was not alone."""
        self._running -= 1
        if not self._running:
            self._idle.set()

    async def alone(self) -> None:
        """Wait until the other attempts have ended; no other begins before `leave_alone`.

        For an attempt that has entered. It waits for the longest of the others, whose times are limited.
        """
        self._claimants += 1
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
            self._begin()
            self._give_up()
            raise

    def leave_alone(self) -> None:
        """End an attempt that was alone."""
        self._turn.release()
        self._give_up()

    def _begin(self) -> None:
        self._running += 1
        self._idle.clear()

    def _give_up(self) -> None:
        self._claimants -= 1
        if not self._claimants:
            self._open.set()
            self._changed()
