"""A Task that is deleted before it has ended takes its work with it; one that has ended does not."""

import asyncio
import signal

import pytest

from e2e.api.data_path import DataPathProcess
from e2e.api.scene import Scene, a_task, paused
from galley.address import Kind
from galley.broker.connection import Broker
from galley.broker.held import held
from testcluster.cluster import Part
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(120)


async def _nothing_held(scene: Scene, within: float) -> None:
    """Return once the broker holds no task of the queue any more."""
    async with Broker(scene.server, name="test") as broker:

        async def empty() -> bool:
            there = [task async for task in held(broker, scene.namespace, "drills", Kind.DIRECT)]
            assert not there, there
            return True

        await eventually(empty, within=within)


async def _ready(path: DataPathProcess) -> None:
    await eventually(lambda: path.ready, within=20, why="the data path is ready")


async def test_deleting_a_queued_task_takes_it_from_the_broker(scene: Scene) -> None:
    await scene.queue()
    with scene.data_path():
        scene.apply(a_task("one"), a_task("two"))
        await scene.all_in("Queued", 2, within=20)
        scene.delete("one", "two")
        await _nothing_held(scene, within=15)


async def test_deleting_a_running_task_stops_its_handler(scene: Scene) -> None:
    queue = await scene.queue()
    with scene.data_path(), scene.workers(queue) as (worker,):
        scene.apply(a_task("long", "hold", input={"word": "long", "seconds": 60}))
        await eventually(lambda: scene.runs() == {"begin long": 1}, within=20)
        scene.delete("long")
        await eventually(lambda: worker.logged("attempt overtaken"), within=20)
        await _nothing_held(scene, within=15)
        assert scene.runs() == {"begin long": 1}


async def test_a_task_that_ends_is_not_taken_for_a_deleted_one(scene: Scene) -> None:
    queue = await scene.queue()
    with scene.data_path() as path, scene.workers(queue):
        scene.apply(*[a_task(f"t{number}") for number in range(20)])
        await scene.all_in("Succeeded", 20, within=30)
        assert not path.logged("task of a deleted object")


async def test_tasks_deleted_while_nothing_watched_are_cancelled_when_the_watch_is_back(scene: Scene) -> None:
    await scene.queue()
    cluster = scene.api.cluster
    with scene.data_path() as path:
        names = [f"t{number}" for number in range(20)]
        scene.apply(*[a_task(name) for name in names])
        await scene.all_in("Queued", 20, within=20)
        with paused(path):
            scene.delete(*names)
            # A new API server does not remember what happened before it, so only a comparison can tell.
            cluster.kill(Part.API_SERVER)
            cluster.start(Part.API_SERVER)
        await eventually(lambda: _answers(scene), within=40)
        await _nothing_held(scene, within=60)
        await eventually(lambda: len(path.logged("task of a deleted object")) == 20, within=30)


async def test_tasks_deleted_while_there_is_no_operator_are_found_by_the_first_sweeps(
    scene: Scene,
) -> None:
    await scene.queue()
    with scene.data_path() as path:
        scene.apply(a_task("gone"), a_task("stays"))
        await scene.all_in("Queued", 2, within=20)
        path.kill()
        scene.delete("gone")
        path.restart()
        await _ready(path)
        async with Broker(scene.server, name="test") as broker:

            async def only_the_other() -> bool:
                tasks = held(broker, scene.namespace, "drills", Kind.DIRECT)
                return {task.id async for task in tasks} == {"stays"}

            await eventually(only_the_other, within=70)


async def test_a_task_deleted_and_made_again_runs_as_another(scene: Scene) -> None:
    queue = await scene.queue()
    with scene.data_path() as path:
        scene.apply(a_task("one", "note", input={"word": "first"}))
        await scene.status("one", phase="Queued")
        with paused(path):
            scene.delete("one")
            await asyncio.to_thread(scene.apply, a_task("one", "note", input={"word": "second"}))
        path.send(signal.SIGCONT)
        with scene.workers(queue):
            status = await scene.status("one", phase="Succeeded")
            assert status["result"] == "second"
        assert scene.runs()["second"] == 1


def _answers(scene: Scene) -> bool:
    try:
        return scene.api.kubectl("get", "--raw", "/readyz", within=5) == "ok"
    except Exception:
        return False
