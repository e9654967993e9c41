"""Gathering what `galley.doctor` judges, with whatever rights the credentials give."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
from nats.aio.msg import Msg

from galley.broker import inspect, queue_view, topology
from galley.broker.connection import Broker
from galley.broker.control import HEARTBEAT_SECONDS, Pause, ask_supply, decode_heartbeat
from galley.broker.creds_file import read_creds
from galley.broker.dead_letters import count_dead
from galley.broker.ensure import dead_stream_of, records_stream_of, stream_info
from galley.broker.errors import BrokerError, BrokerRefused, BrokerUnreachable, NotAllowed
from galley.broker.namespace_streams import topics_definition
from galley.broker.stream_config import stream_definitions
from galley.doctor import QueueFacts, ServerFacts, TopicFacts
from galley.unreadable import UNREADABLE

VERSION: Final = version("galley-tasks")
"""Of Galley here."""

_LISTEN_SECONDS: Final = 2.5 * HEARTBEAT_SECONDS
_LOOPBACK: Final = ("127.", "localhost", "[::1]", "::1")


async def server_facts(broker: Broker, credentials: Path | None) -> ServerFacts:
    """Return what is known of the server.

    Raises:
        BrokerUnreachable: if it does not answer.
    """
    version = broker.nats.connected_server_version
    usage = await broker.api("look at the use of JetStream", "INFO")
    limits = usage.get("limits") or {}
    end = read_creds(credentials).claims.exp if credentials is not None else 0
    host = broker.server.partition("://")[2].rpartition("@")[2]
    return ServerFacts(
        broker.server,
        f"{version.major}.{version.minor}.{version.patch}",
        broker.nats.encrypted,
        host.startswith(_LOOPBACK),
        datetime.now(UTC),
        credentials_end=datetime.fromtimestamp(end, UTC) if end else None,
        storage_used=int(usage.get("storage") or 0),
        storage_limit=int(limits.get("max_storage") or -1),
        storage_reserved=int(usage.get("reserved_storage") or 0),
    )


async def server_time(broker: Broker, namespace: str, queue: str) -> datetime | None:
    """Return the time by the server's clock, if an answer tells it."""
    with suppress(BrokerError, msgspec.ValidationError):
        info = await stream_info(broker, topology.work_stream(namespace, queue))
        if info is not None and "ts" in info:
            return msgspec.convert(info["ts"], datetime, strict=False)
    return None


