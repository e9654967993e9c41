"""What is asked beside the thing itself, and is not answered: the thing is done without it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import pytest

from galley.address import TaskAddress
from galley.broker import checkup, queue_view, topology
from galley.broker.overview import Overview
from galley.broker.publish import Publisher
from galley.cli.queue_control import _still_paused
from galley.client import AsyncClient
from galley.envelope import FIRST
from galley.errors import QueueFull
from galley.objects.content import Bytes
from galley.objects.errors import ObjectsFull
from galley.objects.store import INPUT, Objects
from tests.support.builders import an_address, an_envelope
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley.broker.test_objects import DATA, stream_of
from tests.unit.galley_worker.bench import a_bench

PLACE: Final = ("default", "images")


def api(subject: str) -> bool:
    return subject.startswith("$JS.API.")


async def figures(client: AsyncClient) -> object:
    return [each.view.queue for each in await Overview(client.broker, *PLACE, _clock()).look()]


async def pauses(client: AsyncClient) -> object:
    views = [await queue_view.queue(client.broker, *PLACE)]
    return [each.queue for each in await queue_view.with_pauses(client.broker, views)]


async def problem(client: AsyncClient) -> object:
    return await client.handle("images", "one").worker_problem()


async def still_paused(client: AsyncClient) -> object:
    return await _still_paused(client, "images")


def _clock() -> Callable[[], float]:
    return asyncio.get_running_loop().time


WITHOUT: Final[dict[Callable[[AsyncClient], Awaitable[object]], object]] = {
    figures: ["images"], pauses: ["images"], problem: "", still_paused: [],
}  # fmt: skip


@pytest.mark.parametrize("ask", WITHOUT)
@in_virtual_time
async def test_what_is_said_of_workers_and_cannot_be_read_is_left_out(
    ask: Callable[[AsyncClient], Awaitable[object]],
) -> None:
    async with a_bench() as bench:
        broker = bench.producer

        async def babble(message: Any) -> None:
            broker.publish(message.reply, b"\xff")

        await broker.subscribe(topology.workers_subject(*PLACE), babble)
        assert await ask(AsyncClient.over(broker, "default")) == WITHOUT[ask]


async def once(publisher: Publisher, address: TaskAddress) -> object:
    return await publisher.publish(address, an_envelope())


async def again(publisher: Publisher, address: TaskAddress) -> None:
    await publisher.publish_again(address, an_envelope(), FIRST)


async def an_object(publisher: Publisher, address: TaskAddress) -> object:
    objects = Objects(publisher.broker)
    objects._stream.check_room = room  # type: ignore[method-assign, assignment]
    return await objects.put(address, Bytes(DATA), INPUT)


async def room(*_: object) -> None:
    """Find room that another upload takes."""


@pytest.mark.parametrize("store", [once, again, an_object])
@in_virtual_time
async def test_while_servers_have_no_leader_what_is_to_be_stored_is_sent_again(
    store: Callable[[Publisher, TaskAddress], Coroutine[Any, Any, object]],
) -> None:
    """No stream answers then, and nothing says whether there is one."""
    async with a_bench() as bench:
        publisher = Publisher(bench.producer)
        await once(publisher, an_address(of=bench.layout))
        streams = dict(bench.server.streams)
        bench.server.streams.clear()
        bench.producer.line.lose(to_server=api)
        storing = bench.start(store(publisher, an_address(of=bench.layout)))
        await bench.pass_time(8)
        assert not storing.done()
        bench.server.streams.update(streams)
        bench.producer.line.lose()
        await asyncio.wait_for(storing, 60)


@in_virtual_time
async def test_what_is_full_is_told_as_full_also_without_figures() -> None:
    async with a_bench() as bench:
        publisher = Publisher(bench.producer)
        bench.server.streams[topology.work_stream(*PLACE)].definition["max_msgs"] = 1
        stream_of(bench).definition["max_bytes"] = 1
        await once(publisher, an_address(of=bench.layout))
        bench.producer.line.lose(to_server=api)
        with pytest.raises(QueueFull, match="is full"):
            await once(publisher, an_address(of=bench.layout))
        with pytest.raises(ObjectsFull, match="no room for"):
            await an_object(publisher, an_address(of=bench.layout))


@in_virtual_time
async def test_an_examination_goes_on_without_a_clock_and_without_a_heartbeat_that_cannot_be_read() -> None:
    async with a_bench() as bench:
        broker = bench.producer
        listening = bench.start(checkup.workers_heard(broker, "default"))
        await bench.pass_time(0.1)
        broker.publish(topology.heartbeat_subject(*PLACE, "one"), b"\xff")
        assert await listening == {}
        assert await checkup.server_time(broker, *PLACE) is not None
        broker.line.lose(to_server=api)
        assert await checkup.server_time(broker, *PLACE) is None
