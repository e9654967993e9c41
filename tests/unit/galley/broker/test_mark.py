"""The mark of the server's life: who writes it, whom it concerns, and what makes it void."""

from typing import Any

import pytest

from galley.broker import topology
from galley.broker.ensure import ensure, stream_info
from galley.broker.lean_client import LeanClient
from galley.broker.mark import forgotten_until, write_mark
from galley.broker.pull import Delivery, Pulls, Source
from galley.lanes import Lane
from tests.support.builders import a_queue, an_address, an_envelope
from tests.support.eventually import eventually
from tests.support.memory_nats import MemoryBroker, MemoryServer
from tests.support.virtual_time import in_virtual_time

QUEUE = a_queue()
WORK = topology.work_stream(QUEUE.namespace, QUEUE.queue)


def a_stream(mark: str | None, last: int = 100) -> dict[str, Any]:
    metadata = {topology.OWNER_KEY: "tests"} | ({} if mark is None else {topology.MARK_KEY: mark})
    return {"state": {"last_seq": last}, "config": {"metadata": metadata}}


@pytest.mark.parametrize(
    ("mark", "life", "until"),
    [
        ("LIFE1 40", "LIFE1", 40),
        ("LIFE1 0", "LIFE1", 0),
        ("LIFE1 400", "LIFE1", 100),
        ("LIFE1 40", "LIFE2", 100),
        ("LIFE1 40", "LIFE", 100),
        (" 40", "", 100),
        ("LIFE1 -4", "LIFE1", 100),
        ("LIFE1", "LIFE1", 100),
        ("", "LIFE1", 100),
        (None, "LIFE1", 100),
        (None, "", 100),
    ],
)
def test_a_mark_counts_only_in_the_life_it_names(mark: str | None, life: str, until: int) -> None:
    assert forgotten_until(a_stream(mark), life) == until


def test_a_server_of_a_cluster_or_without_streams_of_its_own_has_no_life_to_name() -> None:
    line = LeanClient()
    assert line.life == ""
    line._server_info = {"server_id": "A", "jetstream": True}
    assert line.life == "A"
    line._server_info = {"server_id": "A", "jetstream": True, "cluster": "galley"}
    assert line.life == ""
    line._server_info = {"server_id": "A"}
    assert line.life == ""


class Came(list[Delivery]):
    """What pulls brought."""

    def delivered(self, delivery: Delivery) -> None:
        self.append(delivery)

    def changed(self) -> None:
        pass

    def reconnected(self) -> None:
        pass


async def submit(broker: MemoryBroker, *names: str) -> None:
    for name in names:
        headers = topology.FLAGS_HEADER, "v=1;a=1;f=0"
        block = f"NATS/1.0\r\n{headers[0]}: {headers[1]}\r\n\r\n".encode()
        address = an_address(of=QUEUE, id=name)
        body = await broker.payloads.task_bytes(address, an_envelope())
        ack = await (await broker.pipeline.send(topology.task_subject(address), body, block))
        assert ack.stored


async def old_to_a_new_worker(server: MemoryServer, count: int) -> dict[str, bool]:
    """Return which tasks a worker that connects now would have to claim."""
    async with MemoryBroker(server, "worker") as broker:
        came = Came()
        async with Pulls(broker, QUEUE, came) as pulls:
            await pulls.orient()
            await pulls.sweep(Source(WORK, Lane.NORMAL), count)
            await eventually(lambda: len(came) >= count, within=5)
            return {each.address.id: each.old for each in came}


@in_virtual_time
async def test_a_backlog_of_this_life_needs_no_claim_and_one_of_before_does() -> None:
    server = MemoryServer()
    async with MemoryBroker(server, "operator") as broker:
        await ensure(broker, QUEUE)
        await submit(broker, "a")
        assert await old_to_a_new_worker(server, 1) == {"a": False}
        server.kill(forgets=lambda _sequence: True)
        server.start()
        await eventually(lambda: broker.connected, within=10)
        await submit(broker, "b")
        assert await old_to_a_new_worker(server, 2) == {"a": True, "b": True}
        server.kill(forgets=lambda _sequence: True)
        server.start()
        await eventually(lambda: broker.connected, within=10)
        await ensure(broker, QUEUE)
        await submit(broker, "c")
        assert await old_to_a_new_worker(server, 3) == {"a": True, "b": True, "c": False}


@in_virtual_time
async def test_a_mark_that_was_begun_in_one_life_and_written_in_the_next_is_void() -> None:
    server = MemoryServer()
    async with MemoryBroker(server, "operator") as broker:
        await ensure(broker, QUEUE)
        life = broker.nats.life
        server.kill()
        server.start()
        await eventually(lambda: broker.connected, within=10)
        await submit(broker, "a")
        await write_mark(broker, WORK, life)
        assert await old_to_a_new_worker(server, 1) == {"a": True}


@in_virtual_time
async def test_an_answer_from_a_later_life_than_was_asked_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = MemoryServer()
    async with MemoryBroker(server, "operator") as broker, MemoryBroker(server, "worker") as worker:
        await ensure(broker, QUEUE)
        await submit(broker, "a")
        came, asked = Came(), 0
        api = worker.api

        async def later(action: str, subject: str, request: object = None) -> dict[str, Any]:
            nonlocal asked
            asked += 1
            if asked == 1:
                server.starts += 1
                worker.line._server_info["server_id"] = server.life
            return await api(action, subject, request)

        monkeypatch.setattr(worker, "api", later)
        async with Pulls(worker, QUEUE, came) as pulls:
            await pulls.orient()
            await pulls.sweep(Source(WORK, Lane.NORMAL), 1)
            await eventually(lambda: came, within=5)
        assert asked == 2
        assert came[0].old


@in_virtual_time
async def test_a_consumer_is_made_only_after_the_mark_was_taken_away() -> None:
    server = MemoryServer()
    async with MemoryBroker(server, "operator") as broker:
        await ensure(broker, QUEUE)
        await submit(broker, "a")
        assert await old_to_a_new_worker(server, 1) == {"a": False}
        await broker.api("delete", f"CONSUMER.DELETE.{WORK}.{Lane.NORMAL}")
        broker.line.lose(to_server=lambda subject: "CONSUMER.CREATE" in subject)
        with pytest.raises(Exception, match="no answer"):
            await ensure(broker, QUEUE)
        info = await stream_info(broker, WORK)
        assert info is not None
        assert topology.MARK_KEY not in info["config"]["metadata"]
        broker.line.lose()
        await ensure(broker, QUEUE)
        assert await old_to_a_new_worker(server, 1) == {"a": True}
