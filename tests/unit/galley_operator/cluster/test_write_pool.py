import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from galley_operator.cluster.write_pool import WritePool, parse

YES = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5;x=y\r\n\r\nde\n\r\n0\r\n\r\n"
NO = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 3\r\nContent-Length: 0\r\n\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.mark.parametrize(
    ("answer", "body"), [(YES, b"body"), (CHUNKED, b"abc\r\nde\n")], ids=["plain", "chunked"]
)
def test_an_answer_is_whole_with_its_last_byte_and_not_before(answer: bytes, body: bytes) -> None:
    assert all(parse(answer[:length]) is None for length in range(len(answer)))
    reply = parse(answer)
    assert reply is not None
    assert (reply.status, reply.body, reply.last) == (200, body, False)


def test_a_refusal_brings_its_headers_however_they_are_written() -> None:
    reply = parse(NO)
    assert reply is not None
    assert (reply.status, reply.headers["Retry-After"], reply.body) == (429, "3", b"")


def test_a_server_that_closes_the_connection_says_so() -> None:
    reply = parse(YES.replace(b"Content-Type: application/json", b"Connection: close"))
    assert reply is not None
    assert reply.last


@pytest.mark.parametrize("answer", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\nDate: now\r\n\r\n"])
def test_what_is_no_answer_of_a_known_length_is_refused(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"SSH|how long"):
        parse(answer)


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
