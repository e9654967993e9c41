# ruff: noqa: ARG002 - the methods take what the real ones take
"""A Kubernetes API in memory: versions, uids and preconditions as the API server keeps them, and no watch."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from galley_operator.cluster.client import MANAGER, Cluster
from galley_operator.cluster.errors import ApiRefused, ObjectConflict, ObjectNotFound
from galley_operator.cluster.resource import Resource

Object = dict[str, Any]


class Written(NamedTuple):
    """One request that changed something, or was to."""

    verb: str
    plural: str
    name: str
    body: Object
    refused: str = ""


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
        self._version = 100

    def put(self, resource: Resource, body: Object) -> Object:
        """Have an object be there, as somebody else wrote it."""
        metadata = body["metadata"]
        key = resource.plural, metadata.get("namespace", ""), metadata["name"]
        metadata.setdefault("uid", f"uid-{metadata['name']}")
        self.objects[key] = body
        self._touch(body)
        return body

    def touch(self, resource: Resource, namespace: str, name: str) -> None:
        """Have an object change, by somebody else."""
        self._touch(self._found("get", resource, namespace, name))

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
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

        def write() -> Object:
            present = self._expected("patch", resource, metadata.get("namespace", ""), metadata["name"], body)
            _merge(present, {key: value for key, value in body.items() if key != "metadata"})
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
            return self.objects.pop((resource.plural, namespace or "", name))

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


def _merge(present: Object, changes: Object) -> None:
    for key, value in changes.items():
        if value is None:
            present.pop(key, None)
        elif isinstance(value, dict):
            _merge(present.setdefault(key, {}), value)
        else:
            present[key] = value
