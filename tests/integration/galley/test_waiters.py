"""Thousands of waiters on one connection, against a real broker."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from galley import Client, Handle, call, connect
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.news import FEW
from galley.broker.records import Records
from galley.handle import AsyncHandle
from galley.record import Outcome, Record, State
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue
from tests.support.eventually import eventually

WAITERS = 2000


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """Provide a server that tells of its connections."""
    async with NatsServer(tmp_path / "nats", monitoring=True) as server:
        yield server


def subscriptions(server: NatsServer) -> list[int]:
    """Return how many subscriptions each connection has."""
    with urllib.request.urlopen(f"{server.monitoring_url}/connz", timeout=5) as answer:
        return sorted(each["subscriptions"] for each in json.load(answer)["connections"])


async def end(broker: Broker, handles: Sequence[AsyncHandle[Any] | Handle[Any]]) -> None:
    """End tasks as a worker does, each with its place as its result."""
    records = Records(broker)

    async def write(place: int, handle: AsyncHandle[Any] | Handle[Any]) -> None:
        record = Record(State.DONE, 1, outcome=Outcome.SUCCEEDED, result=Raw(b"%d" % place))
        assert (await records.write(handle.address, record, 0)).stored

    await asyncio.gather(*(write(*each) for each in enumerate(handles)))


async def test_2000_waiters_share_a_subscription_and_all_are_served(watched: NatsServer) -> None:
    async with connect(watched.url, "default") as client, Broker(watched.url, name="worker") as worker:
        await ensure(worker, a_queue("images", backlog=WAITERS))
        handles = await client.submit_many(call("images", "resize", n=n) for n in range(WAITERS))
        idle = subscriptions(watched)[-1]
        waiting = [asyncio.create_task(handle.result(within=60)) for handle in handles]
        await eventually(lambda: subscriptions(watched)[-1] == idle + FEW + 1, within=20)
        first = asyncio.create_task(end(worker, handles[: WAITERS // 2]))
        # The connection is lost while they end: whose news were missed is found when it is back.
        await client.broker.nats.drop()
        await first
        assert await asyncio.gather(*waiting[: WAITERS // 2]) == list(range(WAITERS // 2))
        assert subscriptions(watched)[-1] <= idle + FEW + 1
        await end(worker, handles[WAITERS // 2 :])
        assert await asyncio.gather(*waiting[WAITERS // 2 :]) == list(range(WAITERS // 2))
        await eventually(lambda: subscriptions(watched)[-1] == idle, within=30)


async def test_threads_that_wait_with_a_sync_client_share_a_subscription(watched: NatsServer) -> None:
    async with Broker(watched.url, name="worker") as worker:
        await ensure(worker, a_queue("images"))
        with Client(watched.url, "default") as client, ThreadPoolExecutor(2 * FEW) as threads:
            handles = await asyncio.to_thread(
                client.submit_many, [call("images", "resize", n=n) for n in range(2 * FEW)]
            )
            idle = subscriptions(watched)[-1]
            waiting = [threads.submit(handle.result, 60) for handle in handles]
            await eventually(lambda: subscriptions(watched)[-1] == idle + FEW + 1, within=20)
            completed = asyncio.create_task(asyncio.to_thread(lambda: list(client.as_completed(handles, 60))))
            await end(worker, handles)
            assert {handle.id for handle in await completed} == {handle.id for handle in handles}
            assert [each.result() for each in waiting] == list(range(2 * FEW))
            await eventually(lambda: subscriptions(watched)[-1] == idle, within=30)
