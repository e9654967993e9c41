"""Taking a backup: every stream is read, some of it twice, and written as one archive in constant memory."""

import logging
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from typing import Any, Final

from galley.backup import catalogue
from galley.backup.archive import (
    Heading,
    Manifest,
    Need,
    Part,
    StreamEntry,
    manifest_part,
    message_part,
    object_part,
    stored,
)
from galley.backup.catalogue import Summary, name_at, summary_of, write_summary
from galley.backup.destination import Destination
from galley.backup.errors import StreamUnknown, StreamUnstable
from galley.backup.objects import ObjectKind, Objects, kept, needs_of
from galley.backup.sealing import Key
from galley.broker.connection import Broker
from galley.broker.errors import BrokerRefused
from galley.broker.snapshot import (
    OwnedStream,
    StoredMessage,
    consumers_of,
    messages_from,
    owned_streams,
    unknown_streams,
)
from galley.broker.stream_kind import NOT_ARCHIVED

log = logging.getLogger(__name__)

_PART_BYTES: Final = 1024**2
_ROUNDS: Final = 2
_CATCH_UP: Final = 50
"""A stream grows too fast if so many times the messages it had at first were read without an end."""

_LEAST_MESSAGES: Final = 1_000_000


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Retention:
    """How many archives stay."""

    keep: int | None = None
    """So many complete ones; None keeps all."""
    keep_days: float | None = None
    """Those that are younger; None keeps all."""


@dataclass
class _Progress:
    """How far a stream was read."""

    stream: OwnedStream
    consumers: list[dict[str, Any]]
    position: int = 1
    first: int = 0
    messages: int = 0
    size: int = 0
    gone: bool = False

    def entry(self) -> StreamEntry:
        stream = self.stream
        return StreamEntry(
            stream.name, stream.kind, stream.namespace, stream.queue, stream.config, self.consumers,
            self.messages, self.size, self.first, self.position - 1, self.gone,
        )  # fmt: skip


@dataclass
class _Taking:
    """A backup under way."""

    broker: Broker
    objects: Objects | None
    namespaces: Sequence[str]
    now: Callable[[], datetime]
    streams: dict[str, _Progress] = field(default_factory=dict)
    headings: list[Heading] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    needs: set[Need] = field(default_factory=set)
    manifest: Manifest | None = None

    async def parts(self) -> AsyncIterator[bytes]:
        begun = self.now()
        for name in await unknown_streams(self.broker, tuple(self.namespaces)):
            raise StreamUnknown(name)
        # Objects first: what a Task object that is missed submits is not in the archive either.
        if self.objects is not None:
            for kind in ObjectKind:
                async for part in self._objects(self.objects, kind):
                    yield part
        for number in range(1, _ROUNDS + 1):
            for stream in await owned_streams(self.broker, tuple(self.namespaces)):
                if stream.kind in NOT_ARCHIVED:
                    continue
                async for part in self._stream(stream, number):
                    yield part
        server = self.broker.nats.connected_server_version
        self.manifest = Manifest(
            id=uuid.uuid4().hex,
            galley=version("galley-tasks"),
            server=f"{server.major}.{server.minor}.{server.patch}",
            taken_at=begun,
            finished_at=self.now(),
            streams=[each.entry() for each in self.streams.values()],
            objects=self.counts,
            needs=sorted(self.needs),
            parts=self.headings,
        )
        yield manifest_part(self.manifest)[1]

    def _added(self, made: tuple[Part, bytes]) -> bytes:
        self.headings.append(made[0].heading)
        return made[1]

    async def _objects(self, objects: Objects, kind: ObjectKind) -> AsyncIterator[bytes]:
        number, self.counts[kind] = 0, 0
        async for page in objects.listed(kind, self.namespaces):
            if not page:
                continue
            number += 1
            self.counts[kind] += len(page)
            if kind is ObjectKind.QUEUES:
                self.needs |= {need for body in page for need in needs_of(body)}
            yield self._added(object_part(f"{kind}/{number:06}", [kept(kind, body) for body in page]))

    async def _stream(self, stream: OwnedStream, number: int) -> AsyncIterator[bytes]:
        present = self.streams.get(stream.name)
        if present is None:
            consumers = await consumers_of(self.broker, stream.name)
            present = self.streams[stream.name] = _Progress(stream, consumers)
        elif stream.created != present.stream.created:
            raise StreamUnstable(stream.name, "it was deleted and made again while it was read")
        most = _CATCH_UP * max(stream.messages, _LEAST_MESSAGES) + present.messages
        waiting: list[StoredMessage] = []
        size = count = 0
        try:
            async for messages in messages_from(self.broker, stream, present.position):
                for message in messages:
                    waiting.append(message)
                    size += message.size
                    if size >= _PART_BYTES:
                        count += 1
                        yield self._added(self._part(present, number, count, waiting, size))
                        waiting, size = [], 0
                present.position = messages[-1].sequence + 1
                if present.messages > most:
                    raise StreamUnstable(stream.name, "it grows faster than it can be read")
        except BrokerRefused as refusal:
            if refusal.code != 404:
                raise
            log.warning("stream deleted while it was read", extra={"stream": stream.name})
            present.gone = True
        if waiting:
            yield self._added(self._part(present, number, count + 1, waiting, size))

    def _part(
        self, progress: _Progress, number: int, count: int, messages: list[StoredMessage], size: int
    ) -> tuple[Part, bytes]:
        progress.first = progress.first or messages[0].sequence
        progress.messages += len(messages)
        progress.size += size
        name = progress.stream.name
        return message_part(f"{number}/{name}/{count:06}", name, number, messages)


@dataclass
class _Measured:
    """Counts what goes into a file."""

    size: int = 0
    digest: Any = field(default_factory=sha256)

    async def through(self, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in data:
            self.size += len(piece)
            self.digest.update(piece)
            yield piece


async def take_backup(
    broker: Broker,
    destination: Destination,
    key: Key,
    *,
    objects: Objects | None = None,
    namespaces: Sequence[str] = (),
    retention: Retention = Retention(),
    now: Callable[[], datetime] = _now,
) -> tuple[Summary, list[str]]:
    """Write an archive of all streams, and of TaskQueues and Tasks.

    Args:
        broker: an open connection that may read the streams.
        destination: where the archive goes.
        key: encrypts it.
        objects: of a cluster; None leaves them out.
        namespaces: whose streams and objects; none means all.
        retention: which archives are deleted after this one was written.
        now: the clock.

    Returns:
        What was written, and the names of the archives that were deleted.

    Raises:
        BrokerError: if the streams cannot be read.
        StreamUnstable: if one could not be read as a whole.
        StreamUnknown: if one is of a newer version.
        DestinationFailed: if the archive could not be written; nothing remains of it.
        GalleyError: of the cluster, if the objects cannot be read.
    """
    name, taking, measured = name_at(now()), _Taking(broker, objects, namespaces, now), _Measured()
    await destination.write(name, measured.through(stored(taking.parts(), key)))
    assert taking.manifest is not None
    summary = summary_of(name, taking.manifest, measured.size, measured.digest.hexdigest())
    await write_summary(destination, summary)
    gone = []
    there = await catalogue.entries(destination)
    for each in catalogue.superfluous(there, now(), retention.keep, retention.keep_days):
        await catalogue.remove(destination, each)
        gone.append(each.name)
    return summary, gone
