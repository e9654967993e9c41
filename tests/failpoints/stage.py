"""A queue with a worker that can be made to fail, a second one in reserve, and the checks of how it ended."""

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import psutil
from msgspec import Raw

from galley import AsyncClient, AsyncHandle, Unique, When, call, connect
from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.control import Request, Verb, ask_workers
from galley.broker.publish import Publisher
from galley.broker.records import Records
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.envelope import Flags
from galley.event import Event as TopicEvent
from galley.lanes import Lane
from galley.record import Record, State
from galley.resources import TaskQueue
from galley.topic import Subscription, Topic, copy_address
from tests.failpoints.texts import large_text
from tests.support.builders import an_envelope
from tests.support.eventually import eventually
from tests.support.observed import all_revisions, events_by_task, keep_revisions
from tests.support.protocol_history import DeadLettered, Event, LeaseLost, redriven_history_allowed
from tests.support.warm_start import WarmStart
from tests.support.workers import WorkerProcess, a_task_queue, ensure_with_leases

LEASE: Final = 2.0
_TRIES: Final = 5
"""To reach a place before the lease ends, which a machine that stands still can prevent."""
ARMED: Final = "tests.failpoints.armed"
"""Run, never imported: it changes how answers come in."""

IMPORTED: Final = "galley.client galley.broker.pipeline galley.broker.pull"
"""What the processes of `Stage.run` import of ours, all but the above."""

ROOT: Final = Path(__file__).parent.parent.parent


class ArmedWorker(WorkerProcess):
    """A worker that fails where it is told."""

    program = (ARMED, "worker")


