"""The tasks that `galley dev` knows of, at a cost that a flood of tasks does not raise."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from galley import call, connect
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.records import Records
from galley.lanes import Lane
from galley.record import Outcome, Record, State
from galley.task_status import Phase
from galley_local.board import TaskBoard
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue, an_address
from tests.support.eventually import eventually

FLOOD = 300


class Queue:
    """A queue whose tasks are written as ended, and its board."""

    def __init__(self, broker: Broker, namespace: str) -> None:
        self.layout = a_queue("images", namespace=namespace)
        self.board = TaskBoard(broker, {(namespace, "images"): (Lane.NORMAL,)})
        self._records = Records(broker)

    async def end(self, *tasks: str) -> None:
        record = Record(State.DONE, 1, outcome=Outcome.SUCCEEDED)
        addresses = (an_address(of=self.layout, id=task) for task in tasks)
        for ack in await asyncio.gather(*(self._records.write(each, record, 0) for each in addresses)):
            assert ack.stored


@pytest.fixture
async def queue(nats_server: NatsServer, namespace: str) -> AsyncIterator[Queue]:
    async with Broker(nats_server.url, name="test") as broker:
        it = Queue(broker, namespace)
        await ensure(broker, it.layout)
        async with it.board.listening():
            yield it


async def test_of_a_flood_the_latest_are_read_and_the_others_counted(queue: Queue) -> None:
    board = queue.board
    await queue.end(*(f"a{number}" for number in range(FLOOD)))
    await eventually(lambda: board.passed_over == 100, within=30)
    await board.look()
    assert {status.address.id for status in board.tasks()} == {f"a{number}" for number in range(100, FLOOD)}
    await queue.end(*(f"b{number}" for number in range(100)))

    async def all_known() -> bool:
        before = len(board.tasks())
        await board.look()
        assert len(board.tasks()) - before <= 25, "many at once only after a pause"
        return len(board.tasks()) + board.passed_over == FLOOD + 100

    await eventually(all_known, within=30)


async def test_a_declared_task_is_not_lost_in_a_flood(queue: Queue) -> None:
    declared = an_address(of=queue.layout, id="declared")
    queue.board.declare(declared)
    await queue.board.look()
    assert queue.board.ended(declared) is None
    await queue.end("declared", *(f"a{number}" for number in range(FLOOD)))
    await eventually(lambda: queue.board.passed_over == 100, within=30)
    await queue.board.look()
    assert queue.board.ended(declared) is not None
    assert queue.board.open_tasks() == []


async def test_what_a_look_that_is_cancelled_did_not_read_is_read_by_the_next(queue: Queue) -> None:
    board, declared = queue.board, an_address(of=queue.layout, id="declared")
    board.declare(declared)
    await queue.end("declared", "other")
    await eventually(lambda: board._heard, within=30)
    looking = asyncio.create_task(board.look())
    await asyncio.sleep(0)
    looking.cancel()
    assert isinstance((await asyncio.gather(looking, return_exceptions=True))[0], asyncio.CancelledError)
    await board.look()
    assert {status.address.id for status in board.tasks()} == {"declared", "other"}
    assert board.open_tasks() == []


async def test_a_lane_is_not_read_that_is_known_to_be_empty(
    queue: Queue, nats_server: NatsServer, namespace: str
) -> None:
    async with connect(nats_server.url, namespace) as client:
        await client.submit(call("images", "resize"))
    await queue.board.look([((namespace, "images"), Lane.NORMAL)])
    assert queue.board.tasks() == []
    await queue.board.look()
    assert [status.phase for status in queue.board.tasks()] == [Phase.QUEUED]
