from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from galley.broker.connection import Broker
from galley.broker.ensure import ensure, stream_info
from galley.broker.orphans import Kept, collect, collect_namespace, kept_queues, mark_orphaned
from galley.broker.publish import Publisher
from galley.broker.queue_view import queues
from galley.broker.topology import UID_KEY, dead_stream, records_stream, work_stream
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue, an_address, an_envelope

GONE_AT = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


@pytest.fixture
async def broker(nats_server: NatsServer) -> AsyncIterator[Broker]:
    async with Broker(nats_server.url, name="test") as connected:
        yield connected


async def test_streams_tell_whose_they_are(broker: Broker, namespace: str) -> None:
    await ensure(broker, a_queue(namespace=namespace, install=namespace, uid="uid-1"))
    assert await kept_queues(broker, namespace) == [Kept(namespace, "images", "uid-1", None)]
    assert await kept_queues(broker, "another") == []


async def test_since_when_a_queue_is_gone_is_kept_with_its_streams(broker: Broker, namespace: str) -> None:
    layout = a_queue(namespace=namespace, install=namespace, uid="uid-1")
    await ensure(broker, layout)
    await Publisher(broker).publish(an_address(of=layout), an_envelope())
    await mark_orphaned(broker, namespace, "images", GONE_AT)
    assert await kept_queues(broker, namespace) == [Kept(namespace, "images", "uid-1", GONE_AT)]
    [view] = await queues(broker, namespace)
    assert view.held == 1


async def test_a_queue_made_again_takes_back_its_streams_and_tasks(broker: Broker, namespace: str) -> None:
    layout = a_queue(namespace=namespace, install=namespace, uid="uid-1")
    await ensure(broker, layout)
    await Publisher(broker).publish(an_address(of=layout), an_envelope())
    await mark_orphaned(broker, namespace, "images", GONE_AT)
    await ensure(broker, a_queue(namespace=namespace, install=namespace, uid="uid-2"))
    assert await kept_queues(broker, namespace) == [Kept(namespace, "images", "uid-2", None)]
    [view] = await queues(broker, namespace)
    assert view.held == 1


async def test_a_queue_that_was_thought_gone_is_not_any_more(broker: Broker, namespace: str) -> None:
    layout = a_queue(namespace=namespace, install=namespace, uid="uid-1")
    await ensure(broker, layout)
    await mark_orphaned(broker, namespace, "images", GONE_AT)
    await ensure(broker, layout)
    assert await kept_queues(broker, namespace) == [Kept(namespace, "images", "uid-1", None)]


async def test_local_mode_has_streams_without_a_uid(broker: Broker, namespace: str) -> None:
    await ensure(broker, a_queue(namespace=namespace, install=namespace))
    assert await kept_queues(broker, namespace) == [Kept(namespace, "images", "", None)]
    info = await stream_info(broker, work_stream(namespace, "images"))
    assert info is not None
    assert UID_KEY not in info["config"]["metadata"]


async def test_collecting_a_queue_leaves_its_neighbour_alone(broker: Broker, namespace: str) -> None:
    for name in ("images", "mail"):
        layout = a_queue(name, namespace=namespace, install=namespace)
        await ensure(broker, layout)
        for verb in ("result", "dead"):
            answer = await broker.request(f"galley.{verb}.{namespace}.{name}.sdk.a", b"{}")
            assert answer is not None
    await collect(broker, namespace, "images")
    await collect(broker, namespace, "images")
    assert [kept.queue for kept in await kept_queues(broker, namespace)] == ["mail"]
    for stream in (records_stream(namespace, "mail"), dead_stream(namespace, "mail")):
        info = await stream_info(broker, stream, {"subjects_filter": ">"})
        assert info is not None
        [subject] = info["state"]["subjects"]
        assert ".mail." in subject


async def test_a_namespace_without_queues_keeps_nothing(broker: Broker, namespace: str) -> None:
    await ensure(broker, a_queue(namespace=namespace, install=namespace))
    for stream in (records_stream(namespace, "images"), dead_stream(namespace, "images")):
        assert await stream_info(broker, stream) is not None
    await collect(broker, namespace, "images")
    await collect_namespace(broker, namespace)
    await collect_namespace(broker, namespace)
    for stream in (records_stream(namespace, "images"), dead_stream(namespace, "images")):
        assert await stream_info(broker, stream) is None
