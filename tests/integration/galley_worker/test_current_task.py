"""What a handler learns of its task, and how it asks to be run again."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from galley import (
    AsyncClient,
    Lane,
    Phase,
    RetryPolicy,
    TaskFailed,
    When,
    call,
    current_task,
)
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.resources import TaskQueue
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue

HANDLERS = """
import asyncio, os, threading, time
from pathlib import Path
import galley
from galley import RetryPolicy, task

def me():
    now = galley.current_task()
    return now and [now.id, now.queue, now.lane, now.handler, now.attempt, now.last_error,
                    now.deadline is not None, (time.time() - now.submitted_at.timestamp()) < 60]

@task
def plain():
    told = [me()]
    thread = threading.Thread(target=lambda: told.append(me()))
    thread.start()
    thread.join()
    return told

@task
async def slow(seconds: float):
    before = me()
    await asyncio.sleep(seconds)
    return [before, await asyncio.create_task(inner()), await asyncio.to_thread(me)]

async def inner():
    return me()

@task
def failing_once():
    if galley.current_task().attempt == 1:
        raise galley.RetryAfter(1.5, "the server is busy")
    return me()

@task
def busy():
    raise galley.RetryAfter(0.01)

@task
async def not_yet(path: str):
    with open(path, "a") as log:
        log.write(f"{time.time()}\\n")
    if len(Path(path).read_text().splitlines()) < 3:
        raise galley.Snooze(0.3, "the file is not there")
    return me()[4]

@task
def never():
    raise galley.Snooze(60)

@task(retry=RetryPolicy(attempts=2, backoff_seconds=0))
def twice(path: str):
    with open(path, "a") as log:
        log.write("x")
    raise ValueError("no")

@task(timeout_seconds=0.5)
def limited():
    time.sleep(30)
"""


ONE_WORKER = True


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    (folder / "jobs_handlers.py").write_text(HANDLERS)
    return folder


@pytest.fixture
async def jobs(client: AsyncClient, namespace: str, code: Path, start: StartWorkers) -> TaskQueue:
    queue = a_task_queue(
        namespace, "jobs", worker={"modules": ["jobs_handlers"], "concurrency": 2},
        retry={"attempts": 3, "backoffSeconds": 60, "maxBackoffSeconds": 60}, timeoutSeconds=20,
    )  # fmt: skip
    await ensure(client.broker, layout_of(queue, "tests"))
    await start(queue, GALLEY_IMPORT_PATHS=str(code))
    return queue


async def result(client: AsyncClient, handler: str, when: When | None = None, **named: Any) -> Any:
    return await (await client.submit(call("jobs", handler, **named), when)).result(within=50)


async def test_a_handler_its_threads_and_its_coroutines_know_their_task(
    client: AsyncClient, jobs: TaskQueue
) -> None:
    when = When(lane=Lane.HIGH, deadline=datetime.now(UTC) + timedelta(minutes=5))
    handle = await client.submit(call("jobs", "plain"), when)
    mine = [handle.id, "jobs", "high", "plain", 1, "", True, True]
    assert await handle.result(within=30) == [mine, mine]

    several = [await client.submit(call("jobs", "slow", seconds=0.2)) for _ in range(5)]
    for one, told in zip(several, await asyncio.gather(*(h.result(within=30) for h in several)), strict=True):
        assert told == [[one.id, "jobs", "normal", "slow", 1, "", False, True]] * 3
    assert current_task() is None


async def test_retry_after_takes_the_place_of_the_backoff_and_counts(
    client: AsyncClient, jobs: TaskQueue
) -> None:
    began = datetime.now(UTC)
    handle = await client.submit(call("jobs", "failing_once"))
    told = await handle.result(within=50)  # the backoff is a minute
    assert told[4:6] == [2, "RetryAfter: the server is busy"]
    assert (datetime.now(UTC) - began).total_seconds() >= 1.5
    assert (await handle.status()).history.errors == 1
    with pytest.raises(TaskFailed, match="3 of 3 attempts failed"):
        await result(client, "busy")


async def test_a_snoozed_task_runs_the_same_attempt_again(
    client: AsyncClient, jobs: TaskQueue, tmp_path: Path
) -> None:
    handle = await client.submit(call("jobs", "not_yet", path=str(tmp_path / "runs")))
    assert await handle.result(within=50) == 1
    runs = [float(line) for line in (tmp_path / "runs").read_text().splitlines()]
    assert len(runs) == 3
    assert all(later - earlier >= 0.3 for earlier, later in pairwise(runs))
    history = (await handle.status()).history
    assert (history.errors, history.crashes, history.preemptions) == (0, 0, 0)


async def test_a_task_that_snoozes_past_its_deadline_fails_and_one_without_says_what_it_waits_for(
    client: AsyncClient, jobs: TaskQueue
) -> None:
    with pytest.raises(TaskFailed, match=r"DeadlineExceeded.*asked to run again after its deadline"):
        await result(client, "never", When(deadline=datetime.now(UTC) + timedelta(seconds=50)))
    handle = await client.submit(call("jobs", "never"))

    async def waits() -> bool:
        status = await handle.status()
        return (
            status.phase is Phase.RETRYING
            and status.failure is not None
            and status.failure.reason == "Snooze"
        )

    await eventually(waits, within=20)
    await handle.cancel()


async def test_the_rules_of_the_decorator_hold_unless_the_task_has_its_own(
    client: AsyncClient, jobs: TaskQueue, tmp_path: Path
) -> None:
    with pytest.raises(TaskFailed, match="2 of 2 attempts failed"):
        await result(client, "twice", path=str(tmp_path / "two"))
    assert (tmp_path / "two").read_text() == "xx"
    own = When(retry=RetryPolicy(attempts=1))
    with pytest.raises(TaskFailed, match="HandlerRaised"):
        await result(client, "twice", own, path=str(tmp_path / "one"))
    assert (tmp_path / "one").read_text() == "x"
    with pytest.raises(TaskFailed, match=r"took longer than 0\.5 s"):
        await result(client, "limited", own)
    with pytest.raises(TaskFailed, match=r"took longer than 1 s"):
        await result(client, "limited", When(timeout_seconds=1, retry=RetryPolicy(attempts=1)))
