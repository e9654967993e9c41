"""The operator's data path over an API and a nats-server in memory, in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from msgspec.structs import replace

from galley import record as record_wire
from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.follow import React
from galley.broker.held import message_of
from galley.broker.records import Records
from galley.declared import envelope_of, spec_of
from galley.envelope import Envelope
from galley.lanes import DEFAULT_LANES, Lane
from galley.record import Outcome, Record, State, Stored
from galley.resources import Task
from galley_operator.cluster.resource import TASKQUEUES
from galley_operator.data_path import DataPath, DataPathSettings, TaskView
from galley_operator.faults import Faults
from galley_operator.tasks.active_tasks import QueueKey
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.tasks.queue_keys import payloads_of
from tests.support.builders import a_queue
from tests.support.eventually import eventually
from tests.support.memory_cluster import MemoryCluster
from tests.support.memory_nats import MemoryBroker, MemoryServer

BEGAN: Final = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
QUEUE: Final = ("default", "images")


def a_task_queue_object(name: str = "images", **spec: Any) -> dict[str, Any]:
    """Return a TaskQueue as the API server has it."""
    spec = {"lanes": list(DEFAULT_LANES), "worker": {"modules": ["jobs"]}, **spec}
    return {"metadata": {"name": name, "namespace": "default", "generation": 1}, "spec": spec}


class MemoryRecords:
    """The records of a queue as a stream, from what the server in memory stores."""

    def __init__(self, server: MemoryServer, queue: QueueKey, react: React) -> None:
        self.started = asyncio.Event()
        self._server, self._queue, self._react = server, queue, react
        self._read = len(server.log)
        self.started.set()

    async def run(self) -> None:
        while True:
            while self._read < len(self._server.log):
                seen = self._server.log[self._read]
                self._read += 1
                if seen.what != "stored" or seen.kind != "result":
                    continue
                address = topology.parse_task_subject(seen.subject)
                if (address.namespace, address.queue) == self._queue:
                    record = record_wire.decode(seen.body)
                    self._react(replace(address, lane=record.lane), Stored(record, seen.sequence))
            await self._server.until_noted(self._read)
            await asyncio.sleep(0.1)


@dataclass
class Desk:
    """One operator, with what it reads and writes."""

    api: MemoryCluster
    server: MemoryServer
    broker: MemoryBroker
    view: TaskView
    queues: KnownQueues
    path: DataPath
    faults: list[str]
    """Where unexpected exceptions were caught."""

    def queue(self, name: str = "images", *, streams: bool = True, **spec: Any) -> None:
        """Have a TaskQueue be there, and its streams."""
        if streams:
            self.server.create(a_queue(name))
        self.queues.seen(self.api.put(TASKQUEUES, a_task_queue_object(name, **spec)))

    def address(self, name: str, kind: Kind = Kind.DIRECT, queue: str = "images") -> TaskAddress:
        return TaskAddress("default", queue, Lane.NORMAL, kind, name)

    def waiting(self, queue: str = "images") -> list[str]:
        """Return the ids of the tasks in a queue's work stream, oldest first."""
        stream = self.server.streams[topology.work_stream("default", queue)]
        return [each.subject.rpartition(".")[2] for each in stream.messages.values()]

    async def message(self, name: str) -> Envelope:
        """Return what waits under a name."""
        found = await message_of(self.broker, self.address(name))
        assert found is not None
        assert found.envelope is not None
        return found.envelope

    def envelope(self, name: str, **spec: Any) -> Envelope:
        """Return what `galley apply` submits for the Task that `api.task` makes."""
        body = {"queueName": "images", "handler": "resize", **spec}
        task = Task.model_validate({"metadata": {"name": name}, "spec": body})
        return envelope_of(spec_of(task), BEGAN, BEGAN)

    def owner(self, name: str) -> str:
        """Return the uid in the record of a task."""
        stream = self.server.streams[topology.records_stream("default", "images")]
        message = stream.last(topology.record_subject(self.address(name)))
        return record_wire.decode(message.body).uid if message is not None else ""

    async def record(self, name: str, kind: Kind = Kind.DIRECT) -> Stored | None:
        return await Records(self.broker).read(self.address(name, kind))

    async def write(self, name: str, record: Record, kind: Kind = Kind.DIRECT) -> None:
        """Write a record as a worker does."""
        stored = await self.record(name, kind)
        ack = await Records(self.broker).write(
            self.address(name, kind), record, stored.sequence if stored else 0, 86_400
        )
        assert ack.stored, ack

    async def end(self, name: str, kind: Kind = Kind.DIRECT, **changes: Any) -> None:
        """End a task as a worker does: its record, then its message."""
        defaults: dict[str, Any] = {
            "ended_at": self.server.now(),
            "outcome": Outcome.SUCCEEDED,
            "worker": "w1",
        }
        await self.write(name, Record(State.DONE, **{"attempt": 1, **defaults, **changes}), kind)
        stream = self.server.streams[topology.work_stream("default", "images")]
        for message in list(stream.messages.values()):
            if message.subject.endswith(f".{kind}.{name}"):
                stream.remove(message.sequence)

    async def until(self, name: str, phase: str, truth: str, reason: str, within: float = 30) -> None:
        """Return once a Task has this phase and this condition."""

        def has() -> bool:
            found = self.api.condition(name)
            assert found == (phase, truth, reason), found
            return True

        await eventually(has, within=within, why=f"task {name}")

    async def until_gone(self, name: str, within: float = 30) -> None:
        """Return once the broker holds no message of a task."""
        await eventually(lambda: name not in self.waiting(), within=within, why=f"{name} is withdrawn")


@asynccontextmanager
async def desk(
    api: MemoryCluster | None = None, server: MemoryServer | None = None, **settings: Any
) -> AsyncIterator[Desk]:
    """Run an operator's data path; of an earlier one, `api` and `server` may be handed on."""
    api, server = api or MemoryCluster(), server or MemoryServer(BEGAN)
    seen: list[str] = []
    faults, queues = Faults(seen.append), KnownQueues()
    async with MemoryBroker(server, "operator") as broker:
        view = TaskView(api, (None,), faults)
        broker.payloads = payloads_of(api, queues.found)
        path = DataPath(api, broker, view, queues, DataPathSettings(**settings), faults)
        path.records._follow = lambda queue, react: MemoryRecords(server, queue, react)
        queues.listed([each for key, each in api.objects.items() if key[0] == TASKQUEUES.plural])
        work = ("tasks seen", view.run), ("tasks", path.run)
        running = [asyncio.create_task(faults.keep_running(*each)) for each in work]
        try:
            yield Desk(api, server, broker, view, queues, path, seen)
            assert not any(each.done() for each in running), "the operator goes on whatever happens"
        finally:
            for each in running:
                each.cancel()
            await asyncio.wait(running)
