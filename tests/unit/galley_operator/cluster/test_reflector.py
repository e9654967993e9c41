"""The reflector over streams of events in memory; what only an API server shows is in e2e/api."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from galley_operator.cluster.errors import ObjectInvalid
from galley_operator.cluster.reflector import Key, Reflector, Source
from galley_operator.cluster.resource import TASKS
from galley_operator.faults import Faults
from galley_operator.tasks.active_tasks import UNFINISHED
from galley_operator.tasks.task_object import TaskObject
from tests.support.eventually import eventually
from tests.support.memory_cluster import MemoryCluster
from tests.support.virtual_time import in_virtual_time


@dataclass(frozen=True)
class Thing:
    """What is kept of an object."""

    uid: str
    version: str


def keep(seen: TaskObject, _before: Thing | None) -> Thing:
    return Thing(seen.metadata.uid, seen.metadata.resource_version)


class Heard:
    """Notes what the reflector tells."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.broken = 0
        """How many calls are to raise."""

    def changed(self, key: Key, now: Thing, *, listed: bool) -> None:  # noqa: ARG002
        self._note("listed" if listed else "changed", key)

    def gone(self, key: Key, last: Thing) -> None:  # noqa: ARG002
        self._note("gone", key)

    def _note(self, what: str, key: Key) -> None:
        if self.broken:
            self.broken -= 1
            raise RuntimeError("broken listener")
        self.told.append((what, key[1]))


class Paged(MemoryCluster):
    """A server before 1.34, which does not list by a watch."""

    def watch_of(self, *arguments: Any, listing: bool = False, **named: Any) -> Any:
        if listing:
            raise ObjectInvalid("watch", "tasks", 422, "sendInitialEvents is forbidden")
        return super().watch_of(*arguments, listing=listing, **named)


@asynccontextmanager
async def reflecting(
    api: MemoryCluster, heard: Heard, seen: list[str] | None = None, **options: Any
) -> AsyncIterator[Reflector[TaskObject, Thing]]:
    faults = Faults((seen if seen is not None else []).append)
    source = Source(TASKS, TaskObject, keep, (None,), fields=UNFINISHED)
    clock = asyncio.get_running_loop().time
    reflector = Reflector(api, source, heard, faults, clock=clock, **options)
    running = asyncio.create_task(reflector.run())
    await asyncio.wait_for(reflector.synced.wait(), 600)
    try:
        yield reflector
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait([running])


async def until(heard: Heard, *told: tuple[str, str]) -> None:
    await eventually(lambda: heard.told == list(told), within=600, why=str(told))


@in_virtual_time
async def test_what_is_there_is_listed_and_what_comes_is_told() -> None:
    for api in (MemoryCluster(), Paged()):
        heard = Heard()
        api.task("one")
        async with reflecting(api, heard) as reflector:
            assert heard.told == [("listed", "one")]
            api.task("two")
            api.touch(TASKS, "default", "one")
            api.remove(TASKS, "two")
            await until(heard, ("listed", "one"), ("changed", "two"), ("changed", "one"), ("gone", "two"))
            assert set(reflector.things) == {("default", "one")}


@in_virtual_time
async def test_what_leaves_the_selection_is_gone() -> None:
    api, heard = MemoryCluster(), Heard()
    task = api.task("one")
    async with reflecting(api, heard):
        task["status"] = {"phase": "Succeeded"}
        api.touch(TASKS, "default", "one")
        await until(heard, ("listed", "one"), ("gone", "one"))


@in_virtual_time
async def test_a_watch_that_breaks_goes_on_where_it_was_without_a_new_listing() -> None:
    api, heard = MemoryCluster(), Heard()
    async with reflecting(api, heard) as reflector:
        lists = api.lists
        api.away = True
        api.cut()
        await asyncio.sleep(1)
        api.task("one")
        api.away = False
        await until(heard, ("changed", "one"))
        assert (api.lists, reflector.relists) == (lists, 0)


@in_virtual_time
async def test_a_watch_that_expired_is_followed_by_a_listing_which_finds_what_is_gone() -> None:
    api, heard = MemoryCluster(), Heard()
    api.task("one")
    api.task("two")
    async with reflecting(api, heard) as reflector:
        api.away = True
        api.cut()
        await asyncio.sleep(1)
        api.remove(TASKS, "one")
        api.oldest = api._version + 1
        api.away = False
        await eventually(lambda: ("gone", "one") in heard.told, within=600)
        assert reflector.relists == 1
        assert set(reflector.things) == {("default", "two")}


@in_virtual_time
async def test_an_object_deleted_and_made_again_meanwhile_is_gone_and_new() -> None:
    api, heard = MemoryCluster(), Heard()
    api.task("one")
    async with reflecting(api, heard):
        api.away = True
        api.cut()
        await asyncio.sleep(1)
        api.remove(TASKS, "one")
        api.task("one")
        api.oldest = api._version + 1
        api.away = False
        await until(heard, ("listed", "one"), ("gone", "one"), ("listed", "one"))


@in_virtual_time
async def test_a_listing_is_repeated_after_a_while_so_that_no_mistake_lasts() -> None:
    api, heard = MemoryCluster(), Heard()
    api.task("one")
    async with reflecting(api, heard, relist_seconds=100.0) as reflector:
        del api.objects["tasks", "default", "one"]  # no event tells of it
        await until(heard, ("listed", "one"), ("gone", "one"))
        assert reflector.relists == 1


@in_virtual_time
async def test_a_listener_that_raises_costs_one_event_and_is_counted() -> None:
    api, heard, seen = MemoryCluster(), Heard(), list[str]()
    heard.broken = 1
    api.task("one")
    api.task("two")
    async with reflecting(api, heard, seen):
        assert heard.told == [("listed", "two")]
        heard.broken = 1
        api.remove(TASKS, "one")
        api.remove(TASKS, "two")
        await until(heard, ("listed", "two"), ("gone", "two"))
        assert seen == ["tasks reflected", "tasks reflected"]


@in_virtual_time
async def test_an_exception_in_the_client_is_counted_and_the_reflector_goes_on() -> None:
    api, heard, seen = MemoryCluster(), Heard(), list[str]()
    async with reflecting(api, heard, seen):
        real = api.watch_of

        def broken(*_arguments: Any, **_named: Any) -> Any:
            api.watch_of = real  # type: ignore[method-assign]
            raise RuntimeError("broken client")

        api.watch_of = broken  # type: ignore[method-assign]
        api.cut()
        await eventually(lambda: len(seen) == 1, within=600)
        api.task("one")
        await eventually(lambda: heard.told[-1:] in ([("changed", "one")], [("listed", "one")]), within=600)
