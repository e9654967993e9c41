"""What stays open is as well guarded as what is answered at once: rights, tokens, places, namespaces."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, MutableMapping
from contextlib import ExitStack
from typing import Any

import aiohttp
import pytest
from starlette.requests import ClientDisconnect, Request

from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.handle import AsyncHandle
from galley.task_status import TaskStatus
from galley_gateway.access import Right, User
from galley_gateway.api import events
from galley_gateway.errors import AccessUnknown, GatewayError, NotIdentified, NotPermitted, TooManyWaits
from galley_gateway.limits import Limits, Places
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue
from tests.support.eventually import eventually
from tests.support.gateways import Served, served

FAR = "2098-01-01T00:00:00Z"
OPEN = ("/tasks/{id}/events", "/tasks/{id}/logs?follow=true")


class Guards:
    """Lets `ada` do everything in one namespace, until something is taken from her."""

    login = True

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.refusal: GatewayError | None = None

    async def identify(self, token: str) -> User:
        if isinstance(self.refusal, NotIdentified):
            raise self.refusal
        if token not in {"ada", "eve"}:
            raise NotIdentified("its token is not known")
        return User(token)

    async def check(self, user: User, right: Right, namespace: str, queue: str = "") -> None:
        del queue
        if self.refusal is not None:
            raise self.refusal
        if (user.name, namespace) != ("ada", self.namespace):
            raise NotPermitted(user.name, right.verb, right.resource, namespace)


@pytest.fixture
async def guards(namespace: str) -> Guards:
    return Guards(namespace)


@pytest.fixture
async def api(nats_server: NatsServer, namespace: str, guards: Guards) -> AsyncIterator[Served]:
    """A gateway whose namespace has a task that waits for long."""
    async with Broker(nats_server.url, name="test") as broker:
        await ensure(broker, a_queue("red", namespace=namespace))
    limits = Limits(waits_of_user=5, waits=8)
    async with served(nats_server.url, namespace, guards, limits) as gateway:
        new = {"handler": "echo", "id": "victim", "notBefore": FAR}
        told = await gateway.ask("POST", gateway.path("red", "/tasks"), new, Authorization="Bearer ada")
        assert told.status == 201
        yield gateway


async def until(response: aiohttp.ClientResponse, word: bytes) -> bytes:
    found = b""
    while word not in found:
        part = await response.content.readany()
        assert part, (found, "the stream ended")
        found += part
    return found


REFUSALS = {
    "the right is taken away": NotPermitted("ada", "get", "tasks", "here"),
    "the token has expired": NotIdentified("its token has expired"),
    "it is not known": AccessUnknown("the API server is away"),
}


@pytest.mark.parametrize("path", OPEN)
@pytest.mark.parametrize("why", REFUSALS)
async def test_a_stream_ends_with_the_right_to_it(
    api: Served, guards: Guards, path: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "QUIET_SECONDS", 0.05)
    url = api.path("red", path.format(id="victim"))
    async with (
        asyncio.timeout(60),
        api.session.get(url, headers={"Authorization": "Bearer ada"}) as stream,
    ):
        await until(stream, b": still here")
        guards.refusal = REFUSALS[why]
        rest = await stream.content.read()
    at = rest.index(b"event: problem")
    assert json.loads(rest[at:].split(b"data: ")[1].split(b"\n")[0])["reason"] == guards.refusal.reason
    assert b"event: changed" not in rest[at:]
    assert api.gateway.places.open == 0


@pytest.mark.parametrize("path", OPEN)
async def test_no_event_follows_the_end_of_the_right(
    api: Served, guards: Guards, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = api.path("red", path.format(id="victim"))
    async with asyncio.timeout(60), api.session.get(url, headers={"Authorization": "Bearer ada"}) as stream:
        await until(stream, b"retry: ")
        guards.refusal = REFUSALS["the right is taken away"]
        # What comes now is of a task that she may no longer see.
        await api.gateway.client(api.namespace).handle("red", "victim").cancel()
        rest = await stream.content.read()
    assert b"event: problem" in rest
    assert b"cancelled" not in rest


async def test_a_wait_is_answered_by_the_rights_at_its_end(api: Served, guards: Guards) -> None:
    url = api.path("red", "/tasks/victim/wait?seconds=60")
    asking = asyncio.create_task(api.ask("GET", url, Authorization="Bearer ada"))
    await eventually(lambda: api.gateway.places.open == 1, within=20)
    guards.refusal = REFUSALS["the right is taken away"]
    await api.gateway.client(api.namespace).handle("red", "victim").cancel()
    answer = await asking
    assert (answer.status, answer.body["reason"]) == (403, "NotPermitted")


async def test_an_event_id_of_others_opens_nothing(api: Served, guards: Guards) -> None:
    for path in OPEN:
        theirs = api.path("red", path.format(id="victim"))
        own = theirs.replace(api.namespace, "other-room")
        for token in ("ada", "eve"):
            for given in ("1", f"{api.namespace}/red/victim", "galley.task.>"):
                headers = {"Authorization": f"Bearer {token}", "Last-Event-ID": given}
                for url in (own,) if token == "ada" else (own, theirs):
                    assert (await api.ask("GET", url, **headers)).status == 403, (url, headers)
    assert api.gateway.places.open == 0


async def test_one_who_goes_at_once_leaves_no_place_taken(api: Served) -> None:
    host, path = api.address.removeprefix("http://"), api.path("red").removeprefix(api.address)
    looked = 0
    status = AsyncHandle.status

    async def counted(handle: AsyncHandle[Any]) -> TaskStatus:
        nonlocal looked
        looked += 1
        return await status(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsyncHandle, "status", counted)
        for number in range(24):
            rest = (*OPEN, "/tasks/{id}/wait?seconds=60")[number % 3].format(id="victim")
            _, writer = await asyncio.open_connection("127.0.0.1", api.port)
            head = f"GET {path}{rest} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer ada\r\n\r\n"
            writer.write(head.encode())
            # It goes while its task is looked at, before anything is answered.
            await eventually(lambda: looked > number, within=20)  # noqa: B023 - awaited here
            writer.transport.abort()
    await eventually(lambda: not api.gateway.places.open, within=20)


def test_no_number_of_users_takes_all_places_of_a_gateway() -> None:
    """A tenant makes as many ServiceAccounts as it likes: what counts is the namespace, too."""
    places = Places(Limits(waits=8, waits_of_user=3))
    with ExitStack() as taken:
        refused: list[TooManyWaits] = []
        for number in range(20):
            try:
                taken.enter_context(places.taken(f"account-{number}", "hostile"))
            except TooManyWaits as error:
                refused.append(error)
        assert (places.open, len(refused)) == (6, 14)
        taken.enter_context(places.taken("ada", "shop"))
        taken.enter_context(places.taken("eve", "shop"))
        with pytest.raises(TooManyWaits):
            places.taken("ada", "shop").__enter__()
    assert places.open == 0
    for _ in range(3):
        taken.enter_context(places.taken("ada", "shop"))
    with pytest.raises(TooManyWaits), places.taken("ada", "other"):
        pass
    taken.close()


@pytest.mark.parametrize("version", ["2.3", "2.4"])
async def test_a_client_that_goes_while_it_is_sent_to_leaves_nothing_open(
    version: str, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events are being read meanwhile: what reads them has to end first."""
    monkeypatch.setattr(events, "QUIET_SECONDS", 0.01)
    sending, gone, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def never() -> AsyncGenerator[bytes, None]:
        try:
            await asyncio.Event().wait()
            yield b""
        finally:
            closed.set()

    async def send(message: MutableMapping[str, Any]) -> None:
        if b"still here" in message.get("body", b""):
            sending.set()
            await gone.wait()
            if version == "2.4":
                raise OSError("gone")
            await asyncio.Event().wait()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    scope = {"type": "http", "asgi": {"spec_version": version}, "method": "GET", "path": "/", "headers": []}
    place = api.gateway.places.taken("eve", "shop")
    response = events.held(api.gateway, place, Request(scope), never())
    answering = asyncio.create_task(response(scope, receive, send))
    await asyncio.wait_for(sending.wait(), 30)
    assert api.gateway.places.open == 1
    gone.set()
    [outcome] = await asyncio.wait_for(asyncio.gather(answering, return_exceptions=True), 30)
    assert outcome is None or isinstance(outcome, ClientDisconnect)
    assert closed.is_set()
    assert api.gateway.places.open == 0
