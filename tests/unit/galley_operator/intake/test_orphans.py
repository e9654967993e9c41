"""Work whose Task was deleted while no operator watched."""

import logging
from collections.abc import AsyncIterator

import pytest

from galley.address import Kind, TaskAddress
from galley.broker.errors import BrokerRefused, BrokerUnreachable
from galley.record import Record, State, Stored
from galley_operator.intake import orphans as orphans_module
from galley_operator.intake.broker_tasks import NatsTasks, Trace
from galley_operator.intake.orphans import MOST_SUSPECTS, Orphans
from galley_operator.tasks.active_tasks import ActiveTasks, QueueKey
from galley_operator.tasks.known_queues import KnownQueues
from tests.support.builders import an_address
from tests.support.memory_nats import MemoryBroker, MemoryServer
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.desk import a_task_queue_object


class Looking:
    """Two looks at the queues `first` and `second`; the second one has work of a Task that is gone."""

    def __init__(self, broker: MemoryBroker, refusal: Exception) -> None:
        self.withdrawn: list[str] = []
        self._refusal = refusal
        queues = KnownQueues()
        for name in ("first", "second"):
            body = a_task_queue_object(name)
            body["metadata"]["uid"] = f"uid-{name}"
            queues.seen(body)
        tasks = NatsTasks(broker)

        async def trace(_address: TaskAddress) -> Trace:
            return Trace()

        tasks.trace = trace  # type: ignore[method-assign, assignment]
        self.orphans = Orphans(
            tasks, self.held, ActiveTasks(), queues, lambda address, _uid: self.withdrawn.append(address.id)
        )

    async def held(self, queue: QueueKey, kind: Kind) -> AsyncIterator[TaskAddress]:
        if queue[1] == "first":
            raise self._refusal
        if kind is Kind.DECLARED:
            yield an_address(queue="second", id="left", kind=Kind.DECLARED)


@in_virtual_time
async def test_a_queue_that_cannot_be_looked_at_keeps_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async with MemoryBroker(MemoryServer(), "operator") as broker:
        looking = Looking(broker, BrokerRefused("read stream", 10100, "broken for this one"))
        with caplog.at_level(logging.WARNING):
            await looking.orphans.once()
            assert looking.withdrawn == [], "a Task may be on its way"
            await looking.orphans.once()
        assert looking.withdrawn == ["left"]
        assert "work of deleted Tasks not looked for" in caplog.messages


@in_virtual_time
async def test_a_broker_that_is_away_ends_the_look() -> None:
    async with MemoryBroker(MemoryServer(), "operator") as broker:
        looking = Looking(broker, BrokerUnreachable("nats://x", "no answer"))
        with pytest.raises(BrokerUnreachable):
            await looking.orphans.once()


async def test_of_a_queue_with_millions_of_tasks_a_bounded_number_is_remembered() -> None:
    read = 0

    async def held(_queue: QueueKey, kind: Kind) -> AsyncIterator[TaskAddress]:
        nonlocal read
        while kind is Kind.DIRECT:
            read += 1
            yield an_address(queue="first", id=f"t{read}")

    queues = KnownQueues()
    body = a_task_queue_object("first")
    body["metadata"]["uid"] = "uid-first"
    queues.seen(body)
    async with MemoryBroker(MemoryServer(), "operator") as broker:
        orphans = Orphans(NatsTasks(broker), held, ActiveTasks(), queues, lambda *_: None)
        await orphans.once()
    assert read == MOST_SUSPECTS
    assert len(orphans._suspects) == MOST_SUSPECTS


async def test_tasks_with_names_like_those_of_tasks_hide_no_work_of_a_deleted_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orphans_module, "MOST_SUSPECTS", 3)
    waiting = [f"t{number}" for number in range(7)]
    orphaned = {waiting[1], waiting[4], waiting[6]}

    async def held(_queue: QueueKey, kind: Kind) -> AsyncIterator[TaskAddress]:
        for name in list(waiting) if kind is Kind.DIRECT else ():
            yield an_address(queue="first", id=name)

    async def trace(address: TaskAddress) -> Trace:
        record = Record(State.RETRY, 1, uid="gone" if address.id in orphaned else "")
        return Trace(Stored(record, 1))

    queues = KnownQueues()
    body = a_task_queue_object("first")
    body["metadata"]["uid"] = "uid-first"
    queues.seen(body)
    async with MemoryBroker(MemoryServer(), "operator") as broker:
        tasks = NatsTasks(broker)
        tasks.trace = trace  # type: ignore[method-assign]
        found: list[str] = []
        orphans = Orphans(tasks, held, ActiveTasks(), queues, lambda address, _uid: found.append(address.id))
        for _ in range(6):
            await orphans.once()
            assert len(orphans._suspects) <= 3
        assert found == ["t1", "t4", "t6"]
        for _ in range(2):
            await orphans.once()
        assert found == ["t1", "t4", "t6", "t1"], "it begins again"
        queues.gone(body)
        await orphans.once()
        assert orphans._passed == {}
