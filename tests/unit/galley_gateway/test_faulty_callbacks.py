"""An exception in any callback of the gateway costs one request or one connection, and the gateway goes on.

A callback is a method that is handed to another part (found in the code, so that a new one is tried as well),
what a connection does when its event loop or its parser says so, and what runs beside requests. In each in
turn an exception is raised the first time it is called. Operations, pages and streams are functions, which
tests/integration/galley_gateway/test_mistakes.py goes through.
"""

import ast
import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FunctionType
from typing import Any, Final

import pytest
from joserfc.jwk import ECKey, KeySet

import galley_gateway
from galley_gateway import server
from galley_gateway.access import OpenAccess
from galley_gateway.app import application
from galley_gateway.door import _Body
from galley_gateway.gateway import Gateway
from galley_gateway.limits import Limits
from galley_gateway.oidc.provider import OidcSettings, Provider
from galley_gateway.server import listen, serving
from tests.support.callbacks import Callbacks, Raising
from tests.support.eventually import eventually

ISSUER: Final = "https://login.example.com"

AT_THE_END: Final = {
    "_close_late": "ends a connection whose head is late; without it the client does, or what it sends next",
    "connection_lost": "a connection that was not counted off is waited for at the end of the process",
}
"""What ends a connection, which is not tried here: there is none left to go on."""

OF_CONNECTIONS: Final = sorted(
    name
    for name, each in vars(server._Connection).items()
    if isinstance(each, FunctionType) and name not in AT_THE_END
)
"""What the event loop and the parser call, and what those call."""

OF_PROVIDERS: Final = ("Provider._read_addresses", "Provider._read_keys")
OF_REQUESTS: Final = ("_Body.receive",)
ELSEWHERE: Final = {
    "Beats.hear": "costs a heartbeat; tests/integration/galley_gateway/test_mistakes.py",
    "Pages.namespaces": "no callback: a setting of the same name is handed on",
}
"""Callbacks that are not tried here, and why."""

BESIDE_REQUESTS: Final = {
    "api/events.py": 2,  # within a stream, which tells of it; test_mistakes.py
    "gateway.py": 3,  # within a wait, which is answered by it; test_odd_requests.py
    "pages/overview.py": 1,  # within a look at a page, which fails; test_mistakes.py
    "server.py": 1,  # the server: below
}
"""Tasks of the event loop that are begun, by file."""


class Line:
    """Requests to a gateway without a broker, each by a connection of its own."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def ask(self, text: str) -> bytes:
        """Send a request, and return all that is answered until the connection is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(text.replace("\n", "\r\n").encode())
            async with asyncio.timeout(10):
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def well(self) -> bool:
        """Return whether requests are answered, with and without a body."""
        page = await self.ask("GET /openapi.json HTTP/1.1\nHost: here\nConnection: close\n\n")
        body = "token=one"
        form = await self.ask(
            "POST /ui/login HTTP/1.1\nHost: here\nConnection: close\nContent-Length: 9\n"
            f"Content-Type: application/x-www-form-urlencoded\n\n{body}"
        )
        return page.startswith(b"HTTP/1.1 200") and form.startswith(b"HTTP/1.1 303")


@asynccontextmanager
async def a_gateway() -> AsyncIterator[Line]:
    nowhere: Any = None
    gateway = Gateway(nowhere, OpenAccess(), Limits(body_seconds=0.2))
    listening = listen("127.0.0.1", 0)
    async with serving(application(gateway), gateway, listening):
        yield Line(listening.getsockname()[1])


async def used(line: Line) -> None:
    """Have all happen that happens to connections; the last requests must be answered."""
    for _ in range(2):
        await line.well()
        assert b"200" not in await line.ask("GET / HTTP/1.1\nX-Slow: ")
    assert await line.well()


@pytest.mark.parametrize("name", OF_CONNECTIONS)
async def test_in_a_connection_it_costs_that_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raising = Raising(vars(server._Connection)[name])
    monkeypatch.setattr(server._Connection, name, raising.method)
    async with a_gateway() as line:
        await used(line)
    assert raising.times


async def test_in_what_reads_a_body_it_costs_that_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    raising = Raising(_Body.receive)
    monkeypatch.setattr(_Body, "receive", raising.method)
    async with a_gateway() as line:
        assert not await line.well()
        await used(line)
    assert any(each.exc_info and each.levelno >= logging.ERROR for each in caplog.records)


async def test_in_the_server_itself_it_is_logged_and_the_server_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    raising = Raising(server._Server.on_tick)
    raising.spared = 1
    monkeypatch.setattr(server._Server, "on_tick", raising.method)
    async with a_gateway() as line:
        await eventually(lambda: raising.times > 2, within=60)
        await used(line)
    assert [each.exc_info is not None for each in caplog.records if each.msg == "unexpected error"] == [True]


class Known(Provider):
    """A provider whose answers are here."""

    async def _ask(self, method: str, url: str, **_rest: Any) -> tuple[int, bytes]:
        assert method == "GET"
        key = ECKey.generate_key("P-256", {"kid": "one"})
        named = {"issuer": ISSUER, "authorization_endpoint": f"{ISSUER}/go", "jwks_uri": f"{ISSUER}/keys"}
        keys = KeySet([key]).as_dict(private=False)
        found: Any = keys if url.endswith("/keys") else named | {"token_endpoint": f"{ISSUER}/token"}
        return 200, json.dumps(found).encode()


@pytest.mark.parametrize("name", OF_PROVIDERS)
async def test_in_what_asks_a_provider_it_costs_that_question(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = name.partition(".")[2]
    raising = Raising(vars(Provider)[method])
    monkeypatch.setattr(Provider, method, raising.method)
    provider = Known(OidcSettings(ISSUER, "galley", "https://galley.example.com"))
    with pytest.raises(RuntimeError, match="raised by a test"):
        await provider._keys_with("one")
    assert {key.kid for key in await provider._keys_with("one")} == {"one"}
    assert (await provider.authorization_url("s", "n", "v")).startswith(f"{ISSUER}/go?")


def test_all_callbacks_are_tried_or_said_to_be_elsewhere() -> None:
    assert set(Callbacks(galley_gateway).all) == {*OF_PROVIDERS, *OF_REQUESTS, *ELSEWHERE}
    assert len(OF_CONNECTIONS) > 3
    root, found = Path(galley_gateway.__file__).parent, {}
    for path in sorted(root.rglob("*.py")):
        calls = [each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.Call)]
        begun = sum(ast.unparse(each.func).endswith(("create_task", "ensure_future")) for each in calls)
        if begun:
            found[str(path.relative_to(root))] = begun
    assert found == BESIDE_REQUESTS