async def queue_facts(broker: Broker, view: queue_view.QueueView, heard: "Heard | None") -> QueueFacts:
    """Return what is known of a queue.

    Args:
        broker: an open connection.
        view: the queue.
        heard: workers that were heard; None if that may not be listened to.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    namespace, queue = view.namespace, view.queue
    served, problem, held = await _supply(broker, namespace, queue)
    dead: int | None = None
    if not broker.has_credentials:
        with suppress(BrokerRefused):
            dead = await count_dead(broker, namespace, queue)
    work = await stream_info(broker, topology.work_stream(namespace, queue))
    metadata = work["config"].get("metadata", {}) if work is not None else {}
    locked = metadata.get(topology.ENCRYPTION_KEY) == topology.ENCRYPTED
    address = topology.parse_task_subject(f"galley.result.{namespace}.{queue}.sdk.none")
    found = await _streams(broker, view)
    return QueueFacts(
        queue,
        view.held,
        view.backlog_limit,
        view.paused,
        served,
        problem,
        held,
        None if heard is None else len(heard.get(queue, ())),
        dead,
        tuple(found.missing),
        tuple(found.differing),
        tuple(found.silent),
        locked and broker.payloads.keys_of(address) is None,
        tuple(found.usage),
        tuple(sorted(set((heard or {}).get(queue, {}).values()) - {VERSION})),
    )


async def _supply(broker: Broker, namespace: str, queue: str) -> tuple[bool | None, str, str]:
    """Return whether a queue is served, why its workers do not start, and what pauses it but a command."""
    try:
        supply = await ask_supply(broker, namespace, queue)
    except BrokerError:
        return None, "", ""
    if supply is None:
        return False, "", ""
    held = "; ".join(said for pause, said in supply.paused_by.items() if pause is not Pause.COMMAND)
    return True, "" if supply.paused_by else supply.problem, held


@dataclass
class _Streams:
    """What was found out about the streams of a queue."""

    missing: list[str] = field(default_factory=list)
    """Streams and consumers."""
    differing: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    usage: list[tuple[str, int, int]] = field(default_factory=list)


async def _streams(broker: Broker, view: queue_view.QueueView) -> _Streams:
    """Return what is wrong with the streams and consumers of a queue, and how full the streams are."""
    namespace, queue = view.namespace, view.queue
    work = topology.work_stream(namespace, queue)
    names = {"": work, "laterBytes": topology.later_stream(namespace, queue)}
    if not broker.has_credentials:
        names |= {
            "recordBytes": await records_stream_of(broker, namespace, queue),
            "deadLetterBytes": await dead_stream_of(broker, namespace, queue),
            "objectBytes": topology.object_stream(namespace, queue),
            "outputBytes": topology.notes_stream(namespace, queue),
            "workflowBytes": topology.flow_stream(namespace, queue),
        }
    found, configs = _Streams(), dict[str, dict[str, Any]]()
    for limit, name in names.items():
        try:
            info = await stream_info(broker, name)
        except BrokerUnreachable:
            found.silent.append(name)
            continue
        if info is None:
            found.missing.append(f"stream {name}")
            continue
        configs[name] = info["config"]
        if limit not in ("", "recordBytes", "outputBytes"):  # the last two delete their oldest themselves
            most = int(info["config"].get("max_bytes") or -1)
            found.usage.append((limit, int(info["state"]["bytes"]), most))
    found.differing = _differing(view, configs)
    for stream in (work, topology.later_stream(namespace, queue)):
        for lane in view.lanes if stream in configs else ():
            if await inspect.handed_out(broker, stream, lane) is None:
                found.missing.append(f"consumer {lane} of {stream}")
    return found


async def topic_facts(broker: Broker, namespace: str) -> TopicFacts | None:
    """Return what is known of the topics of a namespace; None if it has none, or if that may not be asked.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    name = topology.topics_stream(namespace)
    try:
        info = await stream_info(broker, name)
    except BrokerUnreachable:
        return TopicFacts(name, silent=True)
    except NotAllowed:
        return None
    if info is None:
        return None
    config = info["config"]
    subscribers = (config.get("metadata") or {}).get(topology.SUBSCRIBERS_KEY, "")
    waiting: list[tuple[str, int]] = []
    missing: list[str] = []
    for queue in filter(None, subscribers.split(",")):
        try:
            figures = await broker.api(f"look at consumer {queue} of {name}", f"CONSUMER.INFO.{name}.{queue}")
        except BrokerRefused:
            missing.append(queue)
            continue
        waiting.append((queue, int(figures["num_pending"]) + int(figures["num_ack_pending"])))
    wanted = topics_definition(namespace, "", 1, 1, ())
    differing = [key for key, value in wanted.items() if key not in _OF_TOPICS and config.get(key) != value]
    return TopicFacts(
        name,
        int(info["state"]["bytes"]),
        int(config.get("max_bytes") or -1),
        tuple(waiting),
        tuple(missing),
        tuple(differing),
    )


_OF_TOPICS: Final = frozenset({"max_bytes", "max_age", "duplicate_window", "num_replicas", "metadata"})
"""What Topics and the installation decide."""

_CHOSEN: Final = frozenset({"max_msgs", "max_bytes", "max_age", "num_replicas", "metadata"})
"""What a queue's manifest, the installation and administrators decide."""


def _differing(view: queue_view.QueueView, configs: dict[str, dict[str, Any]]) -> list[str]:
    """Return the streams that are not as this version makes them, each with the fields that differ."""
    layout = topology.QueueLayout(view.namespace, view.queue, view.lanes, 1, 1, 1, "")
    differing = []
    for definition in stream_definitions(layout, 1):
        if (present := configs.get(definition["name"])) is None:
            continue
        wanted = ((key, value) for key, value in definition.items() if key not in _CHOSEN)
        if fields := [key for key, value in wanted if present.get(key) != value]:
            differing.append(f"{definition['name']} ({', '.join(fields)})")
    return differing


Heard = Mapping[str, Mapping[str, str]]
"""Of each queue, its workers and the version of Galley in each."""


async def workers_heard(broker: Broker, namespace: str) -> Heard | None:
    """Return the workers that send heartbeats; None if the credentials do not let us listen."""
    if broker.has_credentials:
        return None
    found: dict[str, dict[str, str]] = {}

    async def hear(message: Msg) -> None:
        words = message.subject.split(".")
        with suppress(*UNREADABLE):
            found.setdefault(words[3], {})[words[4]] = decode_heartbeat(message.data).version

    subscription = await broker.subscribe(topology.heartbeat_subject(namespace, "*", "*"), hear)
    try:
        await asyncio.sleep(_LISTEN_SECONDS)
    finally:
        broker.unsubscribe(subscription)
    return found
