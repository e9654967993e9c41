"""What one connection can have the gateway keep, whatever is sent by it."""

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import ServerState

from galley_gateway.server import _Connection

HEAD = b"GET /follow HTTP/1.1\r\nHost: here\r\n\r\n"


class Line(asyncio.Transport):
    """The socket of a connection, as far as it is of interest here."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = False

    def write(self, data: Any) -> None:
        """Take what is sent."""

    def pause_reading(self) -> None:
        """Take nothing more for a while."""

    def resume_reading(self) -> None:
        """Take more."""

    def abort(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.ended


async def answers_late(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


async def given(*parts: bytes) -> bool:
    """Send parts by one connection whose first request is never answered, and return whether it was ended."""
    state, line = ServerState(), Line()
    config = Config(answers_late, http=_Connection, ws="none", lifespan="off", log_config=None)
    connection = _Connection(config, state, {})
    connection.connection_made(line)
    for part in parts:
        if not line.ended:
            connection.data_received(part)
    for task in list(state.tasks):
        task.cancel()
        await asyncio.wait([task])
    connection.connection_lost(OSError())
    return line.ended


async def test_a_head_without_end_is_cut_off_while_the_request_before_it_is_answered() -> None:
    filler = [b"X-Filler: " + b"a" * 8000 + b"\r\n"] * 20
    assert await given(HEAD, b"GET / HTTP/1.1\r\n", *filler)
    assert await given(HEAD + b"GET / HTTP/1.1\r\n", *filler)
    assert await given(b"GET / HTTP/1.1\r\n", *filler)


async def test_what_is_no_head_counts_for_no_head() -> None:
    post = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 200000\r\n\r\n"
    assert not await given(post + b"x" * 200_000)
    assert not await given(post, *[b"x" * 50_000] * 4, b"GET / HTTP/1.1\r\n", b"X-Filler: 1\r\n")
    assert not await given(post + b"x" * 199_999, b"x" + HEAD)
