"""Dead letters are looked at, edited, dropped and run again; nothing runs twice and nothing is lost."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from galley import (
    AsyncClient,
    AsyncHandle,
    Client,
    DeadLetterNotFound,
    HandlerNameInvalid,
    InputInvalid,
    NotRedrivable,
    Phase,
    QueueFull,
    RedriveIncomplete,
    Redriven,
    RetryPolicy,
    Selection,
    SubmissionInvalid,
    TaskFailed,
    When,
    call,
)
from galley.broker import dead_letters, topology
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.records import Records
from galley.dead_letter import DeadLetter
from galley.record import Failure, Outcome, Record, State
from galley.resources import TaskQueue
from galley_local.nats_server import NatsServer
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.builders import an_envelope
from tests.support.eventually import eventually
from tests.support.workers import WorkerProcess, a_task_queue

ONCE = When(retry=RetryPolicy(attempts=1))


async def a_dead_task(client: AsyncClient, path: Path, times: int = 1, **options: Any) -> AsyncHandle[object]:
    """Return a task that has failed, and succeeds once it is run again often enough."""
    handle = await client.submit(call("drills", "fail_until", path=str(path), times=times), ONCE, **options)
    with pytest.raises(TaskFailed):
        await handle.result(within=20)
    await eventually(lambda: dead_letters.read(client.broker, handle.address), within=20)
    return handle


async def test_a_redriven_task_runs_again_under_its_id_with_its_history(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    await start(drills)
    handle = await a_dead_task(client, tmp_path / "count", task_id="invoice-7")
    [dead] = await client.dead_letters.find("drills")
    assert (dead.id, dead.handler, dead.attempt) == ("invoice-7", "fail_until", 1)
    assert "RuntimeError: try 1" in dead.traceback
    assert dead.input is not None
    assert b"count" in bytes(dead.input)
    assert await client.dead_letters.redrive("drills", "invoice-7") is Redriven.QUEUED
    await eventually(lambda: succeeded(handle), within=20)
    assert await handle.result(within=20) == "try 2"
    status = await handle.status()
    assert status.attempt == 2
    assert [past.number for past in status.history.attempts] == [1]
    assert await client.dead_letters.find("drills") == []
    with pytest.raises(DeadLetterNotFound):
        await client.dead_letters.redrive("drills", "invoice-7")


async def succeeded(handle: AsyncHandle[object]) -> bool:
    return (await handle.status()).phase is Phase.SUCCEEDED


async def test_a_dead_letter_that_is_on_its_way_is_waited_for(client: AsyncClient, drills: TaskQueue) -> None:
    address = client.handle("drills", "invoice-7").address
    ended = datetime.now(UTC)
    why = Failure("Test", "it failed")
    failed = Record(State.DONE, 1, outcome=Outcome.FAILED, ended_at=ended, failure=why)
    await Records(client.broker).write(address, failed, 0)
    getting = asyncio.create_task(client.dead_letters.get("drills", "invoice-7"))
    # It has looked when the broker answers what was asked after it.
    await Records(client.broker).read(address)
    await Records(client.broker).read(address)
    letter = DeadLetter(why, ended, "w1", 1, "normal")
    assert (await dead_letters.bury(client.broker, address, letter)).stored
    assert (await getting).reason == "Test"


async def test_redrives_at_the_same_time_run_it_once(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    [worker] = await start(drills)
    handle = await a_dead_task(client, tmp_path / "count")
    end(worker)
    kept = await dead_letters.read(client.broker, handle.address)
    assert kept is not None
    outcomes = await asyncio.gather(*(client.dead_letters._redrive(kept) for _ in range(8)))
    assert Redriven.QUEUED in outcomes
    assert (await handle.status()).phase is Phase.RETRYING
    await start(drills)
    await eventually(lambda: succeeded(handle), within=20)
    # Once more, with a letter from before: it has moved on.
    assert await client.dead_letters._redrive(kept) is Redriven.ALREADY
    assert (tmp_path / "count").read_text() == "2"


def end(worker: WorkerProcess) -> None:
    assert worker.end() == 0


async def test_a_redrive_that_died_before_its_last_step_is_completed_by_the_next(
    client: AsyncClient,
    drills: TaskQueue,
    start: StartWorkers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [worker] = await start(drills)
    handle = await a_dead_task(client, tmp_path / "count")
    end(worker)

    async def died(*_: object) -> bool:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(dead_letters, "drop", died)
        with pytest.raises(ConnectionError):
            await client.dead_letters.redrive("drills", handle.id)
    assert await client.dead_letters.redrive("drills", handle.id) is Redriven.ALREADY
    assert await client.dead_letters.find("drills") == []
    await start(drills)
    await eventually(lambda: succeeded(handle), within=20)
    assert (tmp_path / "count").read_text() == "2"


async def test_a_task_that_fails_again_is_a_dead_letter_again_with_all_attempts(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    await start(drills)
    handle = await a_dead_task(client, tmp_path / "count", times=2)
    await client.dead_letters.redrive("drills", handle.id)

    async def died_again() -> bool:
        found = await client.dead_letters.find("drills")
        return bool(found) and found[0].attempt == 2

    await eventually(died_again, within=20)
    [dead] = await client.dead_letters.find("drills")
    assert [past.traceback.splitlines()[-1] for past in dead.attempts] == [
        "RuntimeError: try 1",
        "RuntimeError: try 2",
    ]
    await client.dead_letters.redrive("drills", handle.id)
    await eventually(lambda: succeeded(handle), within=20)


async def test_what_is_meant_is_chosen_by_handler_reason_and_age(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    await start(drills)
    await a_dead_task(client, tmp_path / "count")
    other = await client.submit(call("drills", "fail_for_good", message="no"))
    with pytest.raises(TaskFailed):
        await other.result(within=20)
    letters = client.dead_letters
    await eventually(lambda: both(client), within=20)
    assert [each.handler for each in await letters.find("drills", Selection(handler="fail_until"))] == [
        "fail_until"
    ]
    assert [each.id for each in await letters.find("drills", Selection(reason="HandlerRaised"))] != []
    assert await letters.find("drills", Selection(older_than=timedelta(hours=1))) == []
    assert len(await letters.find("drills", Selection(younger_than=timedelta(hours=1)))) == 2
    [dropped] = await letters.drop_all("drills", Selection(handler="fail_for_good"))
    assert dropped.id == other.id
    with pytest.raises(DeadLetterNotFound):
        await letters.drop("drills", other.id)
    assert len(await letters.find("drills")) == 1


async def both(client: AsyncClient) -> bool:
    return len(await client.dead_letters.find("drills")) == 2


async def test_an_edited_task_runs_with_its_new_input_and_a_wrong_edit_changes_nothing(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    await start(drills)
    handle = await client.submit(call("drills", "fail_for_good", message="no"), task_id="typo")
    with pytest.raises(TaskFailed):
        await handle.result(within=20)
    await eventually(lambda: dead_letters.read(client.broker, handle.address), within=20)
    letters = client.dead_letters
    before = await letters.get("drills", "typo")
    for wrong, error in (
        ({"input": float("nan")}, InputInvalid),
        ({"input": "x" * 600_000}, InputInvalid),
        ({"handler": "no such name!"}, HandlerNameInvalid),
    ):
        with pytest.raises(error):
            await letters.edit("drills", "typo", **wrong)
    assert await letters.get("drills", "typo") == before
    await letters.edit("drills", "typo", handler="echo", input={"value": 7})
    await letters.redrive("drills", "typo")
    await eventually(lambda: succeeded(handle), within=20)
    assert await client.handle("drills", "typo").result(within=20) == 7


async def test_what_is_no_task_cannot_be_redriven_and_stays(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    address = replace((await client.submit(call("drills", "echo"))).address, id="strange")
    await client.broker.request(topology.task_subject(address), b"no task at all")
    await eventually(lambda: dead_letters.read(client.broker, address), within=20)
    dead = await client.dead_letters.get("drills", "strange")
    assert (dead.body, dead.handler) == (b"no task at all", "")
    with pytest.raises(NotRedrivable, match="no task that Galley can read"):
        await client.dead_letters.redrive("drills", "strange")
    with pytest.raises(RedriveIncomplete) as incomplete:
        await client.dead_letters.redrive_all("drills")
    assert (incomplete.value.redriven, incomplete.value.left) == ([], 1)
    assert len(await client.dead_letters.find("drills")) == 1


async def test_a_full_queue_stops_a_redrive_of_all_and_the_next_one_goes_on(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path
) -> None:
    queue = a_task_queue(namespace, limits={"backlog": 3}, worker={"concurrency": 1})
    await ensure(client.broker, layout_of(queue, "tests"))
    [worker] = await start(queue)
    for number in range(5):
        await a_dead_task(client, tmp_path / str(number), task_id=f"t{number}")
    end(worker)
    with pytest.raises(RedriveIncomplete) as incomplete:
        await client.dead_letters.redrive_all("drills")
    assert isinstance(incomplete.value.__cause__, QueueFull)
    assert (incomplete.value.redriven, incomplete.value.left) == (["t0", "t1", "t2"], 2)
    assert [dead.id for dead in await client.dead_letters.find("drills")] == ["t3", "t4"]
    for would in (client.dead_letters.redrive_all, client.dead_letters.drop_all):
        assert [dead.id for dead in await would("drills", dry_run=True)] == ["t3", "t4"]
    assert [dead.id for dead in await client.dead_letters.find("drills")] == ["t3", "t4"]
    await start(queue)
    await eventually(lambda: succeeded(client.handle("drills", "t2")), within=20)
    began = time.monotonic()
    assert [dead.id for dead in await client.dead_letters.redrive_all("drills", rate=5)] == ["t3", "t4"]
    assert time.monotonic() - began >= 0.2
    for number in range(5):
        await eventually(partial(succeeded, client.handle("drills", f"t{number}")), within=20)
        assert (tmp_path / str(number)).read_text() == "2"
    with pytest.raises(SubmissionInvalid, match="more than 0"):
        await client.dead_letters.redrive_all("drills", rate=0)


async def test_a_task_that_was_declared_says_how_to_run_it_again(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    await start(drills)
    handle = await a_dead_task(client, tmp_path / "count")
    kept = await dead_letters.read(client.broker, handle.address)
    assert kept is not None
    envelope = an_envelope("echo", uid="uid-1")
    body = await client.broker.payloads.task_bytes(handle.address, envelope)
    ack = await dead_letters.exchange(client.broker, kept, replace(kept.letter, envelope=Raw(body)))
    assert ack.stored
    with pytest.raises(NotRedrivable) as refused:
        await client.dead_letters.redrive("drills", handle.id)
    assert "galley.dev/redrive" in refused.value.hint


def test_the_client_without_a_loop_does_the_same(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async def dead() -> None:
        async with AsyncClient(nats_server.url, namespace) as client:
            await ensure(client.broker, layout_of(a_task_queue(namespace), "tests"))

    asyncio.run(dead())
    with Client(nats_server.url, namespace) as client:
        assert client.dead_letters.find("drills") == []
        assert client.dead_letters.drop_all("drills") == []
        assert client.dead_letters.redrive_all("drills") == []
        for use in (client.dead_letters.get, client.dead_letters.redrive, client.dead_letters.drop):
            with pytest.raises(DeadLetterNotFound):
                use("drills", "gone")
        with pytest.raises(DeadLetterNotFound):
            client.dead_letters.edit("drills", "gone", input=1)
