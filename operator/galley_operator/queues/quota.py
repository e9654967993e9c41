"""Quotas: what one queue, and all queues of a namespace, may set aside on NATS.

JetStream sets the bytes of a stream aside when it is created. Without a bound one namespace could set aside
all there is. Streams of deleted queues count until they are collected, so that making and deleting queues
gains nothing.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import stream_info
from galley.broker.listing import all_streams
from galley.broker.topology import QueueLayout
from galley_operator.errors import StorageQuotaExceeded, TopicsQuotaExceeded
from galley_operator.quota import NamespaceQuota, Quotas


@dataclass
class _Reserved:
    """The bytes set aside in a namespace."""

    queues: Counter[str] = field(default_factory=Counter)
    """By queue, deleted ones included."""
    topics: int = 0
    """For the events of all its topics."""


class Reservations:
    """Checks quotas for all that set bytes aside, one at a time: two must not take the last room."""

    def __init__(self, broker: Broker, quotas: Quotas) -> None:
        self._broker, self._quotas = broker, quotas
        self._reserving = asyncio.Lock()

    @asynccontextmanager
    async def of_queue(self, layout: QueueLayout) -> AsyncIterator[None]:
        """Have the streams of a queue made or changed in the block.

        Raises:
            StorageQuotaExceeded, BrokerUnreachable: as `check_quota`; the block does not run.
        """
        async with self._reserving:
            await check_quota(self._broker, layout, self._quotas)
            yield

    @asynccontextmanager
    async def of_topics(self, namespace: str, wanted: int) -> AsyncIterator[None]:
        """Have the stream of a namespace's topics made or changed in the block.

        Args:
            namespace: whose topics.
            wanted: bytes they set aside together.

        Raises:
            TopicsQuotaExceeded: if they would set aside more than is left; what they have they keep.
            BrokerUnreachable: if the broker does not answer.
        """
        async with self._reserving:
            await self._check_topics(namespace, wanted)
            yield

    async def _check_topics(self, namespace: str, wanted: int) -> None:
        limit = self._quotas.of(namespace).namespace_bytes
        if limit is None:
            return
        # What they have they keep: no listing at each look.
        info = await stream_info(self._broker, topology.topics_stream(namespace))
        if info is not None and wanted <= info["config"]["max_bytes"]:
            return
        others = sum((await _reserved(self._broker, namespace)).queues.values())
        if others + wanted > limit:
            raise TopicsQuotaExceeded(namespace, others, wanted, limit)


async def check_quota(broker: Broker, layout: QueueLayout, quotas: Quotas) -> None:
    """Refuse a queue that would set aside more than it may; what it has already it keeps.

    Raises:
        StorageQuotaExceeded: naming the quota, what is used, and what the queue asks for.
        BrokerUnreachable: if the broker does not answer.
    """
    quota = quotas.of(layout.namespace)
    if quota == NamespaceQuota():
        return
    found = await _reserved(broker, layout.namespace)
    reserved = found.queues
    present, wanted = reserved.pop(layout.queue, 0), layout.reserved_bytes
    others = sum(reserved.values()) + found.topics
    if wanted <= present:
        return
    name = f"{layout.namespace}/{layout.queue}"
    if quota.queue_bytes is not None and wanted > quota.queue_bytes:
        raise StorageQuotaExceeded(name, "queueBytes", 0, wanted, quota.queue_bytes)
    if quota.namespace_bytes is not None and others + wanted > quota.namespace_bytes:
        raise StorageQuotaExceeded(name, "namespaceBytes", others, wanted, quota.namespace_bytes)
    if quota.namespace_queues is not None and not present and len(reserved) >= quota.namespace_queues:
        raise StorageQuotaExceeded(name, "namespaceQueues", len(reserved), 1, quota.namespace_queues)


async def _reserved(broker: Broker, namespace: str) -> _Reserved:
    """Return the bytes set aside in a namespace.

    Those made before queues had streams of notes, objects and workflows count as if they had them: they get
    them.
    """
    found = _Reserved()
    reserved = found.queues
    there: set[str] = set()
    async for stream in all_streams(broker, f"galley.*.{namespace}.>", complete=True):
        metadata = stream["config"].get("metadata") or {}
        queue = metadata.get(topology.QUEUE_KEY)
        if stream["config"]["name"] == topology.topics_stream(namespace):
            found.topics = max(0, stream["config"].get("max_bytes") or 0)
        if queue is None or stream["config"]["name"] == topology.counts_stream(namespace, queue):
            continue  # counts are so small that they are not part of the quota
        if metadata.get(topology.NAMESPACE_KEY) == namespace:
            reserved[queue] += max(0, stream["config"].get("max_bytes") or 0)
            there.add(stream["config"]["name"])
    for queue in list(reserved):
        for name, size in (
            (topology.notes_stream(namespace, queue), topology.OUTPUT_BYTES),
            (topology.object_stream(namespace, queue), topology.OBJECT_BYTES),
            (topology.flow_stream(namespace, queue), topology.WORKFLOW_BYTES),
        ):
            reserved[queue] += 0 if name in there else size
    return found
