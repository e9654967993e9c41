"""What is no longer listened to, which a connection that was lost meanwhile does not listen to again."""

import asyncio
import gc
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from galley.broker import checkup
from galley.broker.connection import Broker
from galley.broker.control import Answer, Request, Verb, answering, answering_as, ask_workers, hearing
from galley.broker.doorbell import Doorbell
from galley.broker.follow import Follower
from galley.broker.news import News
from galley.broker.pull import Pulls
from galley.broker.queue_shares import hearing_words
from galley.broker.waiting import hearing_changes
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue, an_address
from tests.support.eventually import eventually

PLACE = ("default", "images")
ADDRESS = an_address(of=a_queue("images", namespace="default"))


class NoListener:
    """Receives no deliveries."""

    def delivered(self, delivery: Any) -> None: ...
    def changed(self) -> None: ...
    def reconnected(self) -> None: ...


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    server = NatsServer(tmp_path / "nats", monitoring=True)
    await server.start()
    yield server
    server.kill()


async def listened_to(server: NatsServer, broker: Broker) -> list[str]:
    """Return what the server knows that a connection named `test` listens to."""
    assert await broker.reached(20)
    assert server.monitoring_url is not None

    def ask() -> list[str]:
        with urllib.request.urlopen(f"{server.monitoring_url}/connz?subs=1", timeout=20) as answer:
            (connection,) = json.load(answer)["connections"]
            return sorted(connection["subscriptions_list"])

    return await asyncio.to_thread(ask)


async def nothing(*_: Any) -> None:
    """Answer no request."""


async def listen(broker: Broker, stack: AsyncExitStack) -> None:
    """Listen in each way there is."""
    for each in (
        answering(broker, *PLACE, nothing),
        answering_as(broker, *PLACE, "one", lambda _: Answer("one")),
        hearing(broker, *PLACE, lambda _: None),
        hearing_words(broker, *PLACE, lambda _: None),
        hearing_changes(broker, PLACE[0], lambda _: None),
        News(broker).of(ADDRESS),
        Pulls(broker, a_queue("images", namespace=PLACE[0]), NoListener()),
    ):
        await stack.enter_async_context(each)
    await (await stack.enter_async_context(Doorbell(broker, *PLACE))).arm()
    for work in (
        Follower(broker, PLACE, lambda *_: None).run(),
        ask_workers(broker, *PLACE, Verb.PING, Request()),
        checkup.workers_heard(broker, PLACE[0]),
    ):
        task = asyncio.create_task(work)
        stack.push_async_callback(ended, task)


async def ended(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("lost", [False, True], ids=["on a connection", "while it is lost"])
async def test_what_is_no_longer_listened_to_is_not_sent(
    server: NatsServer, lost: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with Broker(server.url, name="test") as broker:
        before = await listened_to(server, broker)
        async with AsyncExitStack() as stack:
            await listen(broker, stack)

            async def listens() -> bool:
                # What asks for an answer or listens for a moment may have ended.
                return len(await listened_to(server, broker)) >= len(before) + 13

            await eventually(listens, within=20)
            if lost:
                server.kill()
                await eventually(lambda: not broker.connected, within=20, why="the connection is lost")
        if lost:
            await server.start()
            await eventually(lambda: broker.connected, within=20, why="it is made again")
        assert await listened_to(server, broker) == before
    gc.collect()
    assert "destroyed" not in caplog.text
