"""The HTTP endpoints of a worker: `/livez`, `/readyz` and `/metrics`.

A few lines over asyncio, since importing a web framework would be most of a worker's start-up time.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

log = logging.getLogger(__name__)

_REQUEST_SECONDS: Final = 5.0
_LONGEST_LINE: Final = 4096

Answer = tuple[bool, str]
"""Whether the check passes, and its message."""


@dataclass(frozen=True, slots=True)
class Condition:
    """The state of a worker that its checks depend on."""

    connected: bool
    """Whether it has a connection to the broker."""
    open: bool
    """Whether it takes tasks: it has started to, and neither drains nor stops."""
    free: int
    """Attempts that could begin now."""
    silent_seconds: float
    """Time since a consumer last answered a pull."""


def liveness(worker: Condition, live_seconds: float) -> Answer:
    """Return whether a worker is alive: a consumer answered lately, or there is a reason why none did."""
    if not worker.connected:
        return True, "not connected to the broker; a restart would not help"
    if not worker.open or worker.free <= 0:
        return True, "takes no tasks at the moment, by intention"
    return (
        worker.silent_seconds <= live_seconds,
        f"a consumer answered {worker.silent_seconds:.0f} s ago; the limit is {live_seconds:.0f} s",
    )


def readiness(worker: Condition) -> Answer:
    """Return whether a worker takes tasks."""
    if not worker.connected:
        return False, "no connection to the broker"
    if not worker.open:
        return False, "takes no tasks"
    return True, "takes tasks"


class HealthPages:
    """Serves the pages over HTTP."""

    def __init__(
        self, live: Callable[[], Answer], ready: Callable[[], Answer], metrics: Callable[[], bytes]
    ) -> None:
        self._pages: dict[str, Callable[[], tuple[int, bytes]]] = {
            "/livez": lambda: _checked(live()),
            "/readyz": lambda: _checked(ready()),
            "/metrics": lambda: (200, metrics()),
        }

    @asynccontextmanager
    async def served(self, host: str, port: int) -> AsyncIterator[int]:
        """Serve on `host`; yield the port, which the system chooses if `port` is 0.

        Raises:
            OSError: if the port is taken.
        """
        server = await asyncio.start_server(self._answer, host, port, limit=_LONGEST_LINE)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                status, body = await self._read(reader)
                head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
                head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError):
            log.debug("health request aborted")
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        request = (await reader.readline()).decode("latin-1").split()
        while (await reader.readline()).strip():
            pass
        if len(request) != 3 or request[0] != "GET":
            return 405, b"only GET\n"
        page = self._pages.get(request[1].partition("?")[0])
        return page() if page is not None else (404, b"try /livez, /readyz or /metrics\n")


_REASONS: Final = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


def _checked(answer: Answer) -> tuple[int, bytes]:
    well, words = answer
    return (200 if well else 503), f"{words}\n".encode()
