"""Connections for requests that come by the thousand and are all alike: small, and answered with little.

aiohttp spends 0.2 ms of processor time on each (docs/adr/0009-the-way-of-declared-tasks.md); a status
needs none of what it does for that. Here a request is a few bytes put together, and httptools reads the
answer, in 2 us. Each connection carries one request at a time.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser


class Reply(NamedTuple):
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    """Empty unless it is an error."""
    body: bytes


class WritePool:
    """Connections to one server; as many as there are requests under way, kept for the next ones."""

    def __init__(self, url: str, tls: ssl.SSLContext | None, user_agent: str, seconds: float) -> None:
        """Args: url: of the server; seconds: how long one request may take, connecting included."""
        there = urlsplit(url)
        self._host = there.hostname or ""
        self._port = there.port or (443 if there.scheme == "https" else 80)
        self._prefix = there.path.rstrip("/")
        self._tls, self._seconds = tls, seconds
        self._always = f"Host: {there.netloc}\r\nUser-Agent: {user_agent}\r\nAccept: application/json\r\n"
        self._idle: list[_Line] = []

    async def send(self, method: str, target: str, content: str, body: bytes, token: str) -> Reply:
        """Return the answer to one request.

        Raises:
            OSError: if the connection could not be made, or broke; TimeoutError is one, too.
        """
        identity = f"Authorization: Bearer {token}\r\n" if token else ""
        head = (
            f"{method} {self._prefix}{target} HTTP/1.1\r\n{self._always}{identity}"
            f"Content-Type: {content}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        async with asyncio.timeout(self._seconds):
            line = await self._line()
            try:
                reply = await line.ask(head.encode() + body)
            except BaseException:
                line.close()  # an answer that still comes would be taken for the next one
                raise
        if line.usable:
            self._idle.append(line)
        return reply

    async def close(self) -> None:
        """Close all connections."""
        idle, self._idle = self._idle, []
        for line in idle:
            line.close()
        for line in idle:
            await line.closed.wait()

    async def _line(self) -> "_Line":
        while self._idle:
            line = self._idle.pop()
            if line.usable:
                return line
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(_Line, self._host, self._port, ssl=self._tls)
        return line


class _Line(asyncio.Protocol):
    """One connection; `on_header`, `on_body` and `on_message_complete` are called by its parser."""

    def __init__(self) -> None:
        self.usable = True
        self.closed = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = b""
        self._answer: asyncio.Future[Reply] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._fail(ConnectionError(f"the answer is not HTTP: {error}"))
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._parser.get_status_code() >= 400:  # no caller reads the headers of a success
            self._headers[name.decode("latin-1").title()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        reply = Reply(self._parser.get_status_code(), self._headers, self._body)
        self._headers, self._body = {}, b""
        if not self._parser.should_keep_alive():
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self.closed.set()
        self._fail(ConnectionError(str(exc) if exc else "the server closed the connection"))

    async def ask(self, request: bytes) -> Reply:
        """Return the answer to a request."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close it."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: ConnectionError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
