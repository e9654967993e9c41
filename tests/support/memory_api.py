"""The API in memory on a real socket, for clients that speak HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from galley_operator.cluster.answer import Change, Event
from galley_operator.cluster.errors import ApiRefused, ObjectConflict, ObjectNotFound
from galley_operator.cluster.resource import (
    CONFIGMAPS,
    DEPLOYMENTS,
    EVENTS,
    LEASES,
    NAMESPACES,
    PDBS,
    PODS,
    SECRETS,
    SERVICEACCOUNTS,
    TASKQUEUES,
    TASKS,
    TASKSCHEDULES,
    TOPICS,
    WORKFLOWS,
    Resource,
)
from tests.support.memory_cluster import MemoryCluster

_SERVED: Final = (
    NAMESPACES, PODS, CONFIGMAPS, SECRETS, SERVICEACCOUNTS, DEPLOYMENTS, PDBS, LEASES, EVENTS, TASKQUEUES,
    TASKS, TASKSCHEDULES, TOPICS, WORKFLOWS,
)  # fmt: skip


class MemoryApi:
    """Answers for a `MemoryCluster`."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self.cluster = cluster
        self.asked: list[tuple[str, str]] = []
        """Method and path of each request, in order."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path))
        if (found := _discovered(request.path)) is not None:
            return web.json_response(found)
        for resource in _SERVED:
            if (place := _place(request.path, resource)) is not None:
                try:
                    return await self._serve(request, resource, *place)
                except ApiRefused as refusal:
                    code = {ObjectNotFound: 404, ObjectConflict: 409}.get(type(refusal), 422)
                    details = {"name": place[1] or "x"}
                    status = {"kind": "Status", "code": code, "message": str(refusal), "details": details}
                    return web.json_response(status, status=code)
        return web.json_response({"kind": "Status", "code": 404, "message": "no such path"}, status=404)

    async def _serve(
        self, request: web.Request, resource: Resource, namespace: str | None, name: str, part: str
    ) -> web.StreamResponse:
        if request.method == "GET":
            return await self._read(request, resource, namespace, name)
        if request.method == "POST":
            return _json(await self.cluster.create(resource, await request.json()), 201)
        if request.method == "DELETE":
            await self.cluster.delete(resource, namespace, name)
            return _json({"kind": "Status", "status": "Success"})
        return await self._patch(request, resource, namespace, name, part)

    async def _read(
        self, request: web.Request, resource: Resource, namespace: str | None, name: str
    ) -> web.StreamResponse:
        if name:
            return _json(await self.cluster.get(resource, namespace, name))
        if request.query.get("watch"):
            return await self._watch(request, resource, namespace)
        fields = request.query.get("fieldSelector", "")
        kinds = {"apiVersion": resource.api_version, "kind": resource.kind}
        found: dict[str, Any] = {}
        async for items, version in self.cluster.pages_of(dict[str, Any], resource, namespace, fields=fields):
            listed = [{**kinds, **each} for each in items]
            found = {"metadata": {"resourceVersion": version}, "items": listed}
        return _json(found)

    async def _patch(
        self, request: web.Request, resource: Resource, namespace: str | None, name: str, part: str
    ) -> web.StreamResponse:
        body = await request.json()
        if isinstance(body, list):
            version, status = (step["value"] for step in body)
            answer = await self.cluster.replace_status(resource, namespace, name, version, status)
            return web.Response(body=answer, content_type="application/json")
        if "apply" in request.content_type:
            manager = request.query["fieldManager"]
            return _json(await self.cluster.apply(resource, body, manager=manager, subresource=part))
        return _json(await self.cluster.merge_patch(resource, namespace, name, body))

    async def _watch(
        self, request: web.Request, resource: Resource, namespace: str | None
    ) -> web.StreamResponse:
        query = request.query
        events = self.cluster.watch_of(
            dict[str, Any], resource, namespace,
            fields=query.get("fieldSelector", ""), resource_version=query.get("resourceVersion", ""),
            listing="sendInitialEvents" in query, seconds=float(query.get("timeoutSeconds", 300)),
        )  # fmt: skip
        answer = web.StreamResponse()
        await answer.prepare(request)
        async with aclosing(events):
            async for event in events:
                await answer.write(_line(event, resource))
        return answer


def _line(event: Event[dict[str, Any]], resource: Resource) -> bytes:
    body: dict[str, Any] = {"apiVersion": resource.api_version, "kind": resource.kind}
    if event.object is not None:
        return msgspec.json.encode({"type": event.change, "object": {**body, **event.object}}) + b"\n"
    metadata: dict[str, Any] = {"resourceVersion": event.version}
    if event.listed:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return msgspec.json.encode({"type": Change.BOOKMARK, "object": {**body, "metadata": metadata}}) + b"\n"


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json", status=status)


def _discovered(path: str) -> dict[str, Any] | None:
    groups = {each.group: each.version for each in _SERVED if each.group}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        named = [
            {"name": group, "versions": [_version(group)], "preferredVersion": _version(group)}
            for group in groups
        ]
        return {"kind": "APIGroupList", "groups": named}
    for resource in _SERVED:
        if path == resource.path().rpartition("/")[0]:
            of = [each for each in _SERVED if each.api_version == resource.api_version]
            return {"kind": "APIResourceList", "resources": [_resource(each) for each in of]}
    return None


def _version(group: str) -> dict[str, str]:
    version = next(each.version for each in _SERVED if each.group == group)
    return {"groupVersion": f"{group}/{version}", "version": version}


def _resource(resource: Resource) -> dict[str, Any]:
    verbs = ["get", "list", "watch", "create", "patch", "delete"]
    return {
        "name": resource.plural, "singularName": "", "namespaced": resource.namespaced, "kind": resource.kind,
        "verbs": verbs,
    }  # fmt: skip


def _place(path: str, resource: Resource) -> tuple[str | None, str, str] | None:
    """Return namespace, name and subresource in a path of a kind; None if it is of another."""
    root, plural = resource.path().rpartition("/")[0], resource.plural
    if not path.startswith(f"{root}/"):
        return None
    words = path.removeprefix(f"{root}/").split("/")
    namespace: str | None = None
    if words[0] == "namespaces" and len(words) > 2:
        namespace, words = words[1], words[2:]
    if words[0] != plural:
        return None
    return namespace, (words[1] if len(words) > 1 else ""), (words[2] if len(words) > 2 else "")


@asynccontextmanager
async def served(cluster: MemoryCluster, folder: Path) -> AsyncIterator[tuple[MemoryApi, Path]]:
    """Serve it for as long as the block; yields it and a kubeconfig."""
    api = MemoryApi(cluster)
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", api.answer)
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kubeconfig = folder / "kubeconfig.yaml"
    named = {"context": {"cluster": "memory", "user": "memory"}, "name": "memory"}
    document = {
        "current-context": "memory",
        "contexts": [named],
        "clusters": [{"name": "memory", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}],
        "users": [{"name": "memory", "user": {}}],
    }
    kubeconfig.write_text(json.dumps(document), "utf-8")
    try:
        yield api, kubeconfig
    finally:
        cluster.cut()
        await asyncio.sleep(0)
        await runner.cleanup()
