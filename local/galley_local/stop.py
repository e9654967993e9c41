"""Ctrl-C: the first one drains, the second one stops at once."""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager


class Stop:
    """Ctrl-C: the first one drains, the second one stops at once."""

    def __init__(self, running: asyncio.Task[object]) -> None:
        self.asked = asyncio.Event()
        self.hurried = False
        self._running = running

    def signal(self) -> None:
        """Handle one Ctrl-C."""
        if self.asked.is_set() and not self.hurried:
            self.hurried = True
            self._running.cancel()
        self.asked.set()

    async def or_after(self, work: Coroutine[object, object, None]) -> None:
        """Return when the work is done or a stop is requested, whichever is first."""
        working = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self.asked.wait())
        try:
            await asyncio.wait([working, asked], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            working.cancel()
            asked.cancel()


@contextmanager
def stopping() -> Iterator[Stop]:
    """Yield the state that SIGINT and SIGTERM set."""
    running = asyncio.current_task()
    assert running is not None
    stop = Stop(running)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.signal)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
