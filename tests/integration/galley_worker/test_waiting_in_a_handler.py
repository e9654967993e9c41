"""A handler that waits for a task of its own queue is told so at once, before all slots wait."""

import sys
from pathlib import Path

import pytest

from galley import AsyncClient, ResultTimeout, RetryPolicy, TaskFailed, WaitsForOwnQueue, When, call, inside
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.workers import a_task_queue

HANDLERS = """
import asyncio
import concurrent.futures
import galley
from galley import task

@task
def child(n: int) -> int:
    return n

async def wait(queue: str, namespace: str, hold: bool) -> int:
    async with galley.connect(namespace=namespace) as client:
        handle = await client.submit(child.call(n=3).on(queue))
        return await handle.result(within=20, hold_slot=hold)

@task
async def waits(queue: str, namespace: str, hold: bool = False) -> int:
    return await wait(queue, namespace, hold)

@task
def waits_plainly(queue: str, namespace: str, hold: bool = False) -> int:
    return asyncio.run(wait(queue, namespace, hold))

@task
async def relay(queues: list[str], namespace: str, hold: bool = False) -> int:
    if not queues:
        return 0
    async with galley.connect(namespace=namespace) as client:
        again = relay.call(queues=queues[1:], namespace=namespace, hold=hold).on(queues[0])
        return 1 + await (await client.submit(again)).result(within=20, hold_slot=hold)

@task
def relay_in_a_thread(queues: list[str], namespace: str) -> int:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(relay.__wrapped__(queues, namespace))).result()

@task
async def asks_for(task_id: str, namespace: str) -> int:
    async with galley.connect(namespace=namespace) as client:
        return await client.handle("drills", task_id).result(within=20)
"""
ONE_WORKER = True

PROGRAM = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
from parents import wait
asyncio.run(wait(**json.load(sys.stdin)))
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    (folder / "parents.py").write_text(HANDLERS)
    (folder / "program.py").write_text(PROGRAM)
    return folder


@pytest.fixture
async def queues(client: AsyncClient, namespace: str, start: StartWorkers, code: Path) -> None:
    command = [sys.executable, str(code / "program.py"), str(code)]
    for name in ("drills", "other"):
        queue = a_task_queue(
            namespace,
            name,
            worker={"modules": ["parents"], "concurrency": 2},
            handlers={"commands": [{"name": "program", "command": command}]},
        )
        await ensure(client.broker, layout_of(queue, "tests"))
        await start(queue, (name,), GALLEY_IMPORT_PATHS=str(code))


@pytest.mark.parametrize("handler", ["waits", "waits_plainly"])
async def test_it_fails_at_once_and_is_not_retried(client: AsyncClient, queues: None, handler: str) -> None:
    given = {"queue": "drills", "namespace": client.namespace, "hold": False}
    handle = await client.submit(call("drills", handler, **given))
    with pytest.raises(TaskFailed, match="WaitsForOwnQueue: a handler of queue 'drills' waits for") as failed:
        await handle.result(within=60)
    assert failed.value.why == "NonRetryable"


async def test_a_command_is_told_as_well(client: AsyncClient, queues: None) -> None:
    given = {"queue": "drills", "namespace": client.namespace, "hold": False}
    handle = await client.submit(call("drills", "program", **given), When(retry=RetryPolicy(attempts=1)))
    with pytest.raises(TaskFailed, match=r"CommandFailed: .*return galley\.then"):
        await handle.result(within=60)


@pytest.mark.parametrize("handler", ["waits", "waits_plainly"])
@pytest.mark.parametrize(("where", "hold"), [("drills", True), ("other", False)])
async def test_it_waits_where_it_was_told_to_or_for_another_queue(
    client: AsyncClient, queues: None, handler: str, where: str, hold: bool
) -> None:
    given = {"queue": where, "namespace": client.namespace, "hold": hold}
    handle = await client.submit(call("drills", handler, **given))
    assert await handle.result(within=60) == 3


@pytest.mark.parametrize("handler", ["relay", "relay_in_a_thread"])
async def test_queues_that_wait_for_each_other_in_a_circle_are_told_so(
    client: AsyncClient, queues: None, handler: str
) -> None:
    way = {"queues": ["other", "drills"], "namespace": client.namespace}
    handle = await client.submit(call("drills", handler, **way), When(retry=RetryPolicy(attempts=1)))
    here = client.namespace
    circle = f"{here}/drills > {here}/other > {here}/drills"
    with pytest.raises(TaskFailed, match=rf"WaitsInCircle: a handler of {here}/other waits .*{circle}"):
        await handle.result(within=60)


async def test_a_circle_that_is_wanted_and_a_line_that_is_none_are_left_alone(
    client: AsyncClient, queues: None
) -> None:
    for way, hold in ((["other"], False), (["other", "drills"], True)):
        handle = await client.submit(
            call("drills", "relay", queues=way, namespace=client.namespace, hold=hold)
        )
        assert await handle.result(within=60) == len(way)


async def test_a_circle_over_three_queues_is_found(
    client: AsyncClient, namespace: str, queues: None, start: StartWorkers, code: Path
) -> None:
    third = a_task_queue(namespace, "third", worker={"modules": ["parents"]})
    await ensure(client.broker, layout_of(third, "tests"))
    await start(third, ("third",), GALLEY_IMPORT_PATHS=str(code))
    way = {"queues": ["other", "third", "drills"], "namespace": namespace}
    handle = await client.submit(call("drills", "relay", **way), When(retry=RetryPolicy(attempts=1)))
    with pytest.raises(TaskFailed, match=r"WaitsInCircle: .*/drills > .*/other > .*/third > .*/drills"):
        await handle.result(within=60)


async def test_a_result_that_is_there_needs_no_wait(client: AsyncClient, queues: None) -> None:
    child = await client.submit(call("drills", "child", n=5))
    assert await child.result(within=60) == 5
    handle = await client.submit(call("drills", "asks_for", task_id=child.id, namespace=client.namespace))
    assert await handle.result(within=60) == 5


async def test_by_name_or_not_it_is_the_queue_that_counts(
    client: AsyncClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ensure(client.broker, layout_of(a_task_queue(namespace, "idle"), "tests"))
    handle = await client.submit(call("idle", "child"))
    monkeypatch.setenv(inside.WORKER_VARIABLE, "")
    inside.mark_worker(namespace, "idle")
    with pytest.raises(WaitsForOwnQueue):
        await client.handle("idle", handle.id).result(within=0.1)
    inside.mark_worker("another", "idle")
    with pytest.raises(ResultTimeout):
        await handle.result(within=0.1)
