"""Creates or updates a queue's streams and consumers; safe to repeat at any time."""

from typing import Any

from galley.broker import namespace_streams, stream_config, topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerRefused, QueueConflict
from galley.broker.mark import remove_mark, write_mark
from galley.broker.topology import QueueLayout


async def ensure(broker: Broker, layout: QueueLayout, replicas: int = 1) -> None:
    """Create what is missing and change what differs; tasks already there stay.

    Raises:
        QueueConflict: if a stream belongs to another installation, or a lane to be removed still holds
            tasks.
        BrokerRefused: if the broker does not accept a definition.
        BrokerUnreachable: if it does not answer.
    """
    where, life = (layout.namespace, layout.queue), broker.nats.life
    await _ensure_stream(broker, layout, stream_config.work_definition(layout, replicas))
    await _ensure_stream(broker, layout, stream_config.later_definition(layout, replicas))
    # Subjects of two streams must not overlap: a namespace with shared streams keeps these.
    if await records_stream_of(broker, *where) == topology.records_stream(*where):
        await _ensure_stream(broker, layout, stream_config.records_definition(layout, replicas))
    if await dead_stream_of(broker, *where) == topology.dead_stream(*where):
        await _ensure_stream(broker, layout, stream_config.dead_definition(layout, replicas))
    await _ensure_stream(broker, layout, stream_config.object_definition(layout, replicas))
    await _ensure_stream(broker, layout, stream_config.notes_definition(layout, replicas))
    await _ensure_stream(broker, layout, stream_config.counts_definition(layout, replicas))
    await _ensure_stream(broker, layout, stream_config.flow_definition(layout, replicas))
    await _ensure_stream(
        broker, layout, namespace_streams.audit_definition(layout.namespace, layout.install, replicas)
    )
    for stream, definition in stream_config.consumer_definitions(layout):
        await _ensure_consumer(broker, stream, definition)
    await _remove_disabled_lanes(broker, layout)
    await write_mark(broker, topology.work_stream(*where), life)


async def records_stream_of(broker: Broker, namespace: str, queue: str) -> str:
    """Return the stream a queue's records are in: its own, or the namespace's if 0.1 made that."""
    own, shared = topology.records_stream(namespace, queue), topology.shared_records_stream(namespace)
    return own if await stream_info(broker, shared) is None else shared


async def dead_stream_of(broker: Broker, namespace: str, queue: str) -> str:
    """Return the stream a queue's dead letters are in: its own, or the namespace's if 0.1 made that."""
    own, shared = topology.dead_stream(namespace, queue), topology.shared_dead_stream(namespace)
    return own if await stream_info(broker, shared) is None else shared


async def remove(broker: Broker, namespace: str, queue: str) -> None:
    """Delete a queue's work and later stream with all tasks in them; records and dead letters stay.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    for stream in (topology.work_stream(namespace, queue), topology.later_stream(namespace, queue)):
        try:
            await broker.api(f"delete stream {stream}", f"STREAM.DELETE.{stream}")
        except BrokerRefused as refusal:
            if not refusal.missing:
                raise


async def stream_info(broker: Broker, stream: str, request: object = None) -> dict[str, Any] | None:
    """Return JetStream's account of a stream, or None if there is none of that name."""
    try:
        return await broker.api(f"look at stream {stream}", f"STREAM.INFO.{stream}", request)
    except BrokerRefused as refusal:
        if refusal.missing:
            return None
        raise


async def _ensure_stream(broker: Broker, layout: QueueLayout, definition: dict[str, Any]) -> None:
    name = definition["name"]
    info = await stream_info(broker, name)
    if info is None:
        await broker.api(f"create stream {name}", f"STREAM.CREATE.{name}", definition)
        return
    present = info["config"]
    owner = present.get("metadata", {}).get(topology.OWNER_KEY)
    if owner != layout.install:
        raise QueueConflict(name, f"installation {owner!r}", f"it is not of installation {layout.install!r}")
    # The others hold what stays when a lane goes: outcomes, and counts of them.
    if name in (
        topology.work_stream(layout.namespace, layout.queue),
        topology.later_stream(layout.namespace, layout.queue),
    ):
        await _refuse_removing_used_lanes(broker, layout, name, present)
    # The number of replicas of what exists is an administrator's to change, not a restart's.
    wanted = {**definition, "num_replicas": present["num_replicas"]}
    if (marked := present.get("metadata", {}).get(topology.MARK_KEY)) is not None:
        wanted["metadata"] = {**definition["metadata"], topology.MARK_KEY: marked}
    if name == topology.later_stream(layout.namespace, layout.queue) and (
        info["state"]["bytes"] > wanted["max_bytes"] * topology.FIRST_SHARE
    ):
        # The server would delete tasks to get below it; the next look finds fewer.
        wanted["max_bytes"] = present["max_bytes"]
    # A queue that is made again takes back the streams that were to go with the one before.
    orphaned = topology.ORPHANED_KEY in present.get("metadata", {})
    if orphaned or any(not _same(present.get(key), value) for key, value in wanted.items()):
        await broker.api(f"update stream {name}", f"STREAM.UPDATE.{name}", {**present, **wanted})


def _same(present: object, wanted: object) -> bool:
    """Whether the server's value says what ours does; it adds keys of its own to metadata."""
    if isinstance(wanted, dict) and isinstance(present, dict):
        return all(present.get(key) == value for key, value in wanted.items())
    return present == wanted


async def _refuse_removing_used_lanes(
    broker: Broker, layout: QueueLayout, stream: str, present: dict[str, Any]
) -> None:
    before = present["metadata"].get(topology.LANES_KEY, "").split(",")
    for lane in set(before) - set(layout.lanes) - {""}:
        pattern = topology.later_of_lane(layout.namespace, layout.queue, lane)
        info = await stream_info(broker, stream, {"subjects_filter": pattern})
        if info is not None and (held := sum((info["state"].get("subjects") or {}).values())):
            raise QueueConflict(
                stream, f"queue {layout.queue!r}", f"lane {lane} cannot go while it holds {held} tasks"
            )


async def _ensure_consumer(broker: Broker, stream: str, definition: dict[str, Any]) -> None:
    name = definition["durable_name"]
    try:
        info = await broker.api(f"look at consumer {name}", f"CONSUMER.INFO.{stream}.{name}")
        present = info["config"]
        if all(present.get(key) == value for key, value in definition.items()):
            return
        # What the server does not let us change later stays as it was made.
        kept = {key: present[key] for key in ("max_waiting", "pause_until") if key in present}
        definition = {**definition, **kept}
        action = "update"
    except BrokerRefused as refusal:
        if not refusal.missing:
            raise
        action = "create"
        await remove_mark(broker, stream)
    await broker.api(
        f"{action} consumer {name} of {stream}",
        f"CONSUMER.CREATE.{stream}.{name}.{definition['filter_subject']}",
        {"stream_name": stream, "config": definition, "action": action},
    )


async def _remove_disabled_lanes(broker: Broker, layout: QueueLayout) -> None:
    for stream in (
        topology.work_stream(layout.namespace, layout.queue),
        topology.later_stream(layout.namespace, layout.queue),
    ):
        listed = await broker.api(f"list consumers of {stream}", f"CONSUMER.NAMES.{stream}")
        for name in set(listed.get("consumers") or ()) - {*layout.lanes, topology.PLAN, topology.TIMER}:
            await broker.api(f"delete consumer {name} of {stream}", f"CONSUMER.DELETE.{stream}.{name}")
