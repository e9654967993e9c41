# ruff: noqa: ARG002 - the methods take what the real ones take
"""The API in memory with watches: streams of events that a test may cut, end, expire, or put bytes into."""

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, NamedTuple

import msgspec

from galley_operator.cluster.answer import Change, Event, events_in, page_in
from galley_operator.cluster.errors import ClusterUnreachable, WatchExpired
from galley_operator.cluster.resource import TASKS, Resource
from tests.support.memory_cluster import MemoryCluster, Object


class _Past(NamedTuple):
    """One change, with the object before and after it."""

    version: int
    plural: str
    before: Object | None
    after: Object | None


class WatchedCluster(MemoryCluster):
    """A `MemoryCluster` that can be listed and watched."""

    def __init__(self) -> None:
        super().__init__()
        self.past: list[_Past] = []
        self.oldest = 0
        """Watches from a version before this one have expired."""
        self.lists = 0
        """Listings so far."""
        self.away = False
        """Whether no request reaches the server."""
        self._changed = asyncio.Event()
        self._cut = asyncio.Event()

    def cut(self) -> None:
        """Break all watches."""
        cut, self._cut = self._cut, asyncio.Event()
        cut.set()

    def task(self, name: str, namespace: str = "default", **spec: Any) -> Object:
        """Have a Task be there, as `kubectl apply` makes it."""
        metadata = {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{len(self.past)}",
            "creationTimestamp": spec.pop("created", "2026-03-01T08:00:00Z"),
        }
        spec = {"queueName": "images", "handler": "resize", **spec}
        return self.put(TASKS, {"metadata": metadata, "spec": spec})

    def remove(self, resource: Resource, name: str, namespace: str = "default") -> None:
        """Have an object be gone, as `kubectl delete` does it."""
        gone = self.objects.pop((resource.plural, namespace, name))
        self._version += 1
        self._note(_Past(self._version, resource.plural, gone, None))

    def status(self, name: str, namespace: str = "default") -> Object:
        """Return the status of a Task; empty if it has none."""
        status: Object = self.objects[TASKS.plural, namespace, name].get("status", {})
        return status

    def condition(self, name: str, namespace: str = "default") -> tuple[str, str, str]:
        """Return phase, and status and reason of the condition `Succeeded`."""
        status = self.status(name, namespace)
        conditions: list[Object] = status.get("conditions", [])
        found = next((each for each in conditions if each["type"] == "Succeeded"), {})
        return status.get("phase", ""), found.get("status", ""), found.get("reason", "")

    async def apply(
        self,
        resource: Resource,
        body: Object,
        *,
        manager: str,
        force: bool = True,
        subresource: str = "",
    ) -> Object:
        metadata = body["metadata"]
        present = self.objects.get((resource.plural, metadata.get("namespace", ""), metadata["name"]))
        if present is None and not subresource and "uid" not in metadata:
            return await self.create(resource, body, manager=manager)
        changes = {key: value for key, value in body.items() if key != "metadata"}
        if present is not None and not _changes(present, changes):
            return copy.deepcopy(present)  # the server writes nothing where nothing changes
        return await super().apply(resource, body, manager=manager, force=force, subresource=subresource)

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, uid: str | None = None
    ) -> None:
        key = resource.plural, namespace or "", name
        before = self.objects.get(key)
        await super().delete(resource, namespace, name, uid=uid)
        self._version += 1
        self._note(_Past(self._version, resource.plural, before, None))

    def _touch(self, present: Object, *, generation: bool = False) -> None:
        super()._touch(present, generation=generation)
        plural = next((key[0] for key, each in self.objects.items() if each is present), "")
        snapshot: Object = msgspec.json.decode(msgspec.json.encode(present))
        before = next(
            (
                past.after
                for past in reversed(self.past)
                if past.after is not None and past.after["metadata"]["uid"] == present["metadata"]["uid"]
            ),
            None,
        )
        self._note(_Past(self._version, plural, before, snapshot))

    def _note(self, past: _Past) -> None:
        self.past.append(past)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def pages_of(
        self,
        shape: type[Any],
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 500,
    ) -> AsyncIterator[tuple[list[Any], str]]:
        self.lists += 1
        self._reach()
        there = [each for key, each in self.objects.items() if key[0] == resource.plural]
        found = [each for each in there if _selected(each, namespace, fields)]
        shaped = page_in(msgspec.json.encode({"items": found}), shape)
        yield shaped.items, str(self._version)

    async def watch_of(
        self,
        shape: type[Any],
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        resource_version: str = "",
        listing: bool = False,
        seconds: float = 300,
    ) -> AsyncGenerator[Event[Any], None]:
        self._reach()
        version = int(resource_version or 0)
        if listing:
            self.lists += 1
            version = self._version
            there = [each for key, each in self.objects.items() if key[0] == resource.plural]
            for each in there:
                for event in _events(Change.ADDED, each, shape) if _selected(each, namespace, fields) else ():
                    yield event
            yield Event(Change.BOOKMARK, None, str(version), listed=True)
        elif version < self.oldest:
            raise WatchExpired(resource.plural, "too old resource version")
        cut, ends_at = self._cut, asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < ends_at:
            changed = self._changed
            for past in [each for each in self.past if each.version > version]:
                version = past.version
                for event in _told(past, resource, namespace, fields, shape):
                    yield event
            if changed is self._changed:
                await self._wait(changed, cut)

    async def _wait(self, changed: asyncio.Event, cut: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (changed, cut)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=60)
        finally:
            for wait in waits:
                wait.cancel()
        if cut.is_set():
            raise ClusterUnreachable("watch", "https://memory", "the watch was cut")

    def _reach(self) -> None:
        if self.away:
            raise ClusterUnreachable("list", "https://memory", "it is away")


def _changes(present: object, changes: object) -> bool:
    if isinstance(present, dict) and isinstance(changes, dict):
        return any(_changes(present.get(key), value) for key, value in changes.items())
    return present != changes


def _told(
    past: _Past, resource: Resource, namespace: str | None, fields: str, shape: type[Any]
) -> list[Event[Any]]:
    if past.plural != resource.plural:
        return []
    before = past.before is not None and _selected(past.before, namespace, fields)
    after = past.after is not None and _selected(past.after, namespace, fields)
    if after and past.after is not None:
        return _events(Change.MODIFIED if before else Change.ADDED, past.after, shape)
    return _events(Change.DELETED, past.before, shape) if before and past.before is not None else []


def _events(change: Change, body: Object, shape: type[Any]) -> list[Event[Any]]:
    line = msgspec.json.encode({"type": change.value, "object": body})
    return list(events_in([line], shape, "watch"))


def _selected(body: Object, namespace: str | None, fields: str) -> bool:
    """Return whether an object is in a namespace and passes a field selector on `status.phase`."""
    if namespace is not None and body["metadata"].get("namespace", "") != namespace:
        return False
    phase = body.get("status", {}).get("phase", "")
    for rule in filter(None, fields.split(",")):
        name, _, value = rule.partition("!=" if "!=" in rule else "=")
        assert name == "status.phase"
        if (phase == value) is ("!=" in rule):
            return False
    return True
