"""Stop: that a worker was told to end, and how urgently."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


class Stop:
    """Set once, by signals, and waited for by all parts of a worker."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        """Take no more tasks, and end when running attempts have ended."""
        self.urgent = asyncio.Event()
        """Do not wait for running attempts any longer."""

    def signal(self) -> None:
        """Ask for the end; a second time, for it to be at once."""
        if self.asked.is_set():
            self.urgent.set()
        self.asked.set()

    async def unless_asked(self, work: Coroutine[None, None, T]) -> T | None:
        """Return what the work returns, or None if the end was asked for before it had."""
        working = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self.asked.wait())
        try:
            await asyncio.wait([working, asked], return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            asked.cancel()
            working.cancel()
            await asyncio.wait([working])
