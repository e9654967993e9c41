"""A reflector's copy is true in the end, whatever happened to its watch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from msgspec import Struct, field

from e2e.api.line import Line
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.cluster.errors import ObjectInvalid
from galley_operator.cluster.reflector import Key, Reflector, Source
from galley_operator.cluster.resource import CONFIGMAPS
from galley_operator.faults import Faults
from testcluster.cluster import Part
from tests.support.api_server import ApiServer
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(120)


class Metadata(Struct, frozen=True):
    name: str
    uid: str
    namespace: str = ""
    resource_version: str = field(default="", name="resourceVersion")


class Seen(Struct, frozen=True):
    metadata: Metadata
    data: dict[str, str] = {}


class Thing(Struct, frozen=True):
    uid: str
    text: str


def keep(seen: Seen, _before: Thing | None) -> Thing:
    return Thing(seen.metadata.uid, seen.data.get("text", ""))


class Heard:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def changed(self, key: Key, now: Thing, *, listed: bool) -> None:
        self.told.append(("listed" if listed else "changed", key[1], now.text))

    def gone(self, key: Key, last: Thing) -> None:
        self.told.append(("gone", key[1], last.text))


class Paged(Cluster):
    """A server before 1.34, which does not list by a watch."""

    def watch_of(self, *arguments: Any, listing: bool = False, **named: Any) -> Any:
        if listing:
            raise ObjectInvalid("watch", "configmaps", 422, "sendInitialEvents is forbidden")
        return super().watch_of(*arguments, listing=listing, **named)


def a_config_map(namespace: str, name: str, text: str = "") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"mine": "yes"}},
        "data": {"text": text},
    }


@pytest.fixture
async def cluster(api_server: ApiServer) -> AsyncIterator[Cluster]:
    """Our own way to the API server, which is never cut."""
    async with Cluster(load_config(api_server.kubeconfig)) as cluster:
        yield cluster


@pytest.fixture
async def line(api_server: ApiServer) -> AsyncIterator[Line]:
    """The reflector's way there."""
    async with Line(api_server.url) as line:
        yield line


@pytest.fixture(params=[Cluster, Paged], ids=["streamed", "paged"])
async def far(request: pytest.FixtureRequest, api_server: ApiServer, line: Line) -> AsyncIterator[Cluster]:
    """The API server over that line, new enough to list by a watch, or not."""
    config = replace(load_config(api_server.kubeconfig), server=line.url)
    async with request.param(config) as cluster:
        yield cluster


@asynccontextmanager
async def reflecting(
    cluster: Cluster, namespace: str, **options: Any
) -> AsyncIterator[tuple[Reflector[Seen, Thing], Heard]]:
    heard = Heard()
    source = Source(CONFIGMAPS, Seen, keep, (namespace,), labels="mine=yes")
    reflector = Reflector(cluster, source, heard, Faults(), **options)
    running = asyncio.create_task(reflector.run())
    await asyncio.wait_for(reflector.synced.wait(), 20)
    try:
        yield reflector, heard
    finally:
        running.cancel()
        await asyncio.wait([running])


def texts(reflector: Reflector[Seen, Thing]) -> dict[str, str]:
    return {name: thing.text for (_, name), thing in reflector.things.items()}


async def test_what_is_there_is_listed_and_what_comes_is_told(
    cluster: Cluster, far: Cluster, api_namespace: str
) -> None:
    await cluster.create(CONFIGMAPS, a_config_map(api_namespace, "one", "a"))
    async with reflecting(far, api_namespace) as (reflector, heard):
        assert heard.told == [("listed", "one", "a")]
        await cluster.create(CONFIGMAPS, a_config_map(api_namespace, "two", "b"))
        await cluster.merge_patch(CONFIGMAPS, api_namespace, "one", {"data": {"text": "c"}})
        await cluster.delete(CONFIGMAPS, api_namespace, "two")
        await eventually(lambda: len(heard.told) == 4, within=30)
        assert heard.told[1:] == [("changed", "two", "b"), ("changed", "one", "c"), ("gone", "two", "b")]
        assert texts(reflector) == {"one": "c"}


async def test_what_leaves_the_selection_is_gone(cluster: Cluster, far: Cluster, api_namespace: str) -> None:
    await cluster.create(CONFIGMAPS, a_config_map(api_namespace, "one", "a"))
    async with reflecting(far, api_namespace) as (reflector, heard):
        await cluster.merge_patch(CONFIGMAPS, api_namespace, "one", {"metadata": {"labels": {"mine": "no"}}})
        await eventually(lambda: ("gone", "one", "a") in heard.told, within=30)
        assert reflector.things == {}


async def test_a_watch_that_broke_goes_on_where_it_was_without_a_new_listing(
    cluster: Cluster, far: Cluster, line: Line, api_namespace: str
) -> None:
    for name in ("stays", "goes"):
        await cluster.create(CONFIGMAPS, a_config_map(api_namespace, name, "a"))
    async with reflecting(far, api_namespace) as (reflector, heard):
        line.cut()
        await cluster.delete(CONFIGMAPS, api_namespace, "goes")
        await cluster.create(CONFIGMAPS, a_config_map(api_namespace, "new", "b"))
        line.mend()
        await eventually(lambda: texts(reflector) == {"stays": "a", "new": "b"}, within=30)
        assert heard.told[2:] == [("gone", "goes", "a"), ("changed", "new", "b")]
        assert reflector.relists == 0


async def test_what_a_server_forgot_while_nothing_watched_is_found_by_comparing(
    cluster: Cluster, far: Cluster, line: Line, api_server: ApiServer, api_namespace: str
) -> None:
    for name in ("stays", "goes", "again"):
        await cluster.create(CONFIGMAPS, a_config_map(api_namespace, name, "a"))
    async with reflecting(far, api_namespace) as (reflector, heard):
        line.cut()
        await cluster.delete(CONFIGMAPS, api_namespace, "goes")
        await cluster.delete(CONFIGMAPS, api_namespace, "again")
        await cluster.create(CONFIGMAPS, a_config_map(api_namespace, "again", "b"))
        api_server.cluster.kill(Part.API_SERVER)
        api_server.cluster.start(Part.API_SERVER)
        line.mend()
        await eventually(lambda: texts(reflector) == {"stays": "a", "again": "b"}, within=60)
        again = [each for each in heard.told if each[1] == "again"]
        assert again[:2] == [("listed", "again", "a"), ("gone", "again", "a")]
        assert again[2][2] == "b"
        assert ("gone", "goes", "a") in heard.told
        assert ("gone", "stays", "a") not in heard.told


async def test_an_old_listing_is_renewed_and_reports_nothing_as_gone(
    cluster: Cluster, far: Cluster, line: Line, api_namespace: str
) -> None:
    await cluster.create(CONFIGMAPS, a_config_map(api_namespace, "one", "a"))
    async with reflecting(far, api_namespace, relist_seconds=0.0) as (reflector, heard):
        await cluster.create(CONFIGMAPS, a_config_map(api_namespace, "two", "b"))
        await eventually(lambda: ("changed", "two", "b") in heard.told, within=20, why="it watches")
        line.cut()
        line.mend()
        await eventually(lambda: reflector.relists >= 1, within=20)
        assert not [told for told in heard.told if told[0] == "gone"]
