"""Each role can do all of its work with its credentials, and the server refuses nothing of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from galley import (
    Cancelled,
    NotAllowed,
    Phase,
    Redriven,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    When,
    call,
    connect,
)
from galley.backlog import QueueBacklog
from galley.broker.connection import Broker
from galley.broker.control import Heartbeat, Request, Verb, ask_workers, hearing
from galley.broker.doorbell import Doorbell
from galley.broker.ensure import ensure
from galley.broker.follow import Follower
from galley.broker.inspect import peek
from galley.broker.layout import layout_of
from galley.broker.orphans import collect, collect_namespace, kept_queues
from galley.broker.permissions import Role
from galley.broker.records import Records
from galley.broker.signals import SignalReader
from galley.cli.main import main
from galley.client import AsyncClient
from galley.lanes import Lane
from galley.resources import TaskQueue
from galley.retry import RetryPolicy
from tests.support.eventually import eventually
from tests.support.guarded_nats import GuardedNats
from tests.support.workers import WorkerProcess, a_task_queue, workers
from tests.unit.galley.cli.a_terminal import a_terminal, err, out

NAMESPACE = "shop"
QUEUE = "drills"


@pytest.fixture
async def operator(own_guarded_nats: GuardedNats) -> AsyncIterator[Broker]:
    async with own_guarded_nats.operator() as connected:
        yield connected


@pytest.fixture
async def queue(operator: Broker) -> TaskQueue:
    for name in (QUEUE, "theirs"):
        await ensure(operator, layout_of(a_task_queue(NAMESPACE, name), "tests"))
    return a_task_queue(NAMESPACE, QUEUE, worker={"concurrency": 4})


@pytest.fixture
async def worker(
    own_guarded_nats: GuardedNats, queue: TaskQueue, tmp_path: Path
) -> AsyncIterator[WorkerProcess]:
    creds = own_guarded_nats.write_creds(Role.WORKER, NAMESPACE, QUEUE)
    with workers(own_guarded_nats.url, queue, tmp_path, GALLEY_CREDENTIALS=str(creds)) as (process,):
        await eventually(lambda: process.ready, within=30)
        yield process


@asynccontextmanager
async def client_of(server: GuardedNats, role: Role) -> AsyncIterator[AsyncClient]:
    path = server.write_creds(role, NAMESPACE, QUEUE)
    async with connect(server.url, NAMESPACE, credentials=path) as client:
        yield client


@pytest.fixture
async def producer(own_guarded_nats: GuardedNats, queue: TaskQueue) -> AsyncIterator[AsyncClient]:
    async with client_of(own_guarded_nats, Role.PRODUCER) as client:
        yield client


@pytest.fixture
async def manager(own_guarded_nats: GuardedNats, queue: TaskQueue) -> AsyncIterator[AsyncClient]:
    async with client_of(own_guarded_nats, Role.MANAGER) as client:
        yield client


def denied(server: GuardedNats) -> list[str]:
    """Return what the server refused, by its own log."""
    return [line for line in server.log.splitlines() if "Violation" in line]


async def test_a_worker_and_a_producer_bring_tasks_to_every_ending(
    own_guarded_nats: GuardedNats, worker: WorkerProcess, producer: AsyncClient, tmp_path: Path
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    quick_retry = When(retry=RetryPolicy(attempts=3, backoff_seconds=0.3))
    many = await producer.submit_many([call(QUEUE, "echo", value=number) for number in range(50)])
    later = await producer.submit(call(QUEUE, "aecho", value="later"), When(not_before=soon))
    again = await producer.submit(
        call(QUEUE, "fail_until", path=str(tmp_path / "tries"), times=1), quick_retry
    )
    never = await producer.submit(call(QUEUE, "fail_for_good", message="no"))
    chosen = await producer.submit(call(QUEUE, "echo", value=1), task_id="mine-1")
    assert sorted([await handle.result(20) for handle in many]) == list(range(50))
    assert [await later.result(20), await again.result(20), await chosen.result(20)] == ["later", "try 2", 1]
    with pytest.raises(TaskFailed):
        await never.result(20)
    assert (await later.status()).phase is Phase.SUCCEEDED
    with pytest.raises(TaskNotFound):
        await producer.handle(QUEUE, "unknown").status()
    assert worker.end() == 0
    assert denied(own_guarded_nats) == []


async def test_a_manager_makes_schedules_that_workers_fire_and_a_producer_makes_none(
    own_guarded_nats: GuardedNats, worker: WorkerProcess, manager: AsyncClient, producer: AsyncClient
) -> None:
    for changes in (
        producer.schedules.create("hers", call(QUEUE, "echo", value=1), "@every 1s"),
        producer.schedules.create("hers", call("theirs", "echo", value=1), "@every 1s"),
    ):
        with pytest.raises(NotAllowed):
            await changes
    before = len(denied(own_guarded_nats))
    await manager.schedules.create("mine", call(QUEUE, "aecho", seconds=60), "@every 1s", overlap="replace")

    async def replaced() -> bool:
        view = await manager.schedules.get(QUEUE, "mine")
        if view.fired < 2:
            return False
        first = view.recent[-1].id
        return (await manager.handle(QUEUE, first).status()).phase is Phase.CANCELLED

    await eventually(replaced, within=20)
    assert [view.name for view in await producer.schedules.list(QUEUE)] == ["mine"]
    assert (await manager.schedules.suspend(QUEUE, "mine")).suspended
    last = (await manager.schedules.get(QUEUE, "mine")).last_id
    await manager.handle(QUEUE, last).cancel()
    await manager.schedules.delete(QUEUE, "mine")
    assert await manager.schedules.list(QUEUE) == []
    assert worker.end() == 0
    assert denied(own_guarded_nats)[before:] == []


async def test_the_commands_work_with_a_file_of_credentials_as_far_as_it_goes(
    own_guarded_nats: GuardedNats, worker: WorkerProcess
) -> None:
    def galley(role: Role, *words: str) -> tuple[int, str, str]:
        file = own_guarded_nats.write_creds(role, NAMESPACE, QUEUE)
        terminal = a_terminal()
        who = ("--credentials", str(file), "--server", own_guarded_nats.url, "-n", NAMESPACE)
        return main([*words, *who], terminal), out(terminal), err(terminal)

    async def run(role: Role, *words: str) -> tuple[int, str, str]:
        return await asyncio.to_thread(galley, role, *words)

    submit = ("submit", QUEUE, "echo", '{"value": 7}', "--id", "mine", "--wait", "20")
    assert (await run(Role.PRODUCER, *submit))[:2] == (0, "7\n")
    assert "Succeeded" in (await run(Role.PRODUCER, "show", f"{QUEUE}/mine"))[1]
    assert QUEUE in (await run(Role.PRODUCER, "get", "queues", QUEUE))[1]
    for words in (("show", "mine"), ("get", "queues"), ("get", "queues", "theirs"), ("show", "theirs/mine")):
        code, said, told = await run(Role.PRODUCER, *words)
        assert (code, said) == (1, ""), words
        assert "these credentials do not allow" in told
    await run(Role.MANAGER, "submit", QUEUE, "aecho", '{"seconds": 60}', "--id", "long")
    assert (await run(Role.MANAGER, "cancel", f"{QUEUE}/long"))[0] == 0


async def test_a_manager_cancels_what_waits_and_what_runs(
    own_guarded_nats: GuardedNats, worker: WorkerProcess, manager: AsyncClient
) -> None:
    runs = await manager.submit(call(QUEUE, "aecho", seconds=60))

    async def running() -> bool:
        return (await runs.status()).phase is Phase.RUNNING

    await eventually(running, within=30)
    waits = await manager.submit(call(QUEUE, "echo"), When(not_before=datetime.now(UTC) + timedelta(hours=1)))
    assert await runs.cancel() is Cancelled.RUNNING
    assert await waits.cancel() is Cancelled.BEFORE_START
    for handle in (runs, waits):
        with pytest.raises(TaskCancelled):
            await handle.result(30)
    assert denied(own_guarded_nats) == []
    assert worker.process.poll() is None


async def test_what_is_not_of_ones_role_or_queue_is_refused_at_once_by_name(
    own_guarded_nats: GuardedNats, queue: TaskQueue, producer: AsyncClient
) -> None:
    handle = await producer.submit(call(QUEUE, "echo"))
    async with client_of(own_guarded_nats, Role.WORKER) as worker, asyncio.timeout(20):
        # Into its own queue a worker copies events, and puts the next steps of workflows.
        await worker.submit(call(QUEUE, "echo"))
        with pytest.raises(NotAllowed, match=r"publishing to galley\.task\.shop\.theirs\."):
            await worker.submit(call("theirs", "echo"))
        with pytest.raises(NotAllowed, match=r"publishing to galley\.task\.shop\.theirs\."):
            await producer.submit(call("theirs", "echo"))
        with pytest.raises(NotAllowed, match=r"galley\.result\.shop\.theirs\."):
            await producer.handle("theirs", "id").status()
        with pytest.raises(NotAllowed, match=r"galley\.result\.shop\.drills\."):
            await handle.cancel()
        with pytest.raises(NotAllowed, match=r"DIRECT\.GET\.GR_shop_drills\n"):
            [record async for record in Records(producer.broker).all_of(NAMESPACE, QUEUE)]
        with pytest.raises(NotAllowed, match=r"STREAM\.INFO\.GW_shop_new"):
            await ensure(worker.broker, layout_of(a_task_queue(NAMESPACE, "new"), "tests"))
    assert len(await peek(producer.broker, NAMESPACE, QUEUE, Lane.NORMAL, 10)) == 2


async def test_the_operator_makes_reads_hears_drains_and_collects(
    own_guarded_nats: GuardedNats, operator: Broker, worker: WorkerProcess, producer: AsyncClient
) -> None:
    beats: list[Heartbeat] = []
    followed: list[str] = []
    follower = Follower(operator, (NAMESPACE, QUEUE), lambda address, _: followed.append(address.id))
    async with (
        asyncio.TaskGroup() as parts,
        hearing(operator, NAMESPACE, QUEUE, beats.append),
        Doorbell(operator, NAMESPACE, QUEUE) as bell,
    ):
        following = parts.create_task(follower.run())
        await follower.started.wait()
        await bell.arm()
        assert await operator.reached(5)
        handle = await producer.submit(call(QUEUE, "echo", value=1))
        assert await bell.wait(20)
        assert await handle.result(20) == 1
        await eventually(lambda: beats and handle.id in followed, within=20)
        await ask_workers(operator, NAMESPACE, QUEUE, Verb.DRAIN, Request(workers=("w1",), seconds=30))
        await eventually(lambda: beats[-1].draining, within=30)
        assert isinstance(await SignalReader(operator).read(NAMESPACE, QUEUE), QueueBacklog)
        following.cancel()
    assert worker.end() == 0
    assert {kept.queue for kept in await kept_queues(operator, "tests")} == {QUEUE, "theirs"}
    for name in (QUEUE, "theirs"):
        await collect(operator, NAMESPACE, name)
    await collect_namespace(operator, NAMESPACE)
    assert denied(own_guarded_nats) == []


async def test_a_manager_works_with_dead_letters_and_a_producer_may_not(
    own_guarded_nats: GuardedNats, worker: WorkerProcess, producer: AsyncClient, manager: AsyncClient
) -> None:
    for number in range(3):
        await producer.submit(call(QUEUE, "fail_for_good", message="no"), task_id=f"t{number}")

    async def died() -> bool:
        return len(await manager.dead_letters.find(QUEUE)) == 3

    await eventually(died, within=20)
    edited = await manager.dead_letters.edit(QUEUE, "t0", handler="echo", input={"value": 7})
    assert edited.handler == "echo"
    assert await manager.dead_letters.redrive(QUEUE, "t0") is Redriven.QUEUED
    await manager.dead_letters.drop(QUEUE, "t1")
    assert [dead.id for dead in await manager.dead_letters.find(QUEUE)] == ["t2"]

    async def ran() -> bool:
        return (await producer.handle(QUEUE, "t0").status()).phase is Phase.SUCCEEDED

    await eventually(ran, within=20)
    assert denied(own_guarded_nats) == []
    with pytest.raises(NotAllowed):
        await producer.dead_letters.find(QUEUE)
    with pytest.raises(NotAllowed):
        await producer.dead_letters.redrive(QUEUE, "t2")
