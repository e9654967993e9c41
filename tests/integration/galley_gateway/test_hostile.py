"""What bad input gets: a problem document, or a closed connection, and never another request's harm."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from galley_gateway.limits import Limits
from galley_local.nats_server import NatsServer
from tests.support.eventually import eventually
from tests.support.gateways import Served, served

SMALL = Limits(body_bytes=64 * 1024, body_seconds=0.5, waits=3, waits_of_user=2, connections=20)


@pytest.fixture
async def small(nats_server: NatsServer, worked: str) -> AsyncIterator[Served]:
    """A gateway with small limits, which answers for one name."""
    async with served(nats_server.url, worked, limits=SMALL, hosts=["127.0.0.1"]) as found:
        yield found


async def raw(api: Served, head: str, *parts: bytes, gap: float = 0.0) -> bytes:
    """Send bytes as they are, and return all that is answered until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        writer.write(head.replace("\n", "\r\n").encode())
        for part in parts:
            await asyncio.sleep(gap)
            writer.write(part)
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def post(api: Served, length: int | str, more: str = "") -> str:
    path = f"/api/v1/namespaces/{api.namespace}/queues/drills/tasks"
    return (
        f"POST {path} HTTP/1.1\nHost: 127.0.0.1\nContent-Type: application/json\n"
        f"Content-Length: {length}\n{more}\n"
    )


async def test_a_body_of_100_mb_is_refused_before_it_is_read(small: Served) -> None:
    answer = await raw(small, post(small, 100 * 1024**2))
    assert b"413" in answer.split(b"\r\n")[0]
    assert b"BodyTooLarge" in answer


async def test_a_body_that_hides_its_size_is_cut_off(small: Served) -> None:
    head = post(small, 0).replace("Content-Length: 0", "Transfer-Encoding: chunked")
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    answer = await raw(small, head, *[chunk] * 4)
    # The answer may be lost with the connection, which ends while more is sent.
    assert b"BodyTooLarge" in answer or answer == b""


HIDDEN = '{"handler":"echo","id":"hidden"}'
ODD = {
    "a length and chunks": "Content-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n",
    "two lengths": f"Content-Length: 0\nContent-Length: {len(HIDDEN)}\n\n",
    "a list of lengths": "Content-Length: 0, 0\n\n",
    "a length with a sign": "Content-Length: +0\n\n",
    "a coding that is none": "Transfer-Encoding: xchunked\n\n0\n\n",
    "another coding behind": "Transfer-Encoding: chunked, identity\n\n0\n\n",
    "a blank before the colon": "Transfer-Encoding : chunked\n\n0\n\n",
    "a folded line": "Transfer-Encoding:\n chunked\n\n0\n\n",
    "a chunk of odd length": "Transfer-Encoding: chunked\n\n0x0\n\n",
    "two hosts": "Host: other\nContent-Length: 0\n\n",
}
"""How a proxy could be made to see another end of a request than the gateway; what follows is hidden then."""


@pytest.mark.parametrize("what", ODD)
async def test_no_request_is_hidden_in_another(
    small: Served, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    head = post(small, 0).replace("Content-Length: 0\n\n", "")
    # In a chunked body it would be the next one for a reader of lengths, and the other way around.
    answer = await raw(small, head + ODD[what] + post(small, len(HIDDEN)) + HIDDEN)
    assert answer.split(b" ")[1] in {b"400", b"421"}, answer
    assert answer.count(b"HTTP/1.1") == 1, answer
    assert (await small.ask("GET", small.path("drills", "/tasks/hidden"))).status == 404
    # Strangers could fill the log.
    assert [each for each in caplog.records if each.name.startswith("uvicorn")] == []


async def test_slow_clients_are_not_waited_for(small: Served) -> None:
    body = await raw(small, post(small, 100), b"{", gap=0.1)
    assert b"408" in body.split(b"\r\n")[0]
    head = await raw(small, "GET / HTTP/1.1\nHost: 127.0.0.1\nX-Slow: ", b"a", gap=0.1)
    assert head == b""


async def test_heads_without_end_are_cut_off(small: Served) -> None:
    answer = await raw(small, "GET / HTTP/1.1\n", *[b"X-Filler: " + b"a" * 8000 + b"\r\n"] * 40)
    assert b"200" not in answer


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"handler":"echo","input":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "levels deep"),
        (b'{"handler":"echo","input":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}", "levels deep"),
        (b'{"handler":"echo","input":NaN}', "not JSON"),
        (b'{"handler":"echo","id":"../../x"}', "id"),
        (b'{"handler":"<script>"}', "handler"),
        (b'{"handler":"echo","labels":{"<b>":"x"}}', "label"),
        (b"\xff\xfe", "JSON"),
        (b"", "JSON"),
        (b'{"handler":"echo","timeoutSeconds":1e400}', "timeout"),
        (b'{"handler":"echo","deadline":"2000-13-01T00:00:00Z"}', "deadline"),
    ],
)
async def test_what_is_no_task_is_refused_with_a_reason(small: Served, body: bytes, says: str) -> None:
    answer = await raw(small, post(small, len(body), "Connection: close\n"), body)
    status, _, rest = answer.partition(b"\r\n")
    problem = json.loads(rest.partition(b"\r\n\r\n")[2])
    assert status.split()[1] in {b"400", b"422"}
    assert says in problem["detail"]
    assert problem["hint"]