@dataclass
class Stage:
    """What a test of one place and one fault needs; made for a whole module."""

    url: str
    namespace: str
    folder: Path
    queue: TaskQueue
    worker: ArmedWorker
    reserve: WorkerProcess | None = None
    lost: list[LeaseLost] = field(default_factory=list)

    @property
    def fleet(self) -> list[WorkerProcess]:
        return [self.worker, *([self.reserve] if self.reserve else [])]

    @property
    def order(self) -> Path:
        return self.folder / "failpoint"

    @property
    def environment(self) -> dict[str, str]:
        return environment_of(self.folder)

    def arm(self, place: str, fault: str) -> None:
        """Have the next process that comes to a place fail there, once."""
        self.order.with_suffix(".passed").unlink(missing_ok=True)
        self.order.with_suffix(".new").write_text(f"{place} {fault}")
        self.order.with_suffix(".new").rename(self.order)

    async def passed(self) -> None:
        await eventually(self.order.with_suffix(".passed").exists, within=30, why="the place was passed")

    async def drained(self) -> bool:
        """Wait until the worker passed the place or ended; return whether it passed it."""
        passed, process = self.order.with_suffix(".passed"), self.worker.process
        await eventually(lambda: process.poll() is not None or passed.exists(), within=30)
        return passed.exists()

    async def ready(self) -> None:
        """Have the worker take tasks, whatever the test before did to it."""
        self.order.unlink(missing_ok=True)
        if self.worker.process.poll() is not None:
            self.worker.restart()
        await eventually(lambda: all(worker.ready for worker in self.fleet), within=30)
        self.lost.clear()

    async def idle(self, client: AsyncClient, *, resting: bool) -> None:
        """Have the worker in reserve rest, or take tasks."""
        assert self.reserve is not None
        request = Request(workers=(self.reserve.name,), seconds=3600 if resting else 0)

        async def confirmed() -> bool:
            answer = await ask_workers(client.broker, self.namespace, "drills", Verb.DRAIN, request)
            return answer is not None

        await eventually(confirmed, within=20)

    async def suffer(self, client: AsyncClient, fault: str) -> None:
        """Wait for the fault, and have things go on as they would: restarted, or taken over by another."""
        await self.passed()
        process = self.worker.process
        if fault == "crash":
            await eventually(lambda: process.poll() is not None, within=20)
            assert process.returncode == -signal.SIGKILL
            self._lose()
            self.worker.restart()
        elif fault == "freeze":
            stopped = psutil.Process(process.pid)
            await eventually(lambda: stopped.status() == psutil.STATUS_STOPPED, within=20)
            self._lose()
            await self.idle(client, resting=False)
            await self.outlast_lease()
            self.worker.send(signal.SIGCONT)

    async def outlast_lease(self) -> None:
        """Wait until the leases of a worker that is frozen have ended."""
        began = time.monotonic()
        await eventually(lambda: time.monotonic() - began > 1.3 * LEASE, within=30)
        self._lose()

    def _lose(self) -> None:
        self.lost.append(LeaseLost(at=time.time(), worker=self.worker.name))

    def run(self, role: str, task_id: str) -> WarmStart:
        """Start a producer or a canceller that fails where it is told."""
        with (self.folder / f"{role}.log").open("ab") as log:
            arguments = (ARMED, role, self.url, self.namespace, task_id)
            return WarmStart(arguments, {**os.environ, **self.environment}, log, IMPORTED)

    async def end(self, client: AsyncClient, handle: AsyncHandle[object], *, redrives: int = 0) -> Record:
        """Return the last record of a task once nothing of it is left, having checked how it came about."""
        records = Records(client.broker)

        async def ended() -> Record | None:
            stored = await records.read(handle.address)
            return stored.record if stored is not None and stored.record.done else None

        final = await eventually(ended, within=30, why="the task ended")
        assert final is not None
        await eventually(partial(self._empty, client), within=20, why="no message of it is left")
        revisions = [each async for each in all_revisions(client) if each.task == handle.id]
        events: list[Event] = [*events_by_task(revisions, self.fleet)[handle.id], *self.lost]
        if await self._letter(client, handle.address):
            events.append(DeadLettered(at=time.time()))
        wrong = redriven_history_allowed(events, skew=0.25)
        assert wrong is None, (wrong, sorted(events, key=lambda event: event.at))
        assert sum(each.record.done for each in revisions) == 1 + redrives
        return final

    async def _empty(self, client: AsyncClient) -> bool:
        for stream in (topology.work_stream, topology.later_stream):
            info = await client.broker.api("look", f"STREAM.INFO.{stream(self.namespace, 'drills')}")
            if info["state"]["messages"]:
                return False
        return True

    async def _letter(self, client: AsyncClient, address: TaskAddress) -> bool:
        stream = topology.dead_stream(self.namespace, "drills")
        subject = f"$JS.API.DIRECT.GET.{stream}.{topology.dead_subject(address)}"
        answer = await client.broker.request(subject, b"")
        return answer is not None and "Status" not in (answer.headers or {})


def environment_of(folder: Path) -> dict[str, str]:
    return {
        "FAILPOINT_FILE": str(folder / "failpoint"),
        "PYTHONPATH": str(ROOT),
        "GALLEY_LEASE_SECONDS": str(LEASE),
        "GALLEY_LOG_LEVEL": "DEBUG",
    }


@asynccontextmanager
async def visiting(stage: Stage) -> AsyncIterator[AsyncClient]:
    """Connect to a stage that is ready for the next test."""
    async with connect(stage.url, stage.namespace) as client:
        await stage.ready()
        if stage.reserve is not None:
            await stage.idle(client, resting=True)
        yield client


async def prepare(url: str, namespace: str) -> TaskQueue:
    """Make the queue."""
    queue = a_task_queue(
        namespace,
        worker={"concurrency": 2, "gracePeriodSeconds": 1},
        retry={"attempts": 3, "backoffSeconds": 0.1, "maxBackoffSeconds": 0.2},
        # The limits of the whole queue hold nothing back: a worker that is killed has permits for a lease.
        limits={"concurrency": 1000, "rate": {"tasks": 100_000}, "perKey": {"concurrency": 1}},
    )
    async with connect(url, namespace) as client:
        await ensure_with_leases(client.broker, queue, LEASE)
        await keep_revisions(client)
    return queue


