"""A browser, a gateway that can be stopped and started, and a worker."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Final

import pytest
from selenium import webdriver
from starlette.types import ASGIApp, Receive, Scope, Send

from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.missed_events import MissedEvents
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.broker.topics import topics_of
from galley.client import AsyncClient
from galley.topic import LATE_SECONDS, Subscription, Topic
from galley_gateway.access import Access, OpenAccess, Right, User
from galley_gateway.app import application
from galley_gateway.errors import NotIdentified, NotPermitted
from galley_gateway.gateway import Gateway
from galley_gateway.oidc.access import OidcAccess
from galley_gateway.oidc.provider import OidcSettings, Provider
from galley_gateway.server import listen, serving
from galley_local.nats_server import NatsServer
from tests.browser.covered import covered
from tests.support.builders import a_queue
from tests.support.chromium import chromium
from tests.support.eventually import eventually
from tests.support.evil_namespace import ROOM, evil_workers, write_evil
from tests.support.openid import provider_of_a_library
from tests.support.port import free_port
from tests.support.workers import WorkerProcess, a_task_queue

NAMESPACE: Final = "pages"


ASKED: Final[set[tuple[str, str]]] = set()
"""Methods and paths that were asked for during a test."""


def noted(app: ASGIApp) -> ASGIApp:
    """Return an application that notes what it is asked for."""

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        ASKED.add((scope["method"], scope["path"]))
        await app(scope, receive, send)

    return noting


@pytest.fixture(autouse=True)
def what_the_table_says(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that does not do what the table in README.md says of it."""
    ASKED.clear()
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed == failed:
        rows = [each for each in covered() if each.test == request.node.name]
        assert [each for each in rows if not each.is_in(ASKED)] == []


class ReadersAccess:
    """Admits the token `reader` to look at everything, and to change nothing."""

    login = True

    async def identify(self, token: str) -> User:
        if token != "reader":
            raise NotIdentified("its token is not known")
        return User("reader")

    async def check(self, user: User, right: Right, namespace: str, queue: str = "") -> None:
        del queue
        if right.verb not in {"get", "list"} or namespace != NAMESPACE:
            raise NotPermitted(user.name, right.verb, right.resource, namespace)


class Site:
    """A gateway on a port of its own, in a thread of its own."""

    def __init__(self, server: str, access: Access, issuer: str = "") -> None:
        self._server, self._access, self._issuer = server, access, issuer
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._thread: threading.Thread | None = None
        self._stop: Any = None
        self.start()

    def start(self) -> None:
        """Serve again, at the same address."""
        up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(up)), daemon=True)
        self._thread.start()
        assert up.wait(20)

    async def _serve(self, up: threading.Event) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        async with Broker(self._server, name="site") as broker, AsyncExitStack() as parts:
            access, provider = self._access, None
            if self._issuer:
                settings = OidcSettings(self._issuer, "galley", f"{self.address}/ui/login/callback", "secret")
                provider = await parts.enter_async_context(Provider(settings))
                access = OidcAccess(provider, access)
            gateway = Gateway(broker, access, namespaces=(NAMESPACE,), provider=provider)
            app = noted(application(gateway, ["127.0.0.1"]))
            async with serving(app, gateway, listen("127.0.0.1", self.port)):
                up.set()
                await stop.wait()

    def stop(self) -> None:
        """Serve no more."""
        assert self._thread is not None
        self._stop()
        self._thread.join(20)

    def page(self, rest: str) -> str:
        """Return the address of a page."""
        return f"{self.address}/ui/{NAMESPACE}/queues{rest}"


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def worked(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A queue `drills` with a worker."""
    queue = a_task_queue(NAMESPACE)

    async def prepare() -> None:
        async with Broker(nats_server.url, name="test") as broker:
            await ensure(broker, layout_of(queue, "tests"))
            await ensure(broker, a_queue("bare", namespace=NAMESPACE))
            declared = Declared(
                Topic("readings", retention_seconds=3600),
                (Subscription("hot", "drills", "echo", 'attributes.region == "eu"', ordered=True),),
            )
            missing = Declared(
                Topic("alarms", retention_seconds=3600),
                (
                    Subscription("loud", "drills", "echo", "attributes.level > 3"),
                    Subscription("all", "bare", "echo"),
                    Subscription("urgent", "bare", "echo", 'type == "fire"'),
                ),
            )
            assert await TopicKeeper(broker, NAMESPACE, "tests").keep([declared, missing]) == []

    asyncio.run(prepare())
    worker = WorkerProcess(nats_server.url, queue, tmp_path_factory.mktemp("worker"), "w1")
    asyncio.run(miss_events(nats_server.url))
    yield worker
    worker.kill()


async def miss_events(server: str) -> None:
    """Have `drills` fail at an event of `alarms`, and `bare`, which has no worker, miss two."""
    async with Broker(server, name="test") as broker:
        client = AsyncClient.over(broker, NAMESPACE, 20.0)
        keeper, missed = TopicKeeper(broker, NAMESPACE, "tests"), MissedEvents(broker, NAMESPACE)
        topics = await topics_of(broker, NAMESPACE)
        await client.publish("alarms", {"where": "hall"})
        await client.publish("alarms", {"where": "roof"}, attributes={"level": 1})

        async def failed() -> bool:
            found = await missed.look(topics, await keeper.time())
            return ("alarms", "drills") in found and found["alarms", "drills"].failed == 1

        await eventually(failed, within=60)
        found = await missed.look(topics, await keeper.time() + timedelta(seconds=3600 + LATE_SECONDS))
        assert found["alarms", "bare"].expired == 2


@pytest.fixture(scope="module")
def site(nats_server: NatsServer, worked: WorkerProcess) -> Iterator[Site]:
    del worked
    found = Site(nats_server.url, OpenAccess())
    yield found
    found.stop()


@pytest.fixture
def evil_room(nats_server: NatsServer) -> Iterator[str]:
    """A namespace in which everything that others write would like to run."""

    async def run(begun: threading.Event, stop: threading.Event) -> None:
        await write_evil(nats_server.url)
        async with evil_workers(nats_server.url):
            begun.set()
            await asyncio.to_thread(stop.wait)

    begun, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(run(begun, stop)), daemon=True)
    thread.start()
    assert begun.wait(60)
    yield ROOM
    stop.set()
    thread.join(20)


@pytest.fixture
def readers(nats_server: NatsServer, worked: WorkerProcess) -> Iterator[Site]:
    del worked
    found = Site(nats_server.url, ReadersAccess())
    yield found
    found.stop()


@pytest.fixture
def people(nats_server: NatsServer, worked: WorkerProcess) -> Iterator[Site]:
    """A gateway with a provider that knows ada."""
    del worked
    with provider_of_a_library({"sub": "ada"}) as issuer:
        found = Site(nats_server.url, ReadersAccess(), issuer)
        yield found
        found.stop()
