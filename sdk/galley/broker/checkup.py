"""Gathering what `galley.doctor` judges, with whatever rights the credentials give."""

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from nats.aio.msg import Msg

from galley.broker import inspect, topology
from galley.broker.connection import Broker
from galley.broker.control import HEARTBEAT_SECONDS, ask_supply
from galley.broker.creds_file import read_creds
from galley.broker.dead_letters import count_dead
from galley.broker.ensure import dead_stream_of, records_stream_of, stream_info
from galley.broker.errors import BrokerError, BrokerRefused
from galley.doctor import QueueFacts, ServerFacts

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


async def queue_facts(broker: Broker, view: inspect.QueueView, heard: Counter[str] | None) -> QueueFacts:
    """Return what is known of a queue.

    Args:
        broker: an open connection.
        view: the queue.
        heard: workers that were heard, by queue; None if that may not be listened to.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    namespace, queue = view.namespace, view.queue
    served, problem = await _supply(broker, namespace, queue)
    dead: int | None = None
    if not broker.has_credentials:
        with suppress(BrokerRefused):
            dead = await count_dead(broker, namespace, queue)
    work = await stream_info(broker, topology.work_stream(namespace, queue))
    metadata = work["config"].get("metadata", {}) if work is not None else {}
    locked = metadata.get(topology.ENCRYPTION_KEY) == topology.ENCRYPTED
    address = topology.parse_task_subject(f"galley.result.{namespace}.{queue}.sdk.none")
    missing, usage = await _streams(broker, view)
    return QueueFacts(
        queue,
        view.held,
        view.backlog_limit,
        view.paused,
        served,
        problem,
        None if heard is None else heard[queue],
        dead,
        tuple(missing),
        locked and broker.payloads.keys_of(address) is None,
        tuple(usage),
    )


async def _supply(broker: Broker, namespace: str, queue: str) -> tuple[bool | None, str]:
    try:
        supply = await ask_supply(broker, namespace, queue)
    except BrokerError:
        return None, ""
    return supply is not None, supply.problem if supply is not None else ""


async def _streams(broker: Broker, view: inspect.QueueView) -> tuple[list[str], list[tuple[str, int, int]]]:
    """Return the names of streams and consumers that are missing, and how full the streams are."""
    namespace, queue = view.namespace, view.queue
    names = {"laterBytes": topology.later_stream(namespace, queue)}
    if not broker.has_credentials:
        names |= {
            "recordBytes": await records_stream_of(broker, namespace, queue),
            "deadLetterBytes": await dead_stream_of(broker, namespace, queue),
            "objectBytes": topology.object_stream(namespace, queue),
            "outputBytes": topology.notes_stream(namespace, queue),
        }
    missing: list[str] = []
    usage: list[tuple[str, int, int]] = []
    for limit, name in names.items():
        info: dict[str, Any] | None = await stream_info(broker, name)
        if info is None:
            missing.append(f"stream {name}")
        elif limit not in ("recordBytes", "outputBytes"):  # these delete their oldest themselves
            usage.append((limit, int(info["state"]["bytes"]), int(info["config"].get("max_bytes") or -1)))
    for stream in (topology.work_stream(namespace, queue), topology.later_stream(namespace, queue)):
        for lane in view.lanes:
            if f"stream {stream}" not in missing and await inspect.handed_out(broker, stream, lane) is None:
                missing.append(f"consumer {lane} of {stream}")
    return missing, usage


async def workers_heard(broker: Broker, namespace: str) -> Counter[str] | None:
    """Return how many workers of each queue send heartbeats; None if the credentials do not let us listen."""
    if broker.has_credentials:
        return None
    found: set[tuple[str, str]] = set()

    async def hear(message: Msg) -> None:
        words = message.subject.split(".")
        found.add((words[3], words[4]))

    subscription = await broker.subscribe(topology.heartbeat_subject(namespace, "*", "*"), hear)
    await asyncio.sleep(_LISTEN_SECONDS)
    if broker.connected:
        await subscription.unsubscribe()
    return Counter(queue for queue, _ in found)