# -- what leads to the places of a worker


async def plain(_stage: Stage, client: AsyncClient) -> AsyncHandle[object]:
    return await client.submit(call("drills", "aecho", value=1))


async def claimed(_stage: Stage, client: AsyncClient) -> AsyncHandle[object]:
    return await client.submit(call("drills", "aecho", value=1), task_id=secrets.token_hex(6))


async def refused(stage: Stage, client: AsyncClient) -> AsyncHandle[object]:
    """Submit a task whose first claim is refused: a record of its own stands there already."""
    task_id = secrets.token_hex(6)
    address = TaskAddress(stage.namespace, "drills", Lane.NORMAL, Kind.DIRECT, task_id)
    ack = await Records(client.broker).write(address, Record(State.RETRY, 1), 0)
    assert ack.stored
    flagged, envelope = Flags(republished=True), an_envelope("aecho", input={"value": 1})
    published = await (await Publisher(client.broker).send(address, envelope, flagged))
    assert published.stored
    return client.handle("drills", task_id)


async def failed(_stage: Stage, client: AsyncClient) -> AsyncHandle[object]:
    return await client.submit(call("drills", "fail_for_good", message="no"))


async def unreadable(stage: Stage, client: AsyncClient) -> AsyncHandle[object]:
    address = TaskAddress(stage.namespace, "drills", Lane.NORMAL, Kind.DIRECT, secrets.token_hex(6))
    ack = await (await client.broker.pipeline.send(topology.task_subject(address), b"not JSON"))
    assert ack.stored
    return client.handle("drills", address.id)


async def retried(stage: Stage, client: AsyncClient) -> AsyncHandle[object]:
    path = stage.folder / secrets.token_hex(6)
    return await client.submit(call("drills", "fail_once", path=str(path)))


async def drained(stage: Stage, client: AsyncClient) -> AsyncHandle[object]:
    """Submit a claimed task that outlasts its worker, and have the worker drain, at once."""
    begun = stage.folder / secrets.token_hex(6)
    work = call("drills", "slow_once", path=str(begun), seconds=30)
    handle = await client.submit(work, task_id=secrets.token_hex(6))
    # Not when the record says so: the handler may not have begun by then, and would be slow the next time.
    await eventually(begun.exists, within=20)
    stage.worker.send(signal.SIGTERM)
    # The grace lasts as long as a lease that cannot be renewed: after it, nothing may be left to hand back.
    draining = partial(stage.worker.said, "worker draining")
    passed, process = stage.order.with_suffix(".passed"), stage.worker.process
    await eventually(lambda: draining() or passed.exists() or process.poll() is not None, within=30)
    stage.worker.send(signal.SIGTERM)
    return handle


async def dropped(stage: Stage, client: AsyncClient) -> AsyncHandle[object]:
    """Submit a claimed task, and freeze its worker until it has lost the lease."""
    begun = stage.folder / secrets.token_hex(6)
    work = call("drills", "slow_once", path=str(begun), seconds=30)
    handle = await client.submit(work, task_id=secrets.token_hex(6))
    await eventually(begun.exists, within=20)
    stage.worker.send(signal.SIGSTOP)
    await stage.outlast_lease()
    stage.worker.send(signal.SIGCONT)
    return handle


async def returned_large(stage: Stage, client: AsyncClient) -> AsyncHandle[object]:
    """Submit a task whose result is stored as an object."""
    return await client.submit(call("drills", "turn", text=large_text(secrets.token_hex(6))))


async def unique(stage: Stage, client: AsyncClient) -> AsyncHandle[object]:
    return await client.submit(call("drills", "aecho", value=1), When(unique=Unique(key=UNIQUE)))


UNIQUE: Final = "the only one"


