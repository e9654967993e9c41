"""One name is one task: applied by either command, after its TTL, and after a person deleted it."""

import asyncio

import pytest

from e2e.api.scene import Scene, a_task
from galley import AsyncClient
from galley.broker.connection import Broker
from galley.declared import submit_declared
from galley.resources import Task
from galley.task_status import Phase

pytestmark = pytest.mark.timeout(120)


async def test_kubectl_and_galley_apply_of_one_task_make_one(scene: Scene) -> None:
    queue = await scene.queue()
    task = a_task("one", "note", input={"word": "once"})
    with scene.data_path():
        scene.apply(task)
        await scene.status("one", phase="Queued")
        async with Broker(scene.server, name="test") as broker:
            spec = {**task, "metadata": {"name": "one", "namespace": scene.namespace}}
            assert not (await submit_declared(broker, Task.model_validate(spec))).created
            handle = AsyncClient.over(broker, scene.namespace).handle("drills", "one")
            assert (await handle.status()).phase is Phase.QUEUED
            with scene.workers(queue):
                await scene.status("one", phase="Succeeded")
                assert await handle.result(within=10) == "once"
        assert scene.runs() == {"once": 1}


async def test_a_task_applied_again_after_its_ttl_runs_only_once_it_was_deleted(
    scene: Scene,
) -> None:
    queue = await scene.queue()
    task = a_task("one", "note", input={"word": "once"}, ttlSecondsAfterFinished=0)
    with scene.data_path(expiry_seconds=0.5), scene.workers(queue):
        scene.apply(task)
        await scene.until(lambda: scene.runs() == {"once": 1} and not scene.tasks(), within=40, why="expired")
    with scene.data_path(), scene.workers(queue):
        scene.apply(task)
        status = await scene.status("one", phase="Succeeded", reason="AlreadyRan")
        assert status["result"] == "once"
        await asyncio.sleep(1)
        assert scene.runs() == {"once": 1}
        scene.delete("one")
        await scene.until(lambda: not scene.tasks(), within=20, why="deleted")
        scene.apply(task)
        await scene.status("one", phase="Succeeded", reason="Succeeded")
        assert scene.runs() == {"once": 2}
