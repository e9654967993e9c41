"""Unique keys and rules of failure on a real server, with a real worker."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from galley import AsyncClient, RetryPolicy, TaskCancelled, TaskFailed, Unique, UniqueConflict, When, call, on
from galley.resources import TaskQueue
from tests.integration.galley_worker.conftest import StartWorkers


async def test_of_many_that_race_for_a_key_one_runs_and_the_newest_replaces_those_that_wait(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    sent = [client.submit(call("drills", "echo", value=n), unique="race") for n in range(20)]
    came = await asyncio.gather(*sent, return_exceptions=True)
    assert sorted(type(one).__name__ for one in came) == ["AsyncHandle"] + ["UniqueConflict"] * 19
    latest = Unique(key="index", until="started", on_conflict="replace")
    soon = When(not_before=datetime.now(UTC) + timedelta(seconds=1))
    handles = [await client.submit(call("drills", "echo", value=n), soon, unique=latest) for n in range(5)]

    await start(drills)

    assert await handles[4].result(within=20) == 4
    for replaced in handles[:4]:
        with pytest.raises(TaskCancelled, match="took its place"):
            await replaced.result(within=20)
    [one] = [each for each in came if not isinstance(each, UniqueConflict)]
    assert not isinstance(one, BaseException)
    assert await one.result(within=20) in range(20)
    again = await client.submit(call("drills", "echo", value=7), unique="race")
    assert await again.result(within=20) == 7


async def test_a_rule_of_an_exceptions_base_class_decides(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    policy = RetryPolicy(attempts=5, rules=(on(Exception, then="fail"),))
    handle = await client.submit(call("drills", "fail"), When(retry=policy))
    await start(drills)
    with pytest.raises(TaskFailed, match="no luck"):
        await handle.result(within=20)
    assert (await handle.status()).attempt == 1
