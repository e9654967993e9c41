"""Three pages about the operator: `/livez`, `/readyz` and `/metrics`."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from aiohttp import web

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.5
"""Time between two looks at how late the loop is."""

LATE_SECONDS: Final = 10.0
"""A loop that was so late a moment ago is hardly alive; it renews no Lease either."""

Check = Callable[[], str]
"""Returns what is wrong, as words for people; empty if nothing is."""


class Health:
    """What the pages say. Parts of the process add their checks as they come up."""

    def __init__(self, metrics: Callable[[], bytes]) -> None:
        """Args: metrics: returns the page for Prometheus."""
        self.metrics = metrics
        self.state: Callable[[], str] = lambda: "starts"
        """Returns what the process does, while nothing is wrong."""
        self._live: list[Check] = []
        self._ready: list[Check] = []

    def live(self, check: Check) -> None:
        """Add something that only a new process can repair."""
        self._live.append(check)

    def ready(self, check: Check) -> None:
        """Add something without which the process cannot work; what comes first is told first."""
        self._ready.append(check)

    @contextmanager
    def waiting(self, problem: str) -> Iterator[None]:
        """Report a problem for as long as the block."""

        def check() -> str:
            return problem

        self._ready.append(check)
        try:
            yield
        finally:
            self._ready.remove(check)

    def problem(self, page: str) -> str:
        """Return what is wrong, for the page `live` or `ready`."""
        checks = self._live if page == "live" else self._ready
        return next((problem for check in checks if (problem := check())), "")


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
async def served(health: Health, host: str, port: int) -> AsyncIterator[None]:
    """Serve the pages for as long as the block; port 0 serves none.

    Raises:
        OSError: if the port is taken.
    """
    if not port:
        yield
        return

    async def livez(_: web.Request) -> web.Response:
        return _page(health.problem("live"), "alive")

    async def readyz(_: web.Request) -> web.Response:
        return _page(health.problem("ready"), health.state())

    async def figures(_: web.Request) -> web.Response:
        return web.Response(body=health.metrics(), content_type="text/plain", charset="utf-8")

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


def _page(problem: str, state: str) -> web.Response:
    return web.Response(status=503 if problem else 200, text=f"{problem or state}\n")
