"""Server-sent events: how a task, its output or a page goes on, while a client listens."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import StreamingResponse

from galley.errors import GalleyError
from galley_gateway import problem
from galley_gateway.gateway import Gateway

QUIET_SECONDS: Final = 15.0
"""After so long without an event a comment is sent: proxies close what is silent, and one who is gone is
noticed."""

_HEADERS: Final = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}


def event(name: str, data: bytes) -> bytes:
    """Return one event; each line of the data becomes a line of it."""
    lines = b"".join(b"data: " + line + b"\n" for line in data.replace(b"\r", b"").split(b"\n"))
    return b"event: " + name.encode() + b"\n" + lines + b"\n"


def stream(
    gateway: Gateway, user: str, request: Request, events: AsyncGenerator[bytes, None]
) -> StreamingResponse:
    """Return the response that sends events until they end, the client goes, or the process is to end.

    Raises:
        TooManyWaits: if too many are open.
    """
    place = gateway.places.taken(user)
    place.__enter__()

    async def body() -> AsyncIterator[bytes]:
        try:
            async with aclosing(events):
                async for each in _with_comments(gateway, events):
                    yield each
        except GalleyError as error:
            response = problem.answer(error, request.url.path)
            yield event("problem", bytes(response.body))
        finally:
            place.__exit__(None, None, None)

    return StreamingResponse(body(), headers=_HEADERS, media_type="text/event-stream")


async def _with_comments(gateway: Gateway, events: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
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
        waiting: set[asyncio.Future[Any]] = {each for each in (coming, closing) if each is not None}
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)
