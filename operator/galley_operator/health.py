"""Three pages for whoever watches the operator: `/livez`, `/readyz` and `/metrics`."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.5
"""Time between two looks at how late the loop is."""

LATE_SECONDS: Final = 10.0
"""A loop that was so late a moment ago is hardly alive; it renews no Lease either."""

Answer = tuple[bool, str]
"""Whether all is well, and the words for it."""


@dataclass(frozen=True, slots=True)
class Pages:
    """What the pages say, asked for each time."""

    live: Callable[[], Answer]
    ready: Callable[[], Answer]
    metrics: Callable[[], bytes]


class LoopWatch:
    """Measures how late the event loop comes to what is due."""

    def __init__(self, show: Callable[[float], None]) -> None:
        """Args: show: is told each lateness, in seconds."""
        self._show = show
        self._late: deque[float] = deque(maxlen=round(10 / TICK_SECONDS))

    @property
    def late(self) -> float:
        """How late it was at most in the last ten seconds."""
        return max(self._late, default=0.0)

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            late = max(0.0, loop.time() - due)
            self._late.append(late)
            self._show(late)


@asynccontextmanager
async def served(pages: Pages, host: str, port: int) -> AsyncIterator[None]:
    """Serve the pages for as long as the block; port 0 serves none.

    Raises:
        OSError: if the port is taken.
    """
    if not port:
        yield
        return

    async def livez(_: web.Request) -> web.Response:
        return _page(pages.live())

    async def readyz(_: web.Request) -> web.Response:
        return _page(pages.ready())

    async def figures(_: web.Request) -> web.Response:
        return web.Response(body=pages.metrics(), content_type="text/plain", charset="utf-8")

    application = web.Application()
    application.add_routes(
        [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", figures)]
    )
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()


def _page(answer: Answer) -> web.Response:
    well, words = answer
    return web.Response(status=200 if well else 503, text=f"{words}\n")
