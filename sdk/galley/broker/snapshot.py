"""Reading whole streams: every message with its place, up to a moment when there is nothing more to read.

Messages are read by sequence with DIRECT.GET, which changes nothing and answers only to who asked. The
snapshots of JetStream do neither: see docs/adr/0018-backup-by-reading.md.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerRefused, BrokerUnreachable
from galley.broker.lean_client import status_in
from galley.broker.listing import all_streams, paged
from galley.broker.stream_kind import StreamKind, kind_of

_BATCH: Final = 1000
_BATCH_BYTES: Final = 4 * 1024**2
_SILENCE_SECONDS: Final = 5.0
_PATIENCE_SECONDS: Final = 60.0
"""How long to go on without an answer; a leader election or a restart of a server takes less."""

_PAUSE_SECONDS: Final = 0.5
_NOT_FOUND: Final = 10037
_UNAVAILABLE: Final = 10008
"""The servers elect a leader just now."""
ACK_FLOOR: Final = "galley.dev/ack-floor"
"""Beside the configuration of a consumer: the last sequence up to which all messages were acknowledged."""

_OURS: Final = (
    "nats-stream", "nats-subject", "nats-sequence", "nats-time-stamp", "nats-num-pending",
    "nats-last-sequence", "nats-upto-sequence",
)  # fmt: skip
"""Headers that the server adds to an answer."""


class StoredMessage(Struct, frozen=True, array_like=True, gc=False):
    """A message as it is in a stream."""

    subject: str
    sequence: int
    stored_at: str
    """RFC 3339, with nanoseconds."""
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def size(self) -> int:
        """Bytes of subject, headers and body."""
        return (
            len(self.subject) + len(self.body) + sum(len(name) + len(text) + 4 for name, text in self.headers)
        )


class OwnedStream(Struct, frozen=True):
    """A stream of Galley's."""

    kind: StreamKind
    namespace: str
    queue: str
    """Empty for streams that 0.1 made for a namespace."""
    config: dict[str, Any]
    created: str
    """When it was created, as the server writes it."""
    messages: int
    cluster: dict[str, Any] = {}
    """Which servers keep it; empty if there is only one."""

    @property
    def name(self) -> str:
        """What the server calls it."""
        return str(self.config["name"])


async def owned_streams(broker: Broker, namespaces: tuple[str, ...] = ()) -> list[OwnedStream]:
    """Return Galley's streams in the order in which they have to be read.

    Args:
        broker: an open connection.
        namespaces: whose streams; none means all.

    Raises:
        BrokerUnreachable: if the broker does not answer, or for a minute one of them has no leader.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _PATIENCE_SECONDS
    listed = None
    while listed is None:
        try:
            listed = [each async for each in all_streams(broker, complete=True)]
        except (BrokerUnreachable, BrokerRefused) as error:
            lasting = isinstance(error, BrokerRefused) and error.code != _UNAVAILABLE
            if lasting or loop.time() >= give_up:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
    found = []
    for stream in listed:
        config = stream["config"]
        metadata = config.get("metadata") or {}
        namespace, queue = metadata.get(topology.NAMESPACE_KEY), metadata.get(topology.QUEUE_KEY, "")
        if namespace is None or (namespaces and namespace not in namespaces):
            continue
        kind = kind_of(config["name"], namespace, queue)
        if kind is not None:
            count = int(stream["state"]["messages"])
            cluster = stream.get("cluster") or {}
            found.append(OwnedStream(kind, namespace, queue, config, stream["created"], count, cluster))
    order = list(StreamKind)
    return sorted(found, key=lambda each: (order.index(each.kind), each.name))


async def unknown_streams(broker: Broker, namespaces: tuple[str, ...] = ()) -> list[str]:
    """Return the names of streams of Galley whose kind this version does not know.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    found = []
    async for stream in all_streams(broker):
        metadata = stream["config"].get("metadata") or {}
        namespace, queue = metadata.get(topology.NAMESPACE_KEY), metadata.get(topology.QUEUE_KEY, "")
        if namespace is None or (namespaces and namespace not in namespaces):
            continue
        if kind_of(stream["config"]["name"], namespace, queue) is None:
            found.append(stream["config"]["name"])
    return found


async def consumers_of(broker: Broker, stream: str) -> list[dict[str, Any]]:
    """Return the configurations of a stream's durable consumers, and up to where they are done.

    Raises:
        BrokerError: if they cannot be listed.
    """

    async def page(offset: int) -> tuple[list[dict[str, Any]], int]:
        listed = await broker.api(
            f"list consumers of {stream}", f"CONSUMER.LIST.{stream}", {"offset": offset}
        )
        return listed.get("consumers") or [], int(listed["total"])

    return [
        {**each["config"], ACK_FLOOR: each["ack_floor"]["stream_seq"]}
        async for each in paged(page)
        if each["config"].get("durable_name")
    ]


