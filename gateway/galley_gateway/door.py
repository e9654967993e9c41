"""What every request passes first: limits, where it comes from, and headers that keep pages safe."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from galley_gateway.errors import BodyTooLarge, BodyTooSlow, CrossSite, GatewayError, HostRefused
from galley_gateway.limits import Limits

log = logging.getLogger(__name__)

_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _PAGE_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # With no-referrer, browsers would not say where a form of ours comes from.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
"""Added to every answer; nothing behind the door sets them."""
_NO_STORE: Final = (b"cache-control", b"no-store")
_DIGITS: Final = 15
"""Digits of the length of a body, which has fewer bytes whatever is set."""
_CLOSE: Final = (b"connection", b"close")

COMPLETE: Final = "galley.complete"
"""Set in a scope by the server when the whole body is in memory, so that nothing is waited for."""


Told = Callable[[GatewayError, Scope], Response]


class Door:
    """The outermost part of the application."""

    def __init__(self, app: ASGIApp, limits: Limits, hosts: Collection[str], told: Told) -> None:
        """Describe it.

        Args:
            app: what is behind it.
            limits: of bodies.
            hosts: names a request may be for, without a port; empty admits all. On loopback they are what
                keeps a page out whose name was made to lead to this machine (DNS rebinding).
            told: returns what tells of an error.
        """
        self._app, self._limits, self._hosts, self._told = app, limits, frozenset(hosts), told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        body: _Body | None = None

        async def send_safely(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = [*message.get("headers", ()), *_HEADERS]
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append(_NO_STORE)
                if body is not None and body.pending:
                    # The rest is not read, so the connection cannot be used again.
                    headers.append(_CLOSE)
                message["headers"] = headers
                if body is not None:
                    body.answered = True
            await send(message)

        try:
            headers = _first_of(scope["headers"])
            self._check_host(scope["headers"])
            _check_origin(scope["method"], headers)
            body = _Body(receive, headers, self._limits, scope)
            await self._app(scope, body.receive, send_safely)
        except GatewayError as error:
            if started:
                raise
            response = self._told(error, scope)
            if body is None or not body.pending:
                response.headers["Connection"] = "close"
            await response(scope, receive, send_safely)

    def _check_host(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        given = [value.decode("latin-1") for name, value in headers if name == b"host"]
        # Of several, a proxy may have looked at another one than we would.
        if len(given) > 1 or (self._hosts and _name_of("".join(given)) not in self._hosts):
            raise HostRefused(" and ".join(given))


def _first_of(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the headers by name; of repeated ones the first, as what is behind the door reads them."""
    return dict(reversed(list(headers)))


def _name_of(host: str) -> str:
    """Return a host without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()


def _check_origin(method: str, headers: dict[bytes, bytes]) -> None:
    """Refuse what pages of other sites send.

    Raises:
        CrossSite: if it is that.
    """
    if method in _SAFE_METHODS:
        return
    if headers.get(b"sec-fetch-site", b"none") not in {b"same-origin", b"none"}:
        raise CrossSite("a page of another site sent it")
    origin = headers.get(b"origin", b"").decode("latin-1")
    if b"origin" in headers and place_of(origin) != headers.get(b"host", b"").decode("latin-1"):
        raise CrossSite(f"it comes from the page {origin[:100]!r}")


def place_of(address: str) -> str:
    """Return the host and port of an address that a browser names; empty if it is none."""
    try:
        return urlsplit(address).netloc
    except ValueError:
        return ""


class _Body:
    """Hands on the body of a request, within the limits."""

    def __init__(self, receive: Receive, headers: dict[bytes, bytes], limits: Limits, scope: Scope) -> None:
        self._receive, self._limits, self._scope = receive, limits, scope
        self._read = 0
        self._until: float | None = None
        self._complete = False
        self._begun = False
        self.answered = False
        """Whether the answer has begun: what still comes of a body counts for nothing, and costs nothing."""
        given = headers.get(b"content-length", b"0").lstrip(b"0") or b"0"
        # Python reads no number of thousands of digits, and would raise.
        if not given.isdigit() or len(given) > _DIGITS or int(given) > limits.body_bytes:
            raise BodyTooLarge(limits.body_bytes)

    @property
    def pending(self) -> bool:
        """Whether there is more of a body than was read."""
        return self._begun and not self._complete

    async def receive(self) -> Message:
        """Return the next message.

        Raises:
            BodyTooLarge: if there is more than allowed.
            BodyTooSlow: if the rest does not come in time.
        """
        if self._complete or self.answered:
            return await self._receive()
        self._begun = True
        if COMPLETE in self._scope:
            return self._taken(await self._receive())
        loop = asyncio.get_running_loop()
        if self._until is None:
            self._until = loop.time() + self._limits.body_seconds
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlow(self._limits.body_seconds) from None
        return self._taken(message)

    def _taken(self, message: Message) -> Message:
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._read > self._limits.body_bytes:
                raise BodyTooLarge(self._limits.body_bytes)
        else:
            self._complete = True
        return message
