"""A gateway in this process, over a real broker, and a client of it."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp

from galley.broker.connection import Broker
from galley_gateway.access import Access, OpenAccess
from galley_gateway.app import application
from galley_gateway.gateway import Gateway
from galley_gateway.limits import Limits
from galley_gateway.oidc.provider import Provider
from galley_gateway.origin import TrustedProxies, networks
from galley_gateway.server import listen, serving


class Answer(NamedTuple):
    """What a request was answered with."""

    status: int
    body: Any
    headers: Any


class Served:
    """A gateway that is served, and requests to it."""

    def __init__(self, gateway: Gateway, session: aiohttp.ClientSession, port: int, namespace: str) -> None:
        self.gateway, self.session, self.port, self.namespace = gateway, session, port, namespace
        self.address = f"http://127.0.0.1:{port}"

    def path(self, queue: str, rest: str = "") -> str:
        """Return the path of something of a queue."""
        return f"{self.address}/api/v1/namespaces/{self.namespace}/queues/{queue}{rest}"

    async def ask(self, method: str, url: str, body: Any = None, **headers: str) -> Answer:
        """Send a request and return its answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(method, url, json=body, headers=named) as response:
            is_json = "json" in response.headers.get("content-type", "")
            found = await response.json(content_type=None) if is_json else await response.text()
            return Answer(response.status, found, response.headers)


@asynccontextmanager
async def served(  # noqa: PLR0917 - what a gateway is made of
    server: str,
    namespace: str,
    access: Access | None = None,
    limits: Limits | None = None,
    hosts: Collection[str] = (),
    provider: Provider | None = None,
    proxies: Collection[str] = (),
) -> AsyncIterator[Served]:
    """Serve a gateway for as long as the block."""
    async with Broker(server, name="gateway") as broker, aiohttp.ClientSession() as session:
        trusted = TrustedProxies(networks(proxies))
        gateway = Gateway(broker, access or OpenAccess(), limits or Limits(), (namespace,), provider, trusted)
        listening = listen("127.0.0.1", 0)
        port = listening.getsockname()[1]
        async with serving(application(gateway, hosts), gateway, listening):
            yield Served(gateway, session, port, namespace)
