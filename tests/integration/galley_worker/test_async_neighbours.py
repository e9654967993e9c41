"""All the ways a handler can go wrong, at one time on one worker: no other task notices."""

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

from galley import AsyncClient, AsyncHandle, RetryPolicy, TaskFailed, When, call
from galley.resources import TaskQueue
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually

ONCE = When(timeout_seconds=80, retry=RetryPolicy(attempts=1, crashes=1))
BRIEFLY = When(timeout_seconds=1, retry=RetryPolicy(attempts=1))


async def outcome(handle: AsyncHandle[Any]) -> object:
    """Return the result, or why there is none."""
    try:
        return await handle.result(within=90)
    except TaskFailed as failed:
        return failed.why


async def test_each_bad_handler_has_its_own_outcome_and_the_good_ones_all_succeed(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    (worker,) = await start(drills, GALLEY_UNKNOWN_HANDLER_SECONDS="0")
    bad = {
        "HandlerNotFound": (call("drills", "nothing_like_it"), ONCE),
        "InputInvalid": (call("drills", "echo", valeu=1), ONCE),
        "HandlerRaised": (call("drills", "fail"), ONCE),
        "NonRetryable": (call("drills", "fail_for_good", message="a poem"), ONCE),
        "ResultInvalid": (call("drills", "not_json"), ONCE),
        "KillsItsWorker": (call("drills", "vanish"), ONCE),
        "TimedOut": (call("drills", "deaf", seconds=60), BRIEFLY),
        "closed": (call("drills", "close_pipes"), ONCE),
        "done": (call("drills", "shout", megabytes=1024), ONCE),
    }
    handles: dict[str, AsyncHandle[Any]] = {}
    good: list[AsyncHandle[Any]] = []
    for number, (expected, (misdeed, rules)) in enumerate(bad.items()):
        handles[expected] = await client.submit(misdeed, rules)
        good += await client.submit_many([call("drills", "aecho", value=10 * number + n) for n in range(5)])
        good += await client.submit_many(
            [call("drills", "echo", value=10 * number + n) for n in range(5, 10)]
        )

    seen = await asyncio.gather(*(outcome(handle) for handle in handles.values()))

    assert list(seen) == list(handles)
    assert [await outcome(handle) for handle in good] == list(range(10 * len(bad)))
    histories = [(await handle.status()).history for handle in good]
    assert {(each.errors, each.crashes) for each in histories} == {(0, 0)}
    assert worker.log_file.stat().st_size < 2_000_000


async def test_a_handler_deaf_to_signals_does_not_keep_its_worker_from_ending(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    (worker,) = await start(drills)
    # A delayed task is claimed before it runs, so that there is a record to count by.
    soon = When(not_before=datetime.now(UTC) + timedelta(seconds=0.2))
    handle = await client.submit(call("drills", "deaf", seconds=60), soon)
    await eventually(lambda: worker.ready, within=20)

    async def running() -> bool:
        return (await handle.status()).worker == "w1"

    await eventually(running, within=20)
    worker.send(signal.SIGTERM)

    assert await asyncio.to_thread(worker.process.wait, 40) == 0  # grace: 2 s
    status = await handle.status()
    assert (status.history.errors, status.history.crashes, status.history.preemptions) == (0, 0, 1)
