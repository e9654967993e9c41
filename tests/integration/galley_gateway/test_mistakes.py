"""A mistake of the gateway's own, in any of its parts, costs the request it is made in, and no other."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, Final, NoReturn

import aiohttp
import pytest

from galley.broker.control import Heartbeat
from galley.handle import AsyncHandle
from galley_gateway.app import OPERATIONS, health
from galley_gateway.operation import Operation
from galley_gateway.pages import page
from galley_gateway.pages.beats import Beats
from galley_gateway.pages.content import PAGES
from galley_gateway.pages.render import TEMPLATES
from galley_gateway.server import listen, serving
from tests.support.gateways import Served

SECRET: Final = "what is inside"


def mistake(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError(SECRET)


async def fails(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError(SECRET)


async def figures(api: Served) -> str:
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    async with serving(health(api.gateway), api.gateway, listening):
        found = await api.ask("GET", f"http://127.0.0.1:{port}/metrics")
    api.gateway.closing.clear()  # the end of this server is not the end of the other one
    return str(found.body)


async def still_serves(api: Served) -> None:
    assert (await api.ask("GET", api.path("drills"))).status == 200
    assert api.gateway.places.open == 0


@pytest.mark.parametrize("operation", OPERATIONS, ids=[each.id for each in OPERATIONS])
async def test_in_an_operation_it_is_a_problem_document_and_counted(
    api: Served, operation: Operation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = {"namespace": api.namespace, "queue": "drills", "id": "x", "name": "x"}
    url = api.address + operation.full_path.format(**place)
    with monkeypatch.context() as patch:
        patch.setattr(api.gateway, "client", mistake)
        answer = await api.ask(operation.method, url)
    assert (answer.status, answer.body["reason"]) == (500, "GatewayFailed")
    assert SECRET not in str(answer.body)
    assert SECRET in caplog.text
    assert f'requests_total{{operation="{operation.id}",status="500"}} 1.0' in await figures(api)
    await still_serves(api)


@pytest.mark.parametrize("path", [each.path for each in PAGES])
async def test_in_a_page_it_is_a_page(
    api: Served, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{api.address}/ui/{api.namespace}{path.format(queue='drills', id='x')}"
    with monkeypatch.context() as patch:
        patch.setattr(api.gateway, "client", mistake)
        answer = await api.ask("GET", url, Accept="text/html")
    assert answer.status == 500
    assert "GatewayFailed" in answer.body
    assert SECRET not in answer.body
    assert SECRET in caplog.text
    await still_serves(api)


async def events_of(api: Served, url: str, until: bytes) -> bytes:
    """Return what a stream sends until it has sent something, or all it sends."""
    found = b""
    async with asyncio.timeout(60), api.session.get(url) as stream:
        while until not in found and (part := await stream.content.readany()):
            found += part
    return found


async def lines_that_fail(_: AsyncHandle[Any]) -> AsyncGenerator[Any, None]:
    await fails()
    yield None


@pytest.mark.parametrize(
    ("path", "part", "broken"),
    [("events", "wait", fails), ("logs?follow=true", "follow_logs", lines_that_fail)],
)
async def test_in_a_stream_it_is_told_as_its_last_event(  # noqa: PLR0917
    api: Served, path: str, part: str, broken: Any,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    far = {"handler": "echo", "id": "far", "notBefore": "2090-01-01T00:00:00Z"}
    await api.ask("POST", api.path("drills", "/tasks"), far)
    with monkeypatch.context() as patch:
        patch.setattr(AsyncHandle, part, broken)
        found = await events_of(api, api.path("drills", f"/tasks/far/{path}"), b"never sent")
    problem = json.loads(found.partition(b"event: problem\ndata: ")[2].partition(b"\n")[0])
    assert problem["reason"] == "GatewayFailed"
    assert SECRET.encode() not in found
    assert "stream failed" in caplog.text
    assert SECRET in caplog.text
    await still_serves(api)


async def test_in_the_update_of_an_open_page_it_ends_that_stream_alone(
    api: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(page, "LOOK_SECONDS", 0.05)
    url = f"{api.address}/ui/{api.namespace}/queues/drills?live=1"
    async with asyncio.timeout(60), api.session.get(url) as stream:
        await read_until(stream, b"event: page")
        with monkeypatch.context() as patch:
            patch.setattr(TEMPLATES, "get_template", mistake)
            rest = await read_until(stream, b"GatewayFailed")
            assert await stream.content.read() == b""
        assert b"event: problem" in rest
        assert SECRET in caplog.text
    assert (await api.ask("GET", url.partition("?")[0])).status == 200


async def test_in_what_hears_workers_it_costs_a_heartbeat(
    api: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(page, "LOOK_SECONDS", 0.05)
    url = f"{api.address}/ui/{api.namespace}/queues/drills/workers?live=1"
    heard = asyncio.Event()

    def hear(beats: Beats, beat: Heartbeat) -> None:
        if not heard.is_set():
            heard.set()
            mistake()
        hears(beats, beat)

    hears = Beats.hear
    monkeypatch.setattr(Beats, "hear", hear)
    async with asyncio.timeout(60), api.session.get(url) as stream:
        await heard.wait()
        # The next ones are heard, by the same page.
        await read_until(stream, b'data-label="Busy slots"')
    assert "message not handled" in caplog.text
    assert SECRET in caplog.text


async def read_until(stream: aiohttp.ClientResponse, word: bytes) -> bytes:
    found = b""
    while word not in found:
        part = await stream.content.readany()
        assert part, (found[-500:], "the stream ended")
        found += part
    return found


async def test_a_question_that_many_share_fails_for_those_who_asked_and_is_asked_again(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{api.address}/ui/{api.namespace}/queues"
    with monkeypatch.context() as patch:
        patch.setattr(api.gateway.reader, "queues", fails)
        answers = await asyncio.gather(*(api.ask("GET", url) for _ in range(4)))
    assert {each.status for each in answers} == {500}
    assert (await api.ask("GET", url)).status == 200
