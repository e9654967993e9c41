"""A copy of the objects of one kind that is kept true by listing once and watching from there.

A watch alone loses deletions: those that happen while it is broken, and all of them when the server no longer
knows where it was. So whatever a new listing lacks counts as gone.

    list ──> watch ──(ends, breaks)──> watch from the last version
     ^                                    │
     └──────(version expired, or the listing is old)
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

from galley_operator.cluster.answer import Change, Event
from galley_operator.cluster.client import WATCH_SECONDS, Cluster
from galley_operator.cluster.errors import ClusterError, KindNotServed, ObjectInvalid, WatchExpired
from galley_operator.cluster.resource import Resource
from galley_operator.faults import Faults

log = logging.getLogger(__name__)

RELIST_SECONDS: Final = 900.0
"""Objects are listed again after this, so that no mistake of a watch persists."""

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 15.0

_HANDED_ON: Final = 500
"""Objects taken in before others get a turn."""

Key = tuple[str, str]
"""Namespace and name."""


class _Metadata(Protocol):
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def resource_version(self) -> str: ...


class Shaped(Protocol):
    """What is read of an object: at least where it is, and in which version."""

    @property
    def metadata(self) -> _Metadata:
        """Its metadata."""
        ...


class Kept(Protocol):
    """What is kept of an object."""

    @property
    def uid(self) -> str:
        """Tells it from others of the same name, before and after it."""
        ...


Shape = TypeVar("Shape", bound=Shaped)
Thing = TypeVar("Thing", bound=Kept)
Told_contra = TypeVar("Told_contra", bound=Kept, contravariant=True)


class Listener(Protocol[Told_contra]):
    """Is told what changes, in the middle of reading, so it must be quick."""

    def changed(self, key: Key, now: Told_contra, *, listed: bool) -> None:
        """Take in an object that is new or differs; `listed` if it was there when the listing was made."""

    def gone(self, key: Key, last: Told_contra) -> None:
        """Take in that an object is gone or no longer what was asked for; `last` is what was known of it.

        Even where the server tells, it sends the state before: which of the two it was cannot be seen.
        """


@dataclass(frozen=True)
class Source(Generic[Shape, Thing]):
    """What a reflector reflects."""

    resource: Resource
    shape: type[Shape]
    """What is read of an object; all else, managedFields above all, is never even decoded."""
    keep: Callable[[Shape, Thing | None], Thing]
    """Makes what is kept, given what was kept before of the same object, if anything."""
    namespaces: tuple[str | None, ...] = (None,)
    """None means all."""
    fields: str = ""
    labels: str = ""


class Reflector(Generic[Shape, Thing]):
    """Keeps `things` true for as long as `run` runs."""

    def __init__(
        self,
        cluster: Cluster,
        source: Source[Shape, Thing],
        listener: Listener[Thing],
        faults: Faults,
        *,
        relist_seconds: float = RELIST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.things: dict[Key, Thing] = {}
        self.synced = asyncio.Event()
        """Set once all there is has been taken in."""
        self.relists = 0
        """Listings so far beyond the first."""
        self._cluster, self._source, self._listener, self._clock = cluster, source, listener, clock
        self._faults = faults
        self._relist_seconds = relist_seconds
        self._unlisted = set(source.namespaces)
        self._heard = dict.fromkeys(source.namespaces, clock())

    @property
    def heard_at(self) -> float:
        """When something was last heard of the server."""
        return max(self._heard.values())

    @property
    def began(self) -> bool:
        """Whether all there is in a namespace has been taken in: rights may be missing in others."""
        return len(self._unlisted) < len(self._source.namespaces)

    def listed_in(self, namespace: str) -> bool:
        """Return whether all there is in a namespace has been taken in."""
        return self._unlisted.isdisjoint((None, namespace))

    def heard_in(self, namespace: str) -> float:
        """Return when something was last heard of a namespace."""
        return self._heard[namespace if namespace in self._heard else None]

    async def run(self) -> None:
        """Reflect until cancelled. Errors are logged, and what failed is tried again."""
        async with asyncio.TaskGroup() as group:
            for namespace in self._source.namespaces:
                name = f"reflect {self._source.resource.named(namespace, '')}"
                reflect = partial(self._reflect, namespace)
                group.create_task(self._faults.keep_running(name, reflect), name=name)

    async def _reflect(self, namespace: str | None) -> None:
        """List, and watch on; errors make the pauses longer, and only an expired version a new listing."""
        version, list_again_at, pause = "", 0.0, _FIRST_PAUSE
        while True:
            try:
                if not version or self._clock() >= list_again_at:
                    self.relists += namespace not in self._unlisted
                    version = await self._list(namespace)
                    self._unlisted.discard(namespace)
                    if not self._unlisted:
                        self.synced.set()
                    list_again_at = self._clock() + self._relist_seconds * random.uniform(0.8, 1.2)  # noqa: S311
                began = self._clock()
                version = await self._watch(namespace, version)
                # A server that ends each watch at once must not be asked without a pause.
                pause = _FIRST_PAUSE if self._clock() - began > 1.0 else min(pause * 2, _LONGEST_PAUSE)
            except WatchExpired as expired:
                log.info(
                    "watch expired, listing again", extra=self._labels(namespace) | {"error": str(expired)}
                )
                version = ""
                pause = min(pause * 2, _LONGEST_PAUSE)
            except _Broken as broken:
                version = broken.version
                pause = _FIRST_PAUSE if broken.told else min(pause * 2, _LONGEST_PAUSE)
                self._warn("watch broken", namespace, broken.cause)
            except ClusterError as error:
                pause = min(pause * 2, _LONGEST_PAUSE)
                self._warn("cannot list", namespace, error)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load

    async def _list(self, namespace: str | None) -> str:
        """Take in all there is, tell what is gone since, and return the version it was true at."""
        try:
            seen, version = await self._stream(namespace)
        except (ObjectInvalid, _NotStreamed):
            # Servers before 1.34 may not send what there is at the beginning of a watch.
            seen, version = await self._pages(namespace)
        for key in [key for key in self.things if namespace in (None, key[0]) and key not in seen]:
            self._remove(key)
        return version

    async def _stream(self, namespace: str | None) -> tuple[set[Key], str]:
        source = self._source
        seen: set[Key] = set()
        selected = self._cluster.watch_of(
            source.shape, source.resource, namespace,
            fields=source.fields, labels=source.labels, listing=True,
        )  # fmt: skip
        async with aclosing(selected) as events:
            async for event in events:
                self._heard[namespace] = self._clock()
                if event.listed:
                    return seen, event.version
                if event.object is None:
                    continue
                key = _key(event.object)
                if event.change is Change.DELETED:
                    seen.discard(key)
                    self._remove(key)
                else:
                    seen.add(key)
                    self._take(key, event.object, listed=True)
                if len(seen) % _HANDED_ON == 0:
                    await asyncio.sleep(0)
        raise _NotStreamed

    async def _pages(self, namespace: str | None) -> tuple[set[Key], str]:
        source = self._source
        seen: set[Key] = set()
        listed_at = ""
        pages = self._cluster.pages_of(
            source.shape, source.resource, namespace, fields=source.fields, labels=source.labels
        )
        async for things, version in pages:
            self._heard[namespace], listed_at = self._clock(), version
            for thing in things:
                seen.add(key := _key(thing))
                self._take(key, thing, listed=True)
        return seen, listed_at

    async def _watch(self, namespace: str | None, version: str) -> str:
        """Take in changes until the server ends the watch; returns where the next one begins."""
        source, told = self._source, False
        try:
            async for event in self._cluster.watch_of(
                source.shape, source.resource, namespace,
                fields=source.fields, labels=source.labels, resource_version=version,
                seconds=WATCH_SECONDS * random.uniform(0.8, 1.2),  # noqa: S311 - spreads load
            ):  # fmt: skip
                self._heard[namespace], told = self._clock(), True
                version = self._event(event)
        except (WatchExpired, KindNotServed):
            raise
        except ClusterError as error:
            raise _Broken(version, error, told=told) from error
        return version

    def _event(self, event: Event[Shape]) -> str:
        if event.object is None:
            return event.version
        key = _key(event.object)
        if event.change is Change.DELETED:
            self._remove(key)
        else:
            self._take(key, event.object, listed=False)
        return event.object.metadata.resource_version

    def _take(self, key: Key, shaped: Shape, *, listed: bool) -> None:
        """Take in an object; an exception costs this one alone."""
        try:
            self._keep(key, shaped, listed=listed)
        except Exception as error:
            self._faults.caught(f"{self._source.resource.plural} reflected", error, "/".join(key))

    def _keep(self, key: Key, shaped: Shape, *, listed: bool) -> None:
        before = self.things.get(key)
        now = self._source.keep(shaped, before)
        if before is not None and before.uid != now.uid:
            # Deleted and created again unseen: two objects that share a name.
            self._remove(key)
            before, now = None, self._source.keep(shaped, None)
        self.things[key] = now
        self._listener.changed(key, now, listed=listed)

    def _remove(self, key: Key) -> None:
        last = self.things.pop(key, None)
        if last is None:
            return
        try:
            self._listener.gone(key, last)
        except Exception as error:
            self._faults.caught(f"{self._source.resource.plural} reflected", error, "/".join(key))

    def _warn(self, event: str, namespace: str | None, error: BaseException) -> None:
        hint = error.hint if isinstance(error, ClusterError) else ""
        log.warning(event, extra=self._labels(namespace) | {"error": str(error), "hint": hint})

    def _labels(self, namespace: str | None) -> dict[str, Any]:
        return {"resource": self._source.resource.plural, "namespace": namespace or "all"}


class _NotStreamed(Exception):
    """The server ended the watch before it had told all there is."""


class _Broken(Exception):
    """A watch that ended with an error, and how far it came."""

    def __init__(self, version: str, cause: ClusterError, *, told: bool) -> None:
        super().__init__(str(cause))
        self.version, self.cause, self.told = version, cause, told


def _key(shaped: Shaped) -> Key:
    metadata = shaped.metadata
    return metadata.namespace, metadata.name