async def test_brackets_in_texts_count_for_nothing(small: Served) -> None:
    body = {"handler": "echo", "input": {"value": '[{"' * 200}, "id": "brackets"}
    assert (await small.ask("POST", small.path("drills", "/tasks"), body)).status == 201


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 400),
    ],
)
async def test_other_sites_and_names_get_nowhere(small: Served, headers: dict[str, str], status: int) -> None:
    url = small.path("drills", "/tasks")
    given = {"Content-Type": "application/json", **headers}
    async with small.session.post(url, data=b'{"handler":"echo"}', headers=given) as answer:
        assert answer.status == status


async def test_waits_are_bounded_and_end_when_the_one_who_waits_goes(small: Served) -> None:
    tasks = small.path("drills", "/tasks")
    await small.ask("POST", tasks, {"handler": "echo", "id": "far", "notBefore": "2090-01-01T00:00:00Z"})
    waiting = [asyncio.create_task(small.ask("GET", f"{tasks}/far/wait?seconds=60")) for _ in range(2)]
    async with asyncio.timeout(10):
        while small.gateway.places.open < 2:  # noqa: ASYNC110 - it does not tell
            await asyncio.sleep(0.01)
    refused = await small.ask("GET", f"{tasks}/far/wait")
    assert (refused.status, refused.body["reason"]) == (429, "TooManyWaits")
    assert refused.headers["Retry-After"]
    for one in waiting:
        one.cancel()
    await asyncio.wait(waiting)
    async with asyncio.timeout(10):
        while small.gateway.places.open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await small.ask("POST", f"{tasks}/far/cancel")


async def test_a_gateway_that_ends_answers_what_waits_and_loses_no_result(
    nats_server: NatsServer, worked: str
) -> None:
    async with served(nats_server.url, worked) as first:
        tasks = first.path("drills", "/tasks")
        await first.ask(
            "POST", tasks, {"handler": "aecho", "id": "kept", "input": {"value": 5, "seconds": 1}}
        )
        waiting = asyncio.create_task(first.ask("GET", f"{tasks}/kept/wait?seconds=60"))
        async with asyncio.timeout(10):
            while not first.gateway.places.open:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        first.gateway.closing.set()
        assert (await waiting).status == 202
    async with served(nats_server.url, worked) as second:
        answer = await second.ask("GET", second.path("drills", "/tasks/kept/wait?seconds=20"))
        assert (answer.status, answer.body["result"]) == (200, 5)


async def test_more_connections_than_allowed_are_closed_and_others_go_on(small: Served) -> None:
    kept = [await asyncio.open_connection("127.0.0.1", small.port) for _ in range(60)]
    async with asyncio.timeout(10):
        ended = await asyncio.gather(*(reader.read() for reader, _ in kept))
    assert ended == [b""] * 60
    for _, writer in kept:
        writer.close()
    assert (await small.ask("GET", small.path("drills"))).status == 200


PROXIES = ["127.0.0.1", "10.0.0.0/8"]


@pytest.mark.parametrize(("proxies", "origin"), [([], "127.0.0.1"), (PROXIES, "203.0.113.9")])
async def test_the_audit_names_the_origin_that_a_trusted_proxy_names_and_no_other(
    nats_server: NatsServer, worked: str, proxies: list[str], origin: str
) -> None:
    async with served(nats_server.url, worked, proxies=proxies) as api:
        drills, task = api.path("drills"), f"from-{len(proxies)}"
        later = {"notBefore": "2100-01-01T00:00:00Z"}  # it must not end before it is cancelled
        await api.ask("POST", f"{drills}/tasks", {"handler": "echo", "id": task, **later})
        headers = {"X-Forwarded-For": "1.1.1.1, 203.0.113.9, 10.0.0.4", "X-Real-IP": "1.1.1.1"}
        assert (await api.ask("POST", f"{drills}/tasks/{task}/cancel", **headers)).status == 200
        url = f"{api.address}/api/v1/namespaces/{api.namespace}/audit?task={task}"

        async def origins() -> list[str]:
            lines = (await api.ask("GET", url)).body["lines"]
            return [line["origin"] for line in lines if line["action"] == "cancel"]

        assert await eventually(origins, within=20) == [origin]
