"""What queues and namespaces may set aside on a real NATS."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from galley.broker.connection import Broker
from galley.broker.ensure import ensure, stream_info
from galley.broker.orphans import collect, mark_orphaned
from galley.broker.topology import QueueLayout, notes_stream, object_stream
from galley_local.nats_server import NatsServer
from galley_operator.errors import StorageQuotaExceeded
from galley_operator.queues.quota import check_quota
from galley_operator.quota import Quotas
from tests.support.builders import a_queue

MIB = 1024**2
ONE = a_queue().reserved_bytes
"""What a queue of `a_queue` sets aside."""


@pytest.fixture
async def broker(nats_server: NatsServer) -> AsyncIterator[Broker]:
    async with Broker(nats_server.url, name="test") as broker:
        yield broker


def quotas(**given: Any) -> Quotas:
    return Quotas.model_validate(given, by_alias=True)


async def made(broker: Broker, layout: QueueLayout, given: Quotas) -> None:
    await check_quota(broker, layout, given)
    await ensure(broker, layout)


async def test_a_namespace_sets_aside_no_more_than_it_may(broker: Broker, namespace: str) -> None:
    two = quotas(namespaceBytes=f"{2 * ONE // MIB}Mi")
    for name in ("a", "b"):
        await made(broker, a_queue(name, namespace=namespace), two)
    with pytest.raises(StorageQuotaExceeded, match=r"quotas.namespaceBytes") as refused:
        await made(broker, a_queue("c", namespace=namespace), two)
    assert (refused.value.used, refused.value.wanted, refused.value.limit) == (2 * ONE, ONE, 2 * ONE)
    # Another namespace has its own, and what is there is left alone.
    await made(broker, a_queue("c", namespace=f"{namespace}x"), two)
    await made(broker, a_queue("a", namespace=namespace), two)


async def test_a_queue_that_is_there_may_shrink_and_not_grow(broker: Broker, namespace: str) -> None:
    one = quotas(namespaceBytes=ONE)
    await made(broker, a_queue(namespace=namespace), one)
    with pytest.raises(StorageQuotaExceeded):
        await made(broker, a_queue(namespace=namespace, later_bytes=257 * MIB), one)
    await made(broker, a_queue(namespace=namespace, later_bytes=16 * MIB), one)
    small = {"later_bytes": MIB, "record_bytes": MIB, "object_bytes": MIB, "output_bytes": MIB}
    await made(broker, a_queue("b", namespace=namespace, **small), one)


async def test_a_queue_from_before_notes_and_objects_gets_their_streams(
    broker: Broker, namespace: str
) -> None:
    one, layout = quotas(namespaceBytes=ONE), a_queue(namespace=namespace)
    await made(broker, layout, one)
    for stream in (notes_stream(namespace, layout.queue), object_stream(namespace, layout.queue)):
        await broker.api("delete", f"STREAM.DELETE.{stream}")
    await made(broker, layout, one)
    assert await stream_info(broker, notes_stream(namespace, layout.queue)) is not None


async def test_one_queue_sets_aside_no_more_than_it_may(broker: Broker, namespace: str) -> None:
    huge = a_queue(namespace=namespace, backlog_bytes=1024**4)
    with pytest.raises(StorageQuotaExceeded, match=r"quotas.queueBytes"):
        await made(broker, huge, quotas(queueBytes="4Gi"))


async def test_deleted_queues_count_until_their_streams_are_gone(broker: Broker, namespace: str) -> None:
    one = quotas(namespaceQueues=1)
    await made(broker, a_queue("a", namespace=namespace), one)
    await mark_orphaned(broker, namespace, "a", datetime.now(UTC))
    with pytest.raises(StorageQuotaExceeded, match=r"is one more beside 1 .* 1 queues"):
        await made(broker, a_queue("b", namespace=namespace), one)
    await collect(broker, namespace, "a")
    await made(broker, a_queue("b", namespace=namespace), one)


async def test_a_namespace_can_have_quotas_of_its_own(broker: Broker, namespace: str) -> None:
    given = quotas(namespaceBytes=MIB, namespaceQueues=5, namespaces={namespace: {"namespaceBytes": "2Gi"}})
    await made(broker, a_queue(namespace=namespace), given)
    assert given.of(namespace).namespace_queues == 5
    with pytest.raises(StorageQuotaExceeded):
        await made(broker, a_queue(namespace=f"{namespace}x"), given)


@pytest.mark.parametrize("wrong", ["8GB", "lots", -1, "1Gi2"])
def test_what_is_no_amount_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"amount of bytes|greater than or equal"):
        quotas(namespaceBytes=wrong)
