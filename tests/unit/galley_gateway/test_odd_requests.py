"""Requests that no browser sends are refused, and are no mistake of the gateway's own."""

from collections.abc import Mapping
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message

from galley_gateway.app import told
from galley_gateway.door import Door
from galley_gateway.errors import RequestInvalid
from galley_gateway.limits import Limits
from galley_gateway.pages.login import form_of
from galley_gateway.pages.paths import way_back

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
