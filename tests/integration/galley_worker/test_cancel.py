"""Cancelling is acknowledged soon, in whatever state a task is."""

import asyncio
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from galley import AsyncClient, AsyncHandle, Cancelled, Lane, Phase, RetryPolicy, TaskCancelled, When, call
from galley.resources import TaskQueue
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually

ONE_WORKER = True


async def cancelled_soon(handle: AsyncHandle[object]) -> Cancelled:
    began = time.monotonic()
    outcome = await handle.cancel()
    assert time.monotonic() - began < 10
    with pytest.raises(TaskCancelled):
        await handle.result(within=20)
    assert (await handle.status()).phase is Phase.CANCELLED
    return outcome


async def in_phase(handle: AsyncHandle[object], phase: Phase) -> bool:
    return (await handle.status()).phase is phase


async def all_in_phase(handles: Iterable[AsyncHandle[object]], phase: Phase) -> bool:
    return all([await in_phase(handle, phase) for handle in handles])


async def test_a_scheduled_task_is_cancelled_before_it_starts(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    soon = When(not_before=datetime.now(UTC) + timedelta(hours=1))
    handle = await client.submit(call("drills", "echo"), soon)
    assert (await handle.status()).phase is Phase.SCHEDULED

    assert await cancelled_soon(handle) is Cancelled.BEFORE_START


@pytest.mark.parametrize("handler", ["hold", "aecho"])
async def test_a_running_attempt_is_stopped(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers, handler: str
) -> None:
    await start(drills)
    named = {"word": "x"} if handler == "hold" else {"value": "x"}
    handle = await client.submit(call("drills", handler, seconds=60, **named))
    await eventually(lambda: in_phase(handle, Phase.RUNNING), within=20)

    assert await cancelled_soon(handle) is Cancelled.RUNNING
    after = await client.submit(call("drills", "echo", value="the slot is free"))
    assert await after.result(within=20) == "the slot is free"


async def test_a_task_that_waits_behind_others_is_cancelled(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    (worker,) = await start(drills)
    running = [await client.submit(call("drills", "hold", word=f"{n}", seconds=8)) for n in range(4)]
    await eventually(partial(all_in_phase, running, Phase.RUNNING), within=20)
    handle = await client.submit(call("drills", "note", word="must not run"), When(lane=Lane.LOW))

    assert await cancelled_soon(handle) is Cancelled.BEFORE_START
    for held in running:
        await held.result(within=20)
    assert "must not run" not in worker.log_file.with_name("drills.log").read_text()


async def test_a_task_that_waits_for_a_retry_is_cancelled(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    patient = When(retry=RetryPolicy(attempts=50, backoff_seconds=600, max_backoff_seconds=600))
    handle = await client.submit(call("drills", "fail"), patient)
    await eventually(lambda: in_phase(handle, Phase.RETRYING), within=20)

    assert await cancelled_soon(handle) is Cancelled.BEFORE_START


async def test_many_cancelled_while_they_are_being_taken_have_one_outcome_each(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    handles = await client.submit_many([call("drills", "aecho", value=n, seconds=0.05) for n in range(100)])

    outcomes = await asyncio.gather(*[handle.cancel() for handle in handles])

    for handle, outcome in zip(handles, outcomes, strict=True):
        phase = (await handle.status()).phase
        assert phase is (Phase.SUCCEEDED if outcome is Cancelled.TOO_LATE else Phase.CANCELLED)