async def messages_from(
    broker: Broker, stream: OwnedStream, sequence: int
) -> AsyncIterator[list[StoredMessage]]:
    """Yield the messages of a stream from a sequence on, until there is nothing more at that moment.

    Nothing that was in the stream when the reading ends is left out, unless it was there before `sequence`.

    Raises:
        BrokerRefused: with code 404 if there is no such stream any more.
        BrokerUnreachable: if no answer came for a minute.
    """
    several = int(stream.config.get("num_replicas", 1)) > 1
    while True:
        found, left = await _patiently(broker, stream.name, sequence, several=several)
        if found:
            sequence = found[-1].sequence + 1
            yield found
        if not left:
            return


async def every_message(broker: Broker, stream: str) -> AsyncIterator[StoredMessage]:
    """Yield the messages of a stream of one server or of several, by its name.

    Raises:
        BrokerRefused: with code 404 if there is no such stream.
        BrokerUnreachable: if no answer came for a minute.
    """
    info = await stream_info(broker, stream)
    if info is None:
        raise BrokerRefused(f"read stream {stream}", 404, "it was deleted")
    owned = OwnedStream(StreamKind.TOPICS, "", "", info["config"], info["created"], 0)
    async for batch in messages_from(broker, owned, 1):
        for message in batch:
            yield message


async def _patiently(
    broker: Broker, stream: str, sequence: int, *, several: bool
) -> tuple[list[StoredMessage], int]:
    """Return a batch, asking again while the server is away, and how many messages follow it."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _PATIENCE_SECONDS
    while True:
        try:
            answer = await _batch(broker, stream, sequence)
            if answer is not None and not answer[0] and several:
                # Any replica may have answered, and one that lags has all but the newest.
                newest = await _newer(broker, stream, sequence)
                answer = newest, len(newest)
            if answer is not None:
                return answer
            await _check_there(broker, stream)
            problem = BrokerUnreachable(broker.server, f"stream {stream} has no leader")
        except BrokerUnreachable as error:
            problem = error
        if loop.time() >= give_up:
            raise problem
        await asyncio.sleep(_PAUSE_SECONDS)


async def _check_there(broker: Broker, stream: str) -> None:
    if await stream_info(broker, stream) is None:
        raise BrokerRefused(f"read stream {stream}", 404, "it was deleted")


async def _batch(broker: Broker, stream: str, sequence: int) -> tuple[list[StoredMessage], int] | None:
    """Return messages and how many follow them, or None if nothing answers for the stream."""
    inbox = broker.nats.new_inbox()
    found: list[StoredMessage] = []
    ended: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()

    def on_message(_subject: str, _reply: str, body: bytes, block: bytes) -> None:
        status, description = status_in(block)
        headers = headers_in(block)
        if status and not ended.done():
            left = next((text for name, text in headers if name.lower() == "nats-num-pending"), "0")
            ended.set_result((f"{status} {description}", int(left)))
        elif not status:
            found.append(_message(headers, body))

    subscription = await broker.nats.subscribe_directly(inbox, on_message)
    try:
        request = {"seq": sequence, "next_by_subj": ">", "batch": _BATCH, "max_bytes": _BATCH_BYTES}
        broker.publish(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request), inbox)
        while not ended.done():
            before = len(found)
            await asyncio.wait({ended}, timeout=_SILENCE_SECONDS)
            if not ended.done() and len(found) == before:
                problem = f"stream {stream} was not read in {_SILENCE_SECONDS:g} s"
                raise BrokerUnreachable(broker.server, problem)
    finally:
        broker.unsubscribe(subscription)
    status, left = ended.result()
    if status.startswith("503"):
        return None
    if not status.startswith(("204", "404")):
        raise BrokerRefused(f"read stream {stream}", int(status[:3]), status[4:])
    return found, left


async def _newer(broker: Broker, stream: str, sequence: int) -> list[StoredMessage]:
    """Return the next message as the leader has it."""
    try:
        answer = await broker.api(
            f"read stream {stream}", f"STREAM.MSG.GET.{stream}", {"seq": sequence, "next_by_subj": ">"}
        )
    except BrokerRefused as refusal:
        if refusal.code == _NOT_FOUND:
            return []
        raise
    found = msgspec.convert(answer["message"], _Answer, strict=False)
    headers = [each for each in headers_in(found.hdrs) if each[0].lower() not in _OURS]
    return [StoredMessage(found.subject, found.seq, found.time, headers, found.data)]


class _Answer(Struct):
    """A message in an answer of the API."""

    subject: str
    seq: int
    time: str
    hdrs: bytes = b""
    data: bytes = b""


def headers_in(block: bytes) -> list[tuple[str, str]]:
    """Return the headers in a block, in its order, each as often as it is there.

    Clients choose what stands there: bytes that are no UTF-8 have no place in an archive, and are replaced.
    Only spaces are no part of a value: a subject may end with others.
    """
    lines = block.split(b"\r\n")[1:]
    pairs = (line.decode(errors="replace").partition(":") for line in lines if b":" in line)
    return [(name, text.strip(" \t")) for name, _, text in pairs]


def _message(headers: list[tuple[str, str]], body: bytes) -> StoredMessage:
    # A producer may write such headers, too; the server's follow them.
    told = {name.lower(): text for name, text in headers if name.lower() in _OURS}
    return StoredMessage(
        told["nats-subject"],
        int(told["nats-sequence"]),
        told["nats-time-stamp"],
        [each for each in headers if each[0].lower() not in _OURS],
        body,
    )
