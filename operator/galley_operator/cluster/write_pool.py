"""Connections for requests that come by the thousand and are all alike: small, and answered with little.

aiohttp spends 0.2 ms of processor time on each (docs/adr/0009-the-way-of-declared-tasks.md); a status
needs none of what it does for that. Here a request is a few bytes put together, and an answer is read by its
length. One request at a time is under way on a connection.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class Reply(NamedTuple):
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    """Empty unless it is an error."""
    body: bytes
    last: bool = False
    """Whether the server closes the connection after it."""


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
    """One connection."""

    def __init__(self) -> None:
        self.usable = True
        self.closed = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._got = b""
        self._answer: asyncio.Future[Reply] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        try:
            reply = parse(self._got)
        except ValueError as error:
            self._fail(ConnectionError(f"the answer is not HTTP: {error}"))
            self.close()
            return
        if reply is None:
            return
        self._got = b""
        if reply.last:
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


def parse(got: bytes) -> Reply | None:
    """Return the answer in what came so far, or None if some of it is still to come.

    Raises:
        ValueError: if it is no HTTP answer of a known length.
    """
    end = got.find(_END)
    if end < 0:
        return None
    if not got.startswith(b"HTTP/1."):
        raise ValueError(got[:80].decode("latin-1"))
    status, rest = int(got[9:12]), got[end + len(_END) :]
    found = _LENGTH.search(got, 0, end)
    if found is not None:
        body = rest if len(rest) >= int(found[1]) else None
    elif _CHUNKED.search(got, 0, end):
        body = _unchunked(rest)
    else:
        raise ValueError("it does not say how long it is")
    if body is None:
        return None
    ends = _CLOSE.search(got, 0, end) is not None
    # Nobody asks for the headers of an answer that says yes.
    return Reply(status, {} if status < 400 else _headers(got[:end]), body, ends)


def _headers(head: bytes) -> Mapping[str, str]:
    """Return headers by their names as Go writes them: `Retry-After`."""
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.title(): value.strip() for name, _, value in pairs}


def _unchunked(rest: bytes) -> bytes | None:
    parts: list[bytes] = []
    at = 0
    while (line := rest.find(b"\r\n", at)) >= 0:
        size = int(rest[at:line].partition(b";")[0], 16)
        begin, at = line + 2, line + 2 + size + 2
        if len(rest) < at:
            return None
        if size == 0:
            return b"".join(parts)
        parts.append(rest[begin : begin + size])
    return None
