"""Restoring an archive: first it is checked as a whole, then what would be overwritten, then it is written.

Large data and workflows come before what refers to them, and records and dead letters before tasks, so that
a worker that takes a restored task finds out whether it has ended. Consumers are made last: no worker can
take a task before all of them are there. Each write is conditional, so a restore that was interrupted
continues when it is run again.
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from galley.backup.archive import Manifest, Part, StreamEntry, messages_in, objects_in
from galley.backup.destination import Destination
from galley.backup.errors import NamespaceBound, RestoreIncomplete, RestoreRefused
from galley.backup.objects import Made, ObjectKind, Objects, restorable
from galley.backup.rewrite import Rewrite
from galley.backup.sealing import Key
from galley.backup.verify import verified_parts, verify_archive
from galley.bounds import is_queue_name
from galley.broker.connection import Broker
from galley.broker.ensure import stream_info
from galley.broker.objects import buckets_of
from galley.broker.refill import (
    RESTORED,
    Refilled,
    make_consumer,
    make_stream,
    mark,
    message_ids,
    refill,
    remove_stranded,
    start_after,
)
from galley.broker.snapshot import ACK_FLOOR
from galley.broker.stream_kind import OF_NAMESPACE, StreamKind
from galley.broker.topology import ENCRYPTED, ENCRYPTION_KEY, MARK_KEY, RESTORING_KEY
from galley.errors import GalleyError

log = logging.getLogger(__name__)

PASSES: Final = (
    (StreamKind.OBJECTS, StreamKind.FLOWS, StreamKind.TOPICS, StreamKind.AUDIT),
    (StreamKind.RECORDS, StreamKind.DEAD),
    (StreamKind.LATER, StreamKind.WORK),
)

_ADD: Final = (
    "repair the cause and run the same command again with --keep-existing: it continues, and writes nothing "
    "twice"
)
"""Streams that are complete say no more that they are being restored, and may be in use by then."""

_NAMES: Final = "correct --map and --namespace; `galley backup verify` shows the streams of an archive"


class Plan(StrEnum):
    """What happens to a stream."""

    CREATE = "create"
    FILL = "fill the empty stream"
    CONTINUE = "continue"
    ADD = "add what is missing"


@dataclass(frozen=True, slots=True)
class PlannedStream:
    """A stream of an archive, and what happens to it."""

    entry: StreamEntry
    name: str
    """Its name after the restore."""
    plan: Plan


@dataclass(frozen=True, slots=True)
class PlannedObject:
    """An object of an archive that is restored."""

    kind: ObjectKind
    namespace: str
    name: str
    there: Made | None
    """How the one that is there already compares; None if there is none."""


@dataclass(slots=True)
class Outline:
    """What a restore does."""

    archive: str
    manifest: Manifest
    streams: list[PlannedStream]
    objects: list[PlannedObject] = field(default_factory=list)
    ended: int = 0
    """Tasks that have ended, which are not created again."""


@dataclass(slots=True)
class Report:
    """What a restore did."""

    outline: Outline
    written: int = 0
    """Messages."""
    kept: int = 0
    """Messages that were there already."""
    left_out: int = 0
    """Messages of a length or a subject that the broker does not take."""
    expired: int = 0
    """Records whose time was over."""
    stranded: int = 0
    """Records of tasks that were begun while the backup was taken, and whose messages are not in it."""
    created: int = 0
    """Objects."""
    buckets: set[str] = field(default_factory=set)
    """Where large data is that no archive has: there it has to be for the tasks to find it."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Restore:
    """One restore of one archive."""

    broker: Broker
    destination: Destination
    archive: str
    keys: Sequence[Key]
    objects: Objects | None = None
    namespaces: Mapping[str, str] = field(default_factory=dict)
    """Old name to new name."""
    only: Sequence[str] = ()
    """Old names of the namespaces to restore; none means all."""
    replicas: int | None = None
    keep_existing: bool = False
    """Whether to add to streams that hold messages, keeping those."""
    now: Callable[[], datetime] = _now

    async def outline(self) -> Outline:
        """Check the archive as a whole, and return what `run` would do; nothing is changed.

        Raises:
            ArchiveDamaged, ArchiveKeyWrong, ArchiveTooNew, DestinationFailed: if it cannot be read.
            RestoreRefused: if it would write into something that exists, or a namespace is named wrongly.
            NamespaceBound: if a queue with encrypted payloads was to move to another namespace.
            BrokerError: if the broker cannot be asked.
            GalleyError: if the cluster cannot be asked.
        """
        manifest = await verify_archive(self.destination, self.archive, self.keys)
        await self._check_namespaces(manifest)
        rewrite = self._rewrite()
        streams = [
            await self._planned(entry, rewrite.stream(entry), manifest.id)
            for entry in manifest.streams
            if self._chosen(entry.namespace)
        ]
        outline = Outline(self.archive, manifest, streams)
        if self.objects is not None:
            await self._plan_objects(self.objects, outline)
        return outline

    async def run(self, outline: Outline) -> Report:
        """Do it.

        Raises:
            RestoreIncomplete: if it was interrupted by an error; its hint says how to continue.
        """
        report, doing, hint = Report(outline), "nothing", None
        try:
            doing = "streams are being made"
            for planned in outline.streams:
                await self._open(planned, outline.manifest.id)
            refilled = Refilled()
            for kinds in PASSES:
                doing = f"{refilled.written + refilled.kept} messages are there"
                await self._fill(outline, kinds, refilled, report)
                report.written, report.kept = refilled.written, refilled.kept
                report.left_out = refilled.left_out
            doing = f"all {refilled.written + refilled.kept} messages are there, and no consumers"
            report.stranded = await remove_stranded(self.broker, refilled.unfinished)
            hint = _ADD
            await self._close(outline)
            doing = "all streams are complete, objects are not"
            if self.objects is not None:
                await self._create_objects(self.objects, report)
        except GalleyError as error:
            raise RestoreIncomplete(self.archive, doing, f"{error}", hint) from error
        return report

    def _rewrite(self) -> Rewrite:
        return Rewrite(self.now(), self.namespaces, self.replicas)

    def _chosen(self, namespace: str) -> bool:
        return not self.only or namespace in self.only

    async def _check_namespaces(self, manifest: Manifest) -> None:
        """Check that namespaces which are named are in the archive, and do not become one.

        Raises:
            RestoreRefused: if not.
        """
        there = {entry.namespace for entry in manifest.streams}
        if not there >= {*self.namespaces, *self.only}:
            async for part in self._parts(manifest):
                if not part.heading.stream:
                    there |= {body["metadata"]["namespace"] for body in objects_in(part, self.archive)}
        for name in (*self.namespaces, *self.only):
            if name not in there:
                raise RestoreRefused(f"namespace {name[:80]!r}", "is not in the archive", _NAMES)
        sources: dict[str, str] = {}
        for name in sorted(filter(self._chosen, there)):
            target = self._rewrite().namespace(name)
            if target != name and not is_queue_name(target):
                raise RestoreRefused(f"{target[:80]!r}", "cannot be the name of a namespace", _NAMES)
            if other := sources.get(target):
                raise RestoreRefused(
                    f"namespaces {other!r} and {name!r}", f"would both become {target!r}", _NAMES
                )
            sources[target] = name

    async def _planned(self, entry: StreamEntry, name: str, archive: str) -> PlannedStream:
        metadata = entry.config.get("metadata") or {}
        moved = self._rewrite().namespace(entry.namespace) != entry.namespace
        if moved and metadata.get(ENCRYPTION_KEY) == ENCRYPTED:
            raise NamespaceBound(entry.queue, entry.namespace)
        info = await stream_info(self.broker, name)
        if info is None:
            return PlannedStream(entry, name, Plan.CREATE)
        metadata = info["config"].get("metadata") or {}
        begun = metadata.get(RESTORING_KEY)
        if begun == archive:
            return PlannedStream(entry, name, Plan.CONTINUE)
        if begun is not None:
            raise RestoreRefused(f"stream {name}", f"is being restored from another archive (id {begun})")
        if (count := int(info["state"]["messages"])) == 0:
            return PlannedStream(entry, name, Plan.FILL)
        if not self.keep_existing:
            raise RestoreRefused(f"stream {name}", f"holds {count} messages")
        return PlannedStream(entry, name, Plan.ADD)

    async def _open(self, planned: PlannedStream, archive: str) -> None:
        if planned.plan is Plan.CREATE:
            config = self._rewrite().config(planned.entry)
            config["metadata"][RESTORING_KEY] = archive
            await make_stream(self.broker, config)
        else:
            # What is filled in comes as if it was never delivered.
            room = 0 if planned.plan is Plan.CONTINUE else self._rewrite().room(planned.entry)
            await mark(self.broker, planned.name, {RESTORING_KEY: archive, MARK_KEY: None}, room)

    async def _fill(
        self, outline: Outline, kinds: Sequence[StreamKind], refilled: Refilled, report: Report
    ) -> None:
        rewrite = self._rewrite()
        streams = {each.entry.name: each.entry for each in outline.streams if each.entry.kind in kinds}
        there: dict[str, frozenset[str]] = {}
        async for part in self._parts(outline.manifest):
            entry = streams.get(part.heading.stream)
            if entry is None:
                continue
            archived = messages_in(part, self.archive)
            outgoing = [new for each in archived if (new := rewrite.message(entry, each)) is not None]
            report.expired += len(archived) - len(outgoing)
            if entry.name not in there:
                there[entry.name] = await self._known(entry)
            known = there[entry.name]
            refilled.kept += sum(each.message_id in known for each in outgoing)
            outgoing = [each for each in outgoing if each.message_id not in known]
            if entry.kind is StreamKind.OBJECTS:
                report.buckets |= buckets_of(outgoing)
            await refill(self.broker, outgoing, newest=part.heading.round > 1, into=refilled)

    async def _known(self, entry: StreamEntry) -> frozenset[str]:
        """Return the ids of messages that are there, in a stream that may have several for a subject."""
        if entry.kind not in OF_NAMESPACE:
            return frozenset()
        return await message_ids(self.broker, self._rewrite().stream(entry))

    async def _close(self, outline: Outline) -> None:
        rewrite = self._rewrite()
        for planned in outline.streams:
            for consumer in planned.entry.consumers:
                if consumer.get("filter_subject") or consumer.get("filter_subjects"):
                    config = rewrite.consumer(consumer)
                    if planned.entry.kind in OF_NAMESPACE:
                        config.pop("opt_start_time", None)
                        config |= await start_after(self.broker, planned.name, consumer.get(ACK_FLOOR, 0))
                    await make_consumer(self.broker, planned.name, config)
            await mark(self.broker, planned.name, {RESTORING_KEY: None, RESTORED: outline.manifest.id})

    async def _bodies(self, manifest: Manifest) -> AsyncIterator[tuple[ObjectKind, dict[str, object] | None]]:
        rewrite = self._rewrite()
        async for part in self._parts(manifest):
            if part.heading.stream or (word := part.heading.name.partition("/")[0]) not in set(ObjectKind):
                continue
            for body in objects_in(part, self.archive):
                namespace = body["metadata"]["namespace"]
                if self._chosen(namespace):
                    kind = ObjectKind(word)
                    yield kind, restorable(kind, body, rewrite.namespace(namespace))

    async def _plan_objects(self, objects: Objects, outline: Outline) -> None:
        async for kind, body in self._bodies(outline.manifest):
            if body is None:
                outline.ended += 1
                continue
            metadata = body["metadata"]
            assert isinstance(metadata, dict)
            there = await objects.look(kind, body)
            outline.objects.append(PlannedObject(kind, metadata["namespace"], metadata["name"], there))

    async def _create_objects(self, objects: Objects, report: Report) -> None:
        async for kind, body in self._bodies(report.outline.manifest):
            if body is not None:
                report.created += await objects.create(kind, body) is Made.CREATED

    async def _parts(self, manifest: Manifest) -> AsyncIterator[Part]:
        async for part in verified_parts(self.destination, self.archive, self.keys, manifest):
            yield part
