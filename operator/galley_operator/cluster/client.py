"""A small client of the Kubernetes API: few verbs, bounded, and with errors that say what to do."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from galley_operator.cluster.answer import Event, events_in, page_in
from galley_operator.cluster.config import ClusterConfig
from galley_operator.cluster.connection import APPLY, MERGE, MOST_AT_ONCE, Connection
from galley_operator.cluster.resource import Resource

MANAGER: Final = "galley-operator"
"""Who owns the fields we write, unless said otherwise."""

WATCH_SECONDS: Final = 300
"""The server ends a watch after this, and a new one begins, so that no watch grows stale."""

Shape = TypeVar("Shape")


class Cluster:
    """One API server. Use it as `async with Cluster(load_config()) as cluster`.

    All methods raise `ClusterUnreachable` if no answer comes and one of `ApiRefused` if it is an error.
    Requests the server had no room for are repeated after the time it names.
    """

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self.connection = Connection(config, f"{MANAGER}/{version('galley-tasks')}", MOST_AT_ONCE)

    async def __aenter__(self) -> Self:
        await self.connection.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.connection.close()

    async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        """Return an object.

        Raises:
            ObjectNotFound: if there is none.
        """
        path, what = resource.path(namespace, name), resource.named(namespace, name)
        return _decode(await self.connection.send("GET", path, ("get", what)))

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 500,
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield all objects, so many at a time.

        Raises:
            WatchExpired: if the listing took so long that the server forgot where it was.
        """
        async for page in self.pages_of(
            dict[str, Any], resource, namespace, labels=labels, fields=fields, limit=limit
        ):
            yield page[0]

    async def pages_of(
        self,
        shape: type[Shape],
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 500,
    ) -> AsyncIterator[tuple[list[Shape], str]]:
        """Yield pages of objects, of which only what `shape` names is read, and the version of the list."""
        more = ""
        query = _selected(labels, fields) | {"limit": str(limit)}
        what = resource.named(namespace, "")
        while True:
            body = await self.connection.send(
                "GET", resource.path(namespace), ("list", what), query | ({"continue": more} if more else {})
            )
            page = page_in(body, shape)
            yield page.items, page.metadata.resource_version
            if not (more := page.metadata.more):
                return

    async def create(
        self, resource: Resource, body: dict[str, Any], *, manager: str = MANAGER
    ) -> dict[str, Any]:
        """Create an object in the namespace it names.

        Raises:
            ObjectConflict: if it is there already.
            ObjectInvalid: if it is not accepted.
        """
        namespace, name = _names(body)
        what = resource.named(namespace, name or body["metadata"].get("generateName", ""))
        answer = await self.connection.send(
            "POST", resource.path(namespace), ("create", what), {"fieldManager": manager}, body=body
        )
        return _decode(answer)

    async def apply(
        self,
        resource: Resource,
        body: dict[str, Any],
        *,
        manager: str,
        force: bool = True,
        subresource: str = "",
    ) -> dict[str, Any]:
        """Make the fields in `body` so, and own them (server-side apply).

        Raises:
            ObjectConflict: without `force`, if another manager owns one of them; or if `body` names a
                `metadata.resourceVersion` that is no longer the present one.
            ObjectInvalid: if it is not accepted.
        """
        namespace, name = _names(body)
        complete = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        answer = await self.connection.send(
            "PATCH",
            resource.path(namespace, name, subresource),
            ("patch", resource.named(namespace, name, subresource)),
            {"fieldManager": manager, "force": "true" if force else "false"},
            body=complete,
            content=APPLY,
        )
        return _decode(answer)

    async def merge_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: dict[str, Any],
        *,
        subresource: str = "",
        manager: str = MANAGER,
    ) -> dict[str, Any]:
        """Set the fields in `body`; None removes one, and lists are replaced as a whole.

        Args:
            resource: its kind.
            namespace: where it is.
            name: its name.
            body: what to set.
            subresource: such as `status`.
            manager: who owns the fields from then on.

        Raises:
            ObjectNotFound: if there is none.
        """
        answer = await self.connection.send(
            "PATCH",
            resource.path(namespace, name, subresource),
            ("patch", resource.named(namespace, name, subresource)),
            {"fieldManager": manager},
            body=body,
            content=MERGE,
        )
        return _decode(answer)

    async def replace_status(
        self, resource: Resource, namespace: str | None, name: str, version: str, status: dict[str, Any]
    ) -> bytes:
        """Replace a status as a whole and return the answer unread, for those who write very many.

        Only against the version in hand: in such patches the API server ignores a uid, and so would write the
        outcome of a deleted object into the one that has its name now. And not as a merge patch, since there
        a null within a result would mean that the field is to be removed.

        Raises:
            TooManyRequests: at once, so that the writer slows down.
            ObjectConflict: if `version` is no longer the present one.
            ObjectNotFound: if there is none.
        """
        return await self.connection.write(
            f"{resource.path(namespace, name, 'status')}?fieldManager={MANAGER}",
            ("patch", resource.named(namespace, name, "status")),
            [
                {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
                {"op": "add", "path": "/status", "value": status},
            ],
        )

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, uid: str | None = None
    ) -> None:
        """Delete an object, and what it owns after it.

        Raises:
            ObjectNotFound: if it is gone already.
            ObjectConflict: if there is another one of that name, whose uid differs.
        """
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        await self.connection.send(
            "DELETE",
            resource.path(namespace, name),
            ("delete", resource.named(namespace, name)),
            body=options,
        )

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        resource_version: str = "",
    ) -> AsyncIterator[Event[dict[str, Any]]]:
        """Yield what changes after `resource_version` until the server ends the watch, which is normal.

        Raises:
            WatchExpired: if the server no longer knows what changed since then.
        """
        return self.watch_of(
            dict[str, Any],
            resource,
            namespace,
            labels=labels,
            fields=fields,
            resource_version=resource_version,
        )

    async def watch_of(
        self,
        shape: type[Shape],
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        resource_version: str = "",
        listing: bool = False,
        seconds: float = WATCH_SECONDS,
    ) -> AsyncGenerator[Event[Shape], None]:
        """Yield changes, of whose objects only what `shape` names is read.

        Args:
            shape: what to read of an object.
            resource: its kind.
            namespace: None means all.
            labels: selector.
            fields: selector.
            resource_version: where to begin.
            listing: whether to begin with all objects there are, up to a bookmark that says `listed`.
            seconds: after which the server ends the watch.

        Raises:
            WatchExpired: if the server no longer knows what changed since then.
        """
        query = _selected(labels, fields) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(seconds)),
        }
        if resource_version:
            query["resourceVersion"] = resource_version
        if listing:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        what = resource.named(namespace, "")
        rest = b""
        async with aclosing(
            self.connection.stream(resource.path(namespace), ("watch", what), query)
        ) as chunks:
            async for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for event in events_in(lines, shape, what):
                    yield event


def _selected(labels: str, fields: str) -> dict[str, str]:
    query = {"labelSelector": labels} if labels else {}
    return query | ({"fieldSelector": fields} if fields else {})


def _names(body: dict[str, Any]) -> tuple[str | None, str]:
    metadata = body["metadata"]
    return metadata.get("namespace"), metadata.get("name", "")


def _decode(body: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(body)
    return decoded
