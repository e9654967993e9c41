import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from galley_operator.cluster.write_pool import WritePool

YES = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5;x=y\r\n\r\nde\n\r\n0\r\n\r\n"
NO = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 3\r\nContent-Length: 0\r\n\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve, seconds: float = 5.0) -> AsyncIterator[WritePool]:
    async def serve_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)
        writer.close()
        await writer.wait_closed()
        ended.set()

    ended = asyncio.Event()
    server = await asyncio.start_server(serve_and_close, "127.0.0.1", 0)
    pool = WritePool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None, "tests", seconds)
    async with server:
        yield pool
        await pool.close()
        await asyncio.wait_for(ended.wait(), 5)


async def request_in(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


@pytest.mark.parametrize(
    ("answer", "body"), [(YES, b"body"), (CHUNKED, b"abc\r\nde\n")], ids=["plain", "chunked"]
)
async def test_an_answer_is_read_however_it_is_cut(answer: bytes, body: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await request_in(reader)
            for place in range(len(answer)):
                writer.write(answer[place : place + 1])
                await writer.drain()

    async with serving(serve) as pool:
        for _ in range(2):
            reply = await pool.send("PATCH", "/", "application/json", b"{}", "")
            assert (reply.status, reply.headers, reply.body) == (200, {}, body)


async def test_a_refusal_brings_its_headers_however_they_are_written() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (NO, YES):
            await request_in(reader)
            writer.write(answer)

    async with serving(serve) as pool:
        reply = await pool.send("PATCH", "/", "application/json", b"{}", "")
        assert (reply.status, reply.headers["Retry-After"], reply.body) == (429, "3", b"")
        reply = await pool.send("PATCH", "/", "application/json", b"{}", "")
        assert (reply.status, reply.headers, reply.body) == (200, {}, b"body")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [(b"SSH-2.0\r\n\r\n", "not HTTP"), (b"HTTP/1.1 200 OK\r\nDate: now\r\n\r\n", "closed the connection")],
)
async def test_an_answer_that_is_not_http_or_has_no_end_is_an_error(answer: bytes, problem: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_in(reader)
        writer.write(answer)

    async with serving(serve) as pool:
        with pytest.raises(ConnectionError, match=problem):
            await pool.send("PATCH", "/", "application/json", b"{}", "")


async def test_requests_one_after_the_other_share_a_connection() -> None:
    connections, requests = 0, list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):
            requests.append(await request_in(reader))
            writer.write(YES)

    async with serving(serve) as pool:
        for _ in range(2):
            assert (await pool.send("PATCH", "/apis/x", "application/json", b"{}", "secret")).body == b"body"
    assert connections == 1
    assert requests[0].startswith(b"PATCH /apis/x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nAuthorization: Bearer secret\r\n" in requests[0]
    assert requests[0].endswith(b"\r\n\r\n{}")


async def test_a_connection_the_server_closed_is_not_used_again() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await request_in(reader)
        writer.write(YES.replace(b"Content-Type: application/json", b"Connection: close"))
        writer.close()

    async with serving(serve) as pool:
        for _ in range(3):
            assert (await pool.send("PATCH", "/", "application/json", b"{}", "")).status == 200
    assert connections == 3


async def test_a_connection_that_breaks_before_the_answer_is_an_error() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_in(reader)
        writer.write(YES[:-1])
        writer.close()

    async with serving(serve) as pool:
        with pytest.raises(ConnectionError):
            await pool.send("PATCH", "/", "application/json", b"{}", "")


async def test_an_answer_that_does_not_come_is_given_up_with_its_connection() -> None:
    calls = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        await request_in(reader)
        if calls == 1:
            await reader.read()
        else:
            writer.write(YES)

    async with serving(serve, seconds=0.2) as pool:
        with pytest.raises(TimeoutError):
            await pool.send("PATCH", "/", "application/json", b"{}", "")
        assert (await pool.send("PATCH", "/", "application/json", b"{}", "")).body == b"body"
