"""The streams of queues that are gone, over an API and a nats-server in memory."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from galley.broker.ensure import ensure
from galley.broker.errors import BrokerUnreachable
from galley.broker.orphans import kept_queues, mark_orphaned
from galley_operator.cluster.errors import ApiRefused
from galley_operator.queues.collection import StreamCollector
from galley_operator.settings import OperatorSettings
from tests.support.builders import a_queue
from tests.support.eventually import eventually
from tests.support.memory_cluster import MemoryCluster
from tests.support.memory_nats import MemoryBroker, MemoryServer
from tests.support.virtual_time import in_virtual_time

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)


def a_collector(cluster: MemoryCluster, broker: MemoryBroker, server: MemoryServer) -> StreamCollector:
    settings = OperatorSettings(install="tests", orphan_seconds=100)
    return StreamCollector(cluster, broker, settings, lambda _: frozenset(), server.now)


@in_virtual_time
async def test_a_queue_that_cannot_be_asked_for_keeps_no_other(caplog: pytest.LogCaptureFixture) -> None:
    server, cluster = MemoryServer(BEGAN), MemoryCluster()
    ask = cluster.get

    async def refuse(resource: Any, namespace: str | None, name: str) -> Any:
        if name == "first":
            raise ApiRefused("get", f"taskqueues/{name}", 500, "broken for this one")
        return await ask(resource, namespace, name)

    cluster.get = refuse  # type: ignore[method-assign]
    async with MemoryBroker(server, "operator") as broker:
        for name in ("first", "second"):
            await ensure(broker, a_queue(name))
        running = asyncio.create_task(a_collector(cluster, broker, server).run())
        with caplog.at_level(logging.WARNING):
            await asyncio.sleep(400)
        assert {each.queue for each in await kept_queues(broker, "tests")} == {"first"}
        assert "streams of a queue not collected" in caplog.messages
        running.cancel()


@in_virtual_time
async def test_a_broker_that_is_away_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    server = MemoryServer(BEGAN)
    async with MemoryBroker(server, "operator") as broker:
        await ensure(broker, a_queue("gone"))
        running = asyncio.create_task(a_collector(MemoryCluster(), broker, server).run())
        broker.line.lose(to_server=lambda _subject: True)
        with caplog.at_level(logging.WARNING):
            await eventually(lambda: "streams not collected" in caplog.messages, within=200)
        broker.line.lose()
        await asyncio.sleep(400)
        assert await kept_queues(broker, "tests") == []
        running.cancel()


@in_virtual_time
async def test_a_broker_that_goes_away_within_a_look_is_not_asked_about_each_queue(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server, cluster = MemoryServer(BEGAN), MemoryCluster()
    async with MemoryBroker(server, "operator") as broker:
        for name in ("first", "second"):
            await ensure(broker, a_queue(name))
        ask = cluster.get

        async def lose(resource: Any, namespace: str | None, name: str) -> Any:
            broker.line.lose(to_server=lambda _subject: True)
            return await ask(resource, namespace, name)

        cluster.get = lose  # type: ignore[method-assign]
        with pytest.raises(BrokerUnreachable):
            await a_collector(cluster, broker, server).sweep()
        assert "streams of a queue not collected" not in caplog.messages


@in_virtual_time
async def test_a_mark_that_is_no_time_is_made_again() -> None:
    server = MemoryServer(BEGAN)
    async with MemoryBroker(server, "operator") as broker:
        await ensure(broker, a_queue("gone"))
        await mark_orphaned(broker, "default", "gone", datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake
        await a_collector(MemoryCluster(), broker, server).sweep()
        (kept,) = await kept_queues(broker, "tests")
        assert kept.orphaned_at is not None
        assert server.now() - kept.orphaned_at < timedelta(minutes=1)
