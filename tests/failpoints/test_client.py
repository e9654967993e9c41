"""Producers and cancellers that fail at each named place: asking again is all it takes."""

import secrets
import signal

import psutil
import pytest

from galley import Phase, call
from galley.record import Outcome
from tests.failpoints.places import CLIENT, FAULTS
from tests.failpoints.stage import Stage, visiting
from tests.support.eventually import eventually

SUBMIT = [place for place, role in CLIENT.items() if role == "submit"]
CANCEL = [place for place, role in CLIENT.items() if role == "cancel"]


async def fail(stage: Stage, role: str, task_id: str, fault: str) -> None:
    """Run a client that fails, until it has ended in whatever way."""
    process = stage.run(role, task_id)
    await stage.passed()
    if fault == "freeze":
        stopped = psutil.Process(process.pid)
        await eventually(lambda: stopped.status() == psutil.STATUS_STOPPED, within=20)
        process.send_signal(signal.SIGCONT)
    await eventually(lambda: process.poll() is not None, within=40, why="the client ended")
    assert (process.returncode == -signal.SIGKILL) == (fault == "crash"), process.returncode


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", SUBMIT)
async def test_a_producer_that_fails_may_submit_again_and_the_task_runs_once(
    stage: Stage, place: str, fault: str
) -> None:
    async with visiting(stage) as client:
        task_id = secrets.token_hex(6)
        stage.arm(place, fault)
        await fail(stage, "submit", task_id, fault)
        handle = await client.submit(call("drills", "aecho", value=task_id), task_id=task_id)
        assert await handle.result(within=20) == task_id
        await stage.end(client, handle)
        starts, drops = (
            [line for line in stage.worker.logged(f"attempt {event}") if line["task"] == task_id]
            for event in ("started", "dropped")
        )
        # A machine that stands still costs an attempt its lease, whatever the producer did.
        assert len(starts) == 1 + len(drops)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", CANCEL)
async def test_a_canceller_that_fails_may_cancel_again_and_the_task_stops(
    stage: Stage, place: str, fault: str
) -> None:
    async with visiting(stage) as client:
        handle = await client.submit(call("drills", "aecho", seconds=60))

        async def runs() -> bool:
            return (await handle.status()).phase is Phase.RUNNING

        await eventually(runs, within=20)
        stage.arm(place, fault)
        await fail(stage, "cancel", handle.id, fault)
        await handle.cancel()
        final = await stage.end(client, handle)
        assert final.outcome is Outcome.CANCELLED

        def stopped() -> bool:
            return any(line["task"] == handle.id for line in stage.worker.logged("attempt ended"))

        await eventually(stopped, within=20)
