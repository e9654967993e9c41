"""What every request passes first: limits, where it comes from, and headers that keep pages safe."""

import asyncio
import logging
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from galley_gateway import problem
from galley_gateway.errors import BodyTooLarge, BodyTooSlow, CrossSite, GatewayError, HostRefused
from galley_gateway.limits import Limits

log = logging.getLogger(__name__)

_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer, browsers would not say where a form of ours comes from.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Door:
    """The outermost part of the application."""

    def __init__(self, app: ASGIApp, limits: Limits, hosts: Collection[str] = ()) -> None:
        """Describe it.

        Args:
            app: what is behind it.
            limits: of bodies.
            hosts: names a request may be for, without a port; empty admits all. On loopback they are what
                keeps a page out whose name was made to lead to this machine (DNS rebinding).
        """
        self._app, self._limits, self._hosts = app, limits, frozenset(hosts)

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
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
                if body is not None and body.pending:
                    # The rest is not read, so the connection cannot be used again.
                    headers["Connection"] = "close"
            await send(message)

        try:
            headers = Headers(scope=scope)
            self._check_host(headers)
            _check_origin(scope["method"], headers)
            body = _Body(receive, headers, self._limits)
            await self._app(scope, body.receive, send_safely)
        except GatewayError as error:
            if started:
                raise
            response = problem.answer(error, scope["path"])
            response.headers["Connection"] = "close"
            await response(scope, receive, send_safely)

    def _check_host(self, headers: Headers) -> None:
        host = headers.get("host", "")
        if self._hosts and _name_of(host) not in self._hosts:
            raise HostRefused(host)


def _name_of(host: str) -> str:
    """Return a host without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()


def _check_origin(method: str, headers: Headers) -> None:
    """Refuse what pages of other sites send.

    Raises:
        CrossSite: if it is that.
    """
    if method in _SAFE_METHODS:
        return
    if headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
        raise CrossSite("a page of another site sent it")
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host", ""):
        raise CrossSite(f"it comes from the page {origin[:100]!r}")


class _Body:
    """Hands on the body of a request, within the limits."""

    def __init__(self, receive: Receive, headers: Headers, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._read = 0
        self._until: float | None = None
        self._complete = False
        self._begun = False
        given = headers.get("content-length", "0")
        if not given.isdecimal() or int(given) > limits.body_bytes:
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
        if self._complete:
            return await self._receive()
        self._begun = True
        loop = asyncio.get_running_loop()
        if self._until is None:
            self._until = loop.time() + self._limits.body_seconds
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlow(self._limits.body_seconds) from None
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._read > self._limits.body_bytes:
                raise BodyTooLarge(self._limits.body_bytes)
        else:
            self._complete = True
        return message
