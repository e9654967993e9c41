"""Tasks for a handler that only newer workers know, as during a rollout."""

from functools import partial
from pathlib import Path

import pytest

from galley import AsyncClient, AsyncHandle, Phase, TaskFailed, call
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.history import EndedBy
from galley.resources import TaskQueue
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue

FUNCTIONS = """
from galley import task

@task
def {name}() -> str:
    return "{name}"
"""


def a_version(namespace: str, folder: Path, kind: str, name: str) -> tuple[TaskQueue, str]:
    """Return the queue as one version of its workers sees it, and the folder of its code."""
    if kind == "command":
        commands = {"commands": [{"name": name, "command": ["echo", name]}]}
        return a_task_queue(namespace, worker={"modules": []}, handlers=commands), ""
    code = folder / f"code-{name}"
    code.mkdir()
    (code / "rolling.py").write_text(FUNCTIONS.format(name=name))
    return a_task_queue(namespace, worker={"modules": ["rolling"]}), str(code)


async def waits(handle: AsyncHandle[object]) -> bool:
    return (await handle.status()).phase is Phase.RETRYING


@pytest.mark.parametrize("kind", ["command", "function"])
async def test_an_old_worker_leaves_the_task_of_a_new_handler_to_a_newer_worker(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path, kind: str
) -> None:
    before, old_code = a_version(namespace, tmp_path, kind, "welcome")
    after, new_code = a_version(namespace, tmp_path, kind, "goodbye")
    await ensure(client.broker, layout_of(before, "tests"))
    (old,) = await start(before, ("old",), GALLEY_IMPORT_PATHS=old_code)
    handle = await client.submit(call("drills", "goodbye"))
    await eventually(partial(waits, handle), within=20)
    status = await handle.status()
    assert status.failure is not None
    assert status.failure.reason == "HandlerNotFound"
    assert "known to worker old: welcome" in status.failure.message
    (_,) = await start(after, ("new",), GALLEY_IMPORT_PATHS=new_code)
    old.end()

    assert "goodbye" in str(await handle.result(within=40))

    status = await handle.status()
    assert (status.attempt, status.history.errors, status.history.crashes) == (1, 0, 0)
    [past] = status.history.attempts
    assert (past.ended_by, past.reason) == (EndedBy.PREEMPTION, "HandlerNotFound")
    assert len(old.logged("attempt settled")) <= 10, "no hot loop"


async def test_a_handler_that_no_worker_knows_fails_when_the_patience_ends(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    (worker,) = await start(drills, GALLEY_UNKNOWN_HANDLER_SECONDS="3")
    handle = await client.submit(call("drills", "nothing_like_it"))

    with pytest.raises(TaskFailed, match="no worker has known it for 3 s") as failed:
        await handle.result(within=30)

    assert failed.value.why == "HandlerNotFound"
    deferred = [line for line in worker.logged("attempt settled") if line["verdict"] == "Defer"]
    assert 1 <= len(deferred) <= 4
    assert (await handle.status()).attempt == 1
