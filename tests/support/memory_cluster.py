# ruff: noqa: ARG002 - the methods take what the real ones take
"""A Kubernetes API in memory: versions, uids, preconditions and watches as the API server has them.

A test may cut the watches, let them expire, or have no request reach the server.
"""

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, NamedTuple

import msgspec

from galley_operator.cluster.answer import Change, Event, events_in, page_in
from galley_operator.cluster.client import MANAGER, Cluster
from galley_operator.cluster.errors import (
    ApiRefused,
    ClusterUnreachable,
    ObjectConflict,
    ObjectNotFound,
    WatchExpired,
)
from galley_operator.cluster.resource import TASKS, Resource

Object = dict[str, Any]


class Written(NamedTuple):
    """One request that changed something, or was to."""

    verb: str
    plural: str
    name: str
    body: Object
    refused: str = ""


class _Past(NamedTuple):
    """One change, with the object before and after it."""

    version: int
    plural: str
    before: Object | None
    after: Object | None


class MemoryCluster(Cluster):
    """A `Cluster` whose objects are here."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        """By plural, namespace and name."""
        self.log: list[Written] = []
        self.before: Callable[[Written], None] = lambda _request: None
        """Called before each write is looked at; what it raises is the answer."""
        self.after: Callable[[Written], None] = lambda _request: None
        """Called after each write; what it raises is the answer to a write that happened."""
        self.past: list[_Past] = []
        self.oldest = 0
        """Watches from a version before this one have expired."""
        self.lists = 0
        """Listings so far."""
        self.reads = 0
        """Reads of single objects so far."""
        self.away = False
        """Whether no request reaches the server."""
        self._version = 100
        self._changed = asyncio.Event()
        self._cut = asyncio.Event()

    def put(self, resource: Resource, body: Object) -> Object:
        """Have an object be there, as another client wrote it."""
        metadata = body["metadata"]
        key = resource.plural, metadata.get("namespace", ""), metadata["name"]
        metadata.setdefault("uid", f"uid-{metadata['name']}")
        self.objects[key] = body
        self._touch(body)
        return body

    def touch(self, resource: Resource, namespace: str, name: str, *, generation: bool = False) -> None:
        """Have an object change, by another client; `generation`: also its spec."""
        self._touch(self._found("get", resource, namespace, name), generation=generation)

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

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        self.reads += 1
        return copy.deepcopy(self._found("get", resource, namespace, name))

    async def create(self, resource: Resource, body: Object, *, manager: str = MANAGER) -> Object:
        metadata = body["metadata"]
        key = resource.plural, metadata.get("namespace", ""), metadata["name"]

        def write() -> Object:
            if key in self.objects:
                raise ObjectConflict("create", key[2], 409, "it exists already")
            return self.put(resource, copy.deepcopy(body))

        return self._write(Written("create", resource.plural, key[2], body), write)

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

        def write() -> Object:
            present = self._expected("patch", resource, metadata.get("namespace", ""), metadata["name"], body)
            if _changes(present, changes):  # the server writes nothing where nothing changes
                _merge(present, changes)
                self._touch(present, generation="spec" in body)
            return present

        return self._write(Written("apply", resource.plural, metadata["name"], body), write)

    async def merge_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        subresource: str = "",
        manager: str = MANAGER,
    ) -> Object:
        def write() -> Object:
            present = self._expected("patch", resource, namespace or "", name, body)
            _merge(present, body)
            self._touch(present, generation="spec" in body)
            return present

        return self._write(Written("merge_patch", resource.plural, name, body), write)

    async def replace_status(
        self, resource: Resource, namespace: str | None, name: str, version: str, status: Object
    ) -> bytes:
        def write() -> Object:
            expected = {"metadata": {"resourceVersion": version}}
            present = self._expected("patch", resource, namespace or "", name, expected)
            present["status"] = copy.deepcopy(status)
            self._touch(present)
            return present

        written = Written("replace_status", resource.plural, name, status)
        return msgspec.json.encode(self._write(written, write))

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, uid: str | None = None
    ) -> None:
        def write() -> Object:
            present = self._found("delete", resource, namespace or "", name)
            if uid is not None and present["metadata"]["uid"] != uid:
                raise ObjectConflict("delete", name, 409, "another uid")
            self.remove(resource, name, namespace or "")
            return present

        self._write(Written("delete", resource.plural, name, {"uid": uid}), write)

    def _write(self, request: Written, write: Callable[[], Object]) -> Object:
        try:
            self.before(request)
            answer = copy.deepcopy(write())
        except ApiRefused as refusal:
            self.log.append(request._replace(refused=type(refusal).__name__))
            raise
        self.log.append(request)
        self.after(request)
        return answer

    def _found(self, verb: str, resource: Resource, namespace: str | None, name: str) -> Object:
        present = self.objects.get((resource.plural, namespace or "", name))
        if present is None:
            raise ObjectNotFound(verb, name, 404, "not found")
        return present

    def _expected(self, verb: str, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        present = self._found(verb, resource, namespace, name)
        for key in ("uid", "resourceVersion"):
            wanted = body.get("metadata", {}).get(key)
            if wanted is not None and wanted != present["metadata"][key]:
                raise ObjectConflict(verb, name, 409, f"{key} is {present['metadata'][key]}, not {wanted}")
        return present

    def _touch(self, present: Object, *, generation: bool = False) -> None:
        self._version += 1
        metadata = present["metadata"]
        metadata["resourceVersion"] = str(self._version)
        metadata["generation"] = metadata.get("generation", 1) + generation
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
                if changed is self._changed:  # as the server does every minute or so
                    yield Event(Change.BOOKMARK, None, str(version))

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


def _merge(present: Object, changes: Object) -> None:
    for key, value in changes.items():
        if value is None:
            present.pop(key, None)
        elif isinstance(value, dict):
            _merge(present.setdefault(key, {}), value)
        else:
            present[key] = value


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
