"""Requests that no browser sends are refused, and are no mistake of the gateway's own."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message

from galley_gateway.access import OpenAccess
from galley_gateway.app import told
from galley_gateway.door import Door
from galley_gateway.errors import BodyTooSlow, RequestInvalid
from galley_gateway.gateway import Gateway
from galley_gateway.limits import Limits
from galley_gateway.pages.login import form_of
from galley_gateway.pages.paths import way_back
from tests.support.virtual_time import in_virtual_time

FORM = "application/x-www-form-urlencoded"


def scope_of(headers: Mapping[str, str], path: str = "/ui/do/x") -> dict[str, Any]:
    given = [(name.lower().encode(), value.encode()) for name, value in {"Host": "here", **headers}.items()]
    return {"type": "http", "method": "POST", "path": path, "headers": given, "query_string": b""}


def request(body: bytes = b"", **headers: str) -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    return Request(scope_of({name.replace("_", "-"): value for name, value in headers.items()}), receive)


async def answered(headers: Mapping[str, str], body: bytes = b"") -> int:
    """Send a request through the door, and return the status of its answer."""
    sent: list[Message] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        response: Response = PlainTextResponse(await Request(scope, receive).body())
        await response(scope, receive, send)

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        sent.append(message)

    await Door(inside, Limits(), (), told)(scope_of(headers), receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://here"}, 200),
        ({"Origin": "http://[here"}, 403),
        ({"Origin": "http://here]"}, 403),
        ({"Content-Length": "0" * 5000}, 200),
        ({"Content-Length": "0" * 5000 + "3"}, 200),
        ({"Content-Length": "9" * 5000}, 413),
        ({"Content-Length": "\u0663"}, 413),
    ],
)
async def test_no_header_makes_the_door_fail(headers: dict[str, str], status: int) -> None:
    assert await answered(headers, b"abc") == status


@pytest.mark.parametrize("referer", ["http://[here/ui/a", "http://here]/ui/a", "http://[::1/"])
def test_a_page_that_is_none_leads_nowhere(referer: str) -> None:
    assert way_back(request(referer=referer), "/ui/") == "/ui/"


async def test_a_form_has_no_more_fields_than_ours() -> None:
    assert await form_of(request(b"a=1&b=2", content_type=FORM)) == {"a": "1", "b": "2"}
    with pytest.raises(RequestInvalid, match="more than 50 fields"):
        await form_of(request(b"&".join([b"a=1"] * 51), content_type=FORM))


def slow_body(gone: asyncio.Event) -> Callable[[], Awaitable[Message]]:
    """Return what brings a part of a body, and then nothing until the client is gone."""
    parts: list[Message] = [{"type": "http.request", "body": b"a", "more_body": True}]

    async def receive() -> Message:
        if parts:
            return parts.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    return receive


@in_virtual_time
async def test_a_body_without_end_ends_no_answer_that_has_begun() -> None:
    gone, sent = asyncio.Event(), list[Message]()

    async def inside(_: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body"})

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.get_running_loop().call_later(3600, gone.set)
    await Door(inside, Limits(), (), told)(scope_of({}), slow_body(gone), send)
    assert len(sent) == 2


@in_virtual_time
async def test_a_wait_ends_with_what_is_wrong_with_the_rest_of_its_request() -> None:
    nowhere: Any = None
    gateway, caught = Gateway(nowhere, OpenAccess()), list[Exception]()
    asyncio.get_running_loop().set_exception_handler(lambda _, about: caught.append(about["exception"]))

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await gateway.while_asked(Request(scope, receive, send), asyncio.Event().wait())

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await Door(inside, Limits(), (), told)(scope_of({}), slow_body(asyncio.Event()), send)
    assert sent[0]["status"] == BodyTooSlow.status
    gc.collect()
    assert caught == []
