"""Server-sent events: how a task, its output or a page goes on, while a client listens."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from galley.errors import GalleyError
from galley_gateway import problem
from galley_gateway.errors import GatewayFailed
from galley_gateway.gateway import Gateway
from galley_gateway.operation import Ask

log = logging.getLogger(__name__)

QUIET_SECONDS: Final = 15.0
"""After so long without an event a comment is sent: proxies close what is silent, and one who is gone is
noticed."""

_HEADERS: Final = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}


def event(name: str, data: bytes) -> bytes:
    """Return one event; each line of the data becomes a line of it."""
    lines = b"".join(b"data: " + line + b"\n" for line in data.replace(b"\r", b"").split(b"\n"))
    return b"event: " + name.encode() + b"\n" + lines + b"\n"


Check = Callable[[], Awaitable[None]]
"""Raises the error that ends a stream: who listens may no longer do so."""


class _Held(StreamingResponse):
    """A response that has a place until its end, also if the client is gone before it begins."""

    def __init__(self, body: AsyncGenerator[bytes, None], place: AbstractContextManager[None]) -> None:
        super().__init__(body, headers=_HEADERS, media_type="text/event-stream")
        self._body, self._place = body, place
        place.__enter__()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # A client that goes while an event is sent leaves the body where it was.
            async with aclosing(self._body):
                await super().__call__(scope, receive, send)
        finally:
            self._place.__exit__(None, None, None)


def stream(ask: Ask, events: AsyncGenerator[bytes, None]) -> StreamingResponse:
    """Return what sends the events of an operation for as long as the user may see them.

    Raises:
        TooManyWaits: if too many are open.
    """
    place = ask.gateway.places.taken(ask.user.name, ask.namespace)
    return held(ask.gateway, place, ask.request, events, ask.check_again)


def held(
    gateway: Gateway,
    place: AbstractContextManager[None],
    request: Request,
    events: AsyncGenerator[bytes, None],
    check: Check | None = None,
) -> StreamingResponse:
    """Return the response that sends events until they end, the client goes, or the process is to end.

    Args:
        gateway: that serves it.
        place: what it holds meanwhile.
        request: what is answered.
        events: what is sent.
        check: called before each event, and now and then while there is none; None if `events` do it.

    Raises:
        TooManyWaits: if there is no place.
    """

    async def body() -> AsyncGenerator[bytes, None]:
        try:
            # What reads the events is closed before them: they cannot be closed while they are read.
            async with aclosing(events), aclosing(_with_comments(gateway, events, check)) as sent:
                async for each in sent:
                    yield each
        except GalleyError as error:
            yield _told(error, request)
        except Exception:
            log.exception("stream failed", extra={"path": request.url.path})
            yield _told(GatewayFailed(), request)

    return _Held(body(), place)


def _told(error: GalleyError, request: Request) -> bytes:
    return event("problem", bytes(problem.answer(error, request.url.path).body))


async def _with_comments(
    gateway: Gateway, events: AsyncGenerator[bytes, None], check: Check | None
) -> AsyncGenerator[bytes, None]:
    yield b"retry: 2000\n\n"
    closing = asyncio.ensure_future(gateway.closing.wait())
    coming: asyncio.Future[bytes] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(events))
            both: set[asyncio.Future[Any]] = {coming, closing}
            done, _ = await asyncio.wait(both, timeout=QUIET_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if closing in done:
                return
            if check is not None:
                await check()
            if coming not in done:
                yield b": still here\n\n"
                continue
            try:
                each = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield each
    finally:
        await _end([each for each in (coming, closing) if each is not None])


async def _end(waiting: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel what is waited for, and return when it has ended: until then nothing can close the events."""
    for each in waiting:
        each.cancel()
    again: asyncio.CancelledError | None = None
    while any(not each.done() for each in waiting):
        try:
            await asyncio.wait(waiting)
        except asyncio.CancelledError as error:  # the framework repeats it at each turn of the loop
            again = error
    if again is not None:
        raise again