async def noting(_stage: Stage, client: AsyncClient) -> AsyncHandle[object]:
    return await client.submit(call("drills", "say", text="half of it"))


async def onward(_stage: Stage, client: AsyncClient) -> AsyncHandle[object]:
    return await client.submit(call("drills", "onward", count=3))


async def keyed(_stage: Stage, client: AsyncClient) -> AsyncHandle[object]:
    # A key of its own: a worker that dies before it gives a permit back holds its key up for 30 s.
    return await client.submit(call("drills", "aecho", value=1), key=secrets.token_hex(6))


async def event(stage: Stage, client: AsyncClient) -> AsyncHandle[object]:
    """Publish an event that becomes a task of the queue."""
    wanted = Subscription("tell", "drills", "aecho", input={"value": "data"})
    return await published(stage, client, wanted)


async def published(stage: Stage, client: AsyncClient, wanted: Subscription) -> AsyncHandle[object]:
    """Publish an event to a topic with one subscription, and return the task it becomes."""
    keeper = TopicKeeper(client.broker, stage.namespace, "tests")
    await keeper.keep([Declared(Topic("uploads", retention_seconds=600), (wanted,))])
    await _shorten_leases(client, topology.topics_stream(stage.namespace), "drills")
    told = TopicEvent(secrets.token_hex(6), "galley", "told", datetime.now(UTC), Raw(b"1"))
    await client.topics.publish_event("uploads", told)
    return client.handle("drills", copy_address(stage.namespace, "uploads", wanted, told).id)


async def _shorten_leases(client: AsyncClient, stream: str, consumer: str) -> None:
    """Have the events of a worker that dies come again as soon as its tasks do."""
    info = await client.broker.api("look", f"CONSUMER.INFO.{stream}.{consumer}")
    config = {**info["config"], "ack_wait": int(LEASE * 1e9)}
    request = {"stream_name": stream, "config": config, "action": "update"}
    await client.broker.api("shorten", f"CONSUMER.CREATE.{stream}.{consumer}", request)


SCENARIOS: Final = {
    each.__name__: each
    for each in (
        *(plain, claimed, refused, failed, unreadable, retried, drained, dropped),
        *(returned_large, unique, noting, onward, keyed, event),
    )
}


async def _come_to(
    stage: Stage, client: AsyncClient, place: str, scenario: str, fault: str
) -> AsyncHandle[object]:
    """Have a worker come to a place, and return the task that leads it there."""
    left = _TRIES
    while True:
        stage.arm(place, fault)
        handle = await SCENARIOS[scenario](stage, client)
        left -= 1
        if scenario != "drained" or await stage.drained() or not left:
            return handle
        # The machine stood still until the lease was over: the worker had nothing left to hand back.
        await stage.ready()
        await handle.wait(30)


async def run_place(stage: Stage, place: str, scenario: str, fault: str) -> AsyncHandle[object]:
    """Have a worker fail at a place, check how the task of it ends, and return the task."""
    async with visiting(stage) as client:
        handle = await _come_to(stage, client, place, scenario, fault)
        await stage.suffer(client, fault)
        if scenario == "drained" and fault in ("delay", "lose"):
            await asyncio.to_thread(stage.worker.process.wait, 20)
            stage.worker.restart()
        final = await stage.end(client, handle)
        if scenario == "drained" and fault == "freeze":
            # It drains on once it is thawed; the next test needs it to have ended.
            await asyncio.to_thread(stage.worker.process.wait, 20)
        expected = {"failed": "failed", "unreadable": "failed"}.get(scenario, "succeeded")
        assert final.outcome == expected, final
        deserved = 1 if fault in ("crash", "freeze") else 0
        assert final.history.crashes <= deserved, final.history
        # A worker that dies before it records an error leaves none behind.
        told = {"retried": 1, "failed": 1}.get(scenario, 0)
        assert final.history.errors in ({0, told} if deserved else {told}), final.history
        return handle
