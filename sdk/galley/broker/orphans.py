"""Streams whose queue is gone: kept for a while, so that a queue deleted by mistake loses nothing."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import msgspec

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import remove, stream_info
from galley.broker.errors import BrokerRefused
from galley.broker.listing import all_streams
from galley.broker.stream_kind import OF_NAMESPACE, StreamKind, name_of

_WithOffset = Annotated[datetime, msgspec.Meta(tz=True)]


@dataclass(frozen=True, slots=True)
class Kept:
    """A queue as its work stream names it."""

    namespace: str
    queue: str
    uid: str
    orphaned_at: datetime | None
    """Since when its queue is known to be gone; None if it is not."""


async def kept_queues(broker: Broker, install: str) -> list[Kept]:
    """Return the queues of an installation that have streams, whether or not they still exist themselves.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    found = []
    async for stream in all_streams(broker):
        config = stream["config"]
        metadata = config.get("metadata") or {}
        namespace, queue = metadata.get(topology.NAMESPACE_KEY, ""), metadata.get(topology.QUEUE_KEY, "")
        # One stream stands for both, and each that was made by us names its queue.
        if metadata.get(topology.OWNER_KEY) == install and config["name"] == topology.work_stream(
            namespace, queue
        ):
            found.append(Kept(namespace, queue, metadata.get(topology.UID_KEY, ""), _orphaned_at(metadata)))
    return found


async def mark_orphaned(broker: Broker, namespace: str, queue: str, at: datetime) -> None:
    """Write into a queue's work stream since when the queue is gone; `ensure` takes it away again.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    name = topology.work_stream(namespace, queue)
    info = await stream_info(broker, name)
    if info is None:
        return
    config = info["config"]
    metadata = {**config["metadata"], topology.ORPHANED_KEY: at.isoformat()}
    await broker.api(f"mark stream {name}", f"STREAM.UPDATE.{name}", {**config, "metadata": metadata})


async def collect(broker: Broker, namespace: str, queue: str) -> None:
    """Delete all there is of a queue: its streams with their tasks, its records, its dead letters.

    Raises:
        BrokerUnreachable: if the broker does not answer; doing it again goes on where it was.
    """
    for stream, pattern in (
        (topology.shared_records_stream(namespace), topology.records_of_queue(namespace, queue)),
        (topology.shared_records_stream(namespace), topology.key_subject(namespace, queue, "*")),
        (topology.shared_dead_stream(namespace), topology.dead_of_queue(namespace, queue)),
    ):
        await _ask_of(broker, stream, "PURGE", {"filter": pattern})
    for kind in StreamKind:
        if kind not in (StreamKind.WORK, StreamKind.LATER, *OF_NAMESPACE):
            await _ask_of(broker, name_of(kind, namespace, queue), "DELETE", None)
    # Last, since only their metadata tells that there is something left to be done.
    await remove(broker, namespace, queue)


async def collect_namespace(broker: Broker, namespace: str) -> None:
    """Delete the streams the queues of a namespace shared: the audit's, and those that 0.1 made.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    for stream in (
        topology.shared_records_stream(namespace),
        topology.shared_dead_stream(namespace),
        topology.audit_stream(namespace),
    ):
        await _ask_of(broker, stream, "DELETE", None)


async def _ask_of(broker: Broker, stream: str, verb: str, request: object) -> None:
    try:
        await broker.api(f"{verb.lower()} stream {stream}", f"STREAM.{verb}.{stream}", request)
    except BrokerRefused as refusal:
        if not refusal.missing:
            raise


def _orphaned_at(metadata: dict[str, str]) -> datetime | None:
    try:
        return msgspec.convert(metadata[topology.ORPHANED_KEY], _WithOffset, strict=False)
    except (KeyError, msgspec.ValidationError):
        return None
