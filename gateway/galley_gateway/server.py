"""Serving the application: the listening socket, and what a connection may cost."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from galley_gateway.door import COMPLETE
from galley_gateway.errors import PortTaken
from galley_gateway.gateway import Gateway

log = logging.getLogger(__name__)

_IDLE_SECONDS: Final = 65
"""How long a connection may be idle between two requests: longer than load balancers keep one."""
_LAST_SECONDS: Final = 5
"""How long requests may take that are under way at the end."""
_AGAIN_SECONDS: Final = 0.1
_WAITING_CONNECTIONS: Final = 2048
_HEAD_BYTES: Final = 64 * 1024


class _Connection(HttpToolsProtocol):
    """One connection, whose requests have to begin and be complete in time."""

    most: int = 4000
    head_seconds: float = 10.0
    _late: asyncio.TimerHandle | None = None
    _head_bytes: int = 0
    _in_head: bool = True
    _requests: int = 0

    def connection_made(self, transport: Any) -> None:
        """Count it, and wait for its first request."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
            return
        self._late = self.loop.call_later(self.head_seconds, self._close_late)

    def data_received(self, data: bytes) -> None:
        """Take more of a request; the head of each has to be complete in time, and is bounded."""
        requests = self._requests
        super().data_received(data)
        if self.transport.is_closing() or not self._in_head:
            return
        cycle: Any = self.cycle
        answering = cycle is not None and not cycle.response_complete
        # Counted also while the request before it is answered, which can take long. What came together with
        # that one is not: it is less than one read of the socket.
        self._head_bytes += len(data) if requests == self._requests else 0
        if self._head_bytes > _HEAD_BYTES:
            self.transport.abort()
        elif self._late is None and not answering:
            self._late = self.loop.call_later(self.head_seconds, self._close_late)

    def on_headers_complete(self) -> None:
        """The head is complete: from here on, the limits of bodies count."""
        self._forget()
        self._in_head = False
        self._requests += 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The whole request is here, so nothing has to wait for it with a limit of time."""
        self.scope[COMPLETE] = True  # type: ignore[typeddict-unknown-key]
        self._in_head = True
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        self._head_bytes = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _close_late(self) -> None:
        self._late = None
        self.transport.abort()


class _Server(uvicorn.Server):
    """A server that leaves signals to the process it runs in."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def main_loop(self) -> None:
        """Run until the end, through any exception: without it, nothing would end connections in order."""
        while not self.should_exit:
            try:
                await super().main_loop()
            except Exception:
                log.exception("unexpected error", extra={"where": "http"})
                await asyncio.sleep(_AGAIN_SECONDS)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        PortTaken: if it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends answers at once (TCP_NODELAY) and not 40 ms later.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_WAITING_CONNECTIONS)
    except OSError as error:
        listening.close()
        raise PortTaken(host, port, error.strerror or str(error)) from error
    listening.setblocking(False)
    return listening


@asynccontextmanager
async def serving(app: ASGIApp, gateway: Gateway, listening: socket.socket) -> AsyncIterator[None]:
    """Serve for as long as the block; at its end, requests that wait are answered at once."""
    limits = gateway.limits
    protocol = type(
        "Connection", (_Connection,), {"most": limits.connections, "head_seconds": limits.body_seconds}
    )
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # it would believe any proxy on this machine; `origin` looks at them
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_LAST_SECONDS,
    )
    # Its warnings are about requests that are none: anyone could fill the log with them.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listening]), name="http")
    try:
        yield
    finally:
        gateway.closing.set()
        server.should_exit = True
        try:
            await running
        finally:
            listening.close()
