"""kopf's one watch of TaskQueues, over a real socket to a server that lists and streams."""

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from galley_operator.cluster.config import ClusterConfig
from galley_operator.faults import Faults
from galley_operator.handlers import QueueWatch
from galley_operator.tasks.known_queues import KnownQueues
from tests.support.eventually import eventually
from tests.unit.galley_operator.desk import a_task_queue_object

_PATH = "/apis/galley.dev/v1alpha1"


def _served(version: str, name: str, kind: str) -> dict[str, Any]:
    """Return what the server says of a version with one kind of object."""
    verbs = ["get", "list", "watch", "patch"]
    resource = {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs}
    return {"kind": "APIResourceList", "groupVersion": version, "resources": [resource]}


_VERSION = {"groupVersion": "galley.dev/v1alpha1", "version": "v1alpha1"}
_DISCOVERY: dict[str, dict[str, Any]] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": _served("v1", "namespaces", "Namespace"),
    "/apis": {
        "kind": "APIGroupList",
        "groups": [{"name": "galley.dev", "versions": [_VERSION], "preferredVersion": _VERSION}],
    },
    _PATH: _served("galley.dev/v1alpha1", "taskqueues", "TaskQueue"),
}


class Api:
    """TaskQueues, listed and watched."""

    def __init__(self) -> None:
        self.queues: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        """Method and path of each request, in order."""
        self._version = 10
        self._watches: list[asyncio.Queue[bytes]] = []

    def put(self, name: str, generation: int = 1, uid: str = "u1", **metadata: Any) -> None:
        known = name in self.queues
        body = self._body(name, generation, uid)
        body["metadata"] |= metadata
        self.queues[name] = body
        self._tell("MODIFIED" if known else "ADDED", body)

    def remove(self, name: str) -> None:
        self._tell("DELETED", self.queues.pop(name))

    def _body(self, name: str, generation: int, uid: str) -> dict[str, Any]:
        self._version += 1
        body = a_task_queue_object(name)
        metadata = {**body["metadata"], "uid": uid, "resourceVersion": str(self._version)}
        metadata["generation"] = generation
        return {"apiVersion": "galley.dev/v1alpha1", "kind": "TaskQueue", **body, "metadata": metadata}

    def _tell(self, change: str, body: dict[str, Any]) -> None:
        for watch in self._watches:
            watch.put_nowait(json.dumps({"type": change, "object": body}).encode() + b"\n")

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path))
        if request.path in _DISCOVERY:
            return web.json_response(_DISCOVERY[request.path])
        if request.path.endswith("/taskqueues") and request.query.get("watch"):
            answer = web.StreamResponse()
            await answer.prepare(request)
            events: asyncio.Queue[bytes] = asyncio.Queue()
            self._watches.append(events)
            while True:
                await answer.write(await events.get())
        if request.path.endswith("/taskqueues"):
            metadata = {"resourceVersion": str(self._version)}
            items = list(self.queues.values())
            return web.json_response({"kind": "TaskQueueList", "metadata": metadata, "items": items})
        return web.json_response({"kind": "Status", "code": 404, "reason": "NotFound"}, status=404)


@asynccontextmanager
async def watching(
    api: Api, queues: KnownQueues, faults: Faults, caught: list[str]
) -> AsyncIterator[asyncio.Task[None]]:
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", api.serve)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    config = ClusterConfig(f"http://127.0.0.1:{port}", None)
    watch = QueueWatch(config, (), queues, faults, lambda: caught.append("signals"))
    running = asyncio.create_task(watch.run())
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.wait([running])
        await runner.cleanup()


async def test_the_watch_keeps_the_queues_up_to_date_and_writes_nothing() -> None:
    api, queues, told = Api(), KnownQueues(), list[tuple[str, bool]]()
    api.put("there")
    with queues.told_to(lambda queue, *, appeared: told.append((queue[1], appeared))):
        async with watching(api, queues, Faults(), []):
            await eventually(lambda: told == [("there", True)], within=20)
            api.put("new")
            await eventually(lambda: len(told) == 2, within=20)
            api.put("new", generation=2)
            await eventually(lambda: told[2:] == [("new", False)], within=20)
            api.put("new", generation=2)  # its status was written
            api.remove("there")
            await eventually(lambda: told[3:] == [("there", True)], within=20)
    assert set(queues) == {("default", "new")}
    assert {method for method, _ in api.asked} == {"GET"}


def nothing_left(before: set[asyncio.Task[Any]], ours: asyncio.Task[Any]) -> bool:
    """Whether kopf left no task behind; requests the API server of the test still holds are its own."""
    others = asyncio.all_tasks() - before - {ours}
    others = {each for each in others if "RequestHandler" not in repr(each.get_coro())}
    assert not others, others
    return True


async def test_kopf_leaves_the_loop_its_tasks_and_its_signals() -> None:
    api, queues, caught = Api(), KnownQueues(), list[str]()
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def catch() -> None:
        caught.append("signals")
        loop.add_signal_handler(signal.SIGTERM, stopped.set)

    before = asyncio.all_tasks()
    async with watching(api, queues, Faults(), caught) as running:
        await eventually(lambda: caught == ["signals"], within=20)
        ours = asyncio.create_task(asyncio.Event().wait())
        catch()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(stopped.wait(), 5)
        assert not running.done()
    assert not ours.done()
    ours.cancel()
    loop.remove_signal_handler(signal.SIGTERM)
    await eventually(lambda: nothing_left(before, ours), within=10)


async def test_a_queue_that_cannot_be_taken_in_costs_that_queue_alone() -> None:
    api, queues, seen = Api(), KnownQueues(), list[str]()
    api.put("good")
    api.put("bad")
    del api.queues["bad"]["metadata"]["namespace"]
    async with watching(api, queues, Faults(seen.append), []):
        await eventually(lambda: seen == ["TaskQueue seen"], within=20)
        await eventually(lambda: ("default", "good") in queues, within=20)


@pytest.mark.parametrize("text", ["{", "7 7", "null", "[1]", '"x"', "\ufffd"])
async def test_what_kopf_would_keep_in_a_queue_is_not_read_from_it(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Who may edit a queue can write there what cannot be read."""
    api, queues, told = Api(), KnownQueues(), list[str]()
    names = ("last-handled-configuration", "seen", "touch-dummy", "kopf-managed")
    odd: dict[str, Any] = {
        "annotations": {f"kopf.zalando.org/{name}": text for name in names},
        "finalizers": ["kopf.zalando.org/KopfFinalizerMarker", "none"],
    }
    api.put("there", **odd)
    with caplog.at_level(logging.WARNING), queues.told_to(lambda queue, **_: told.append(queue[1])):
        async with watching(api, queues, Faults(), []):
            await eventually(lambda: told == ["there"], within=20)
            api.put("new", **odd)
            await eventually(lambda: told[1:] == ["new"], within=20)
            api.put("new", generation=2, **odd)
            await eventually(lambda: told[2:] == ["new"], within=20)
            api.remove("there")
            await eventually(lambda: told[3:] == ["there"], within=20)
    assert {method for method, _ in api.asked} == {"GET"}
    assert [each for each in caplog.messages if "error" in each] == []
