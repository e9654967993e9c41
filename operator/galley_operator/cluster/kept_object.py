"""Objects that the broker keeps a copy of: what is read of them, and the loop of who keeps it.

Their specs are not kept, since each may have 1 MiB: they are read from the API server when they are needed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from msgspec import Raw, Struct, field
from msgspec.json import encode
from msgspec.structs import replace
from pydantic import BaseModel, ValidationError

from galley.errors import ManifestInvalid
from galley.resources.problem import explain, field_path
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ObjectConflict, ObjectNotFound
from galley_operator.cluster.reflector import Reflector
from galley_operator.cluster.resource import Resource

M = TypeVar("M", bound=BaseModel)

STATUS_BYTES: Final = 256 * 1024
"""A larger status is none that we wrote."""


class ObjectMetadata(Struct, frozen=True):
    """What is read of an object's metadata."""

    name: str
    uid: str
    namespace: str = ""
    resource_version: str = field(default="", name="resourceVersion")
    generation: int = 0


class KeptObject(Struct, frozen=True):
    """What is read of an object."""

    metadata: ObjectMetadata
    spec: Raw = Raw(b"{}")
    status: Raw = Raw(b"{}")
    spec_bytes: int = 0
    """Size of its spec, where that is not kept. An API server has no such field."""

    @property
    def uid(self) -> str:
        """Tells it from others of the same name."""
        return self.metadata.uid

    def spec_as(self, model: type[M], kind: str) -> M:
        """Return its spec.

        Raises:
            ManifestInvalid: if it is not valid: the API server does not check all of it.
        """
        try:
            return model.model_validate_json(bytes(self.spec), by_alias=True, by_name=False)
        except ValidationError as invalid:
            place, problem, hint = explain(model, invalid.errors(include_url=False)[0])
            at = f"spec.{field_path(place)}" if place else "spec"
            raise ManifestInvalid(f"{kind} {self.metadata.name}", 0, at, problem, hint) from None

    def status_as(self, model: type[M]) -> M:
        """Return its status; an empty one if it cannot be read."""
        try:
            return model.model_validate_json(bytes(self.status), by_alias=True, by_name=False)
        except ValidationError:
            return model()


K = TypeVar("K", bound=KeptObject)


def without_spec(thing: K) -> K:
    """Return an object as it is kept: without its spec, and with no larger status than we write."""
    # A copy: what was read is a view of all that the server sent.
    status = thing.status.copy() if len(thing.status) <= STATUS_BYTES else Raw(b"{}")
    return replace(thing, spec=Raw(b"{}"), spec_bytes=len(thing.spec), status=status)


async def with_spec(cluster: Cluster, resource: Resource, thing: K) -> K:
    """Return an object with its spec, of the same generation.

    Raises:
        ObjectConflict: if it has changed by now, so that it is looked at again soon.
        ClusterError: if it cannot be read.
    """
    metadata = thing.metadata
    found = await cluster.get(resource, metadata.namespace, metadata.name)
    now = found["metadata"]
    if (now["uid"], now.get("generation", 0)) != (thing.uid, metadata.generation):
        raise ObjectConflict("get", resource.named(metadata.namespace, metadata.name), 409, "it has changed")
    return replace(thing, spec=Raw(encode(found.get("spec") or {})))


async def write_status(
    cluster: Cluster, resource: Resource, thing: KeptObject, status: dict[str, Any]
) -> None:
    """Replace the status of an object, unless it has changed: then it is looked at again as it is now.

    Raises:
        ClusterError: if that cannot be done.
    """
    metadata = thing.metadata
    try:
        await cluster.replace_status(
            resource, metadata.namespace, metadata.name, metadata.resource_version, status
        )
    except (ObjectConflict, ObjectNotFound):
        return


async def keep_looking(
    reflector: Reflector[Any, Any],
    changed: asyncio.Event,
    look: Callable[[], Awaitable[None]],
    seconds: float,
) -> None:
    """Look when an object changed, and every so often, once all are known; until cancelled.

    Args:
        reflector: sees the objects; runs as long as this does.
        changed: is set by its listener.
        look: does not raise for what an object is.
        seconds: between two looks at most.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(reflector.run(), name="objects seen")
        while True:
            changed.clear()
            if reflector.synced.is_set():
                await look()
            try:
                async with asyncio.timeout(seconds):
                    await changed.wait()
            except TimeoutError:
                pass
