"""300 tasks end once each, whatever is killed while they run."""

import asyncio
import random
import signal

import pytest

from e2e.api.scene import Scene, a_task, in_seconds
from galley.broker.connection import Broker
from galley.broker.topology import work_stream
from galley_local.nats_server import NatsServer
from testcluster.cluster import Part
from tests.support.api_server import ApiServer
from tests.support.eventually import eventually
from tests.support.kubectl import KubectlFailed

pytestmark = pytest.mark.timeout(300)

COUNT = 300


def _tasks() -> list[dict[str, object]]:
    lanes = ("high", "normal", "low")
    return [
        a_task(f"t{number:03}", "note", input={"word": f"w{number}"}, priority=lanes[number % 3])
        for number in range(COUNT)
    ]


async def _done(scene: Scene, least: int) -> None:
    await eventually(lambda: sum(scene.runs().values()) >= least, within=60, why=f"{least} runs")


async def _once_each(scene: Scene) -> None:
    await scene.all_in("Succeeded", COUNT, within=120)
    assert scene.runs() == {f"w{number}": 1 for number in range(COUNT)}


async def test_no_task_is_lost_or_doubled_when_the_operator_is_killed_again_and_again(scene: Scene) -> None:
    queue = await scene.queue()
    with scene.data_path() as path, scene.workers(queue):
        applying = asyncio.create_task(asyncio.to_thread(scene.apply, *_tasks()))
        for least in (20, 80, 160, 240):
            await _done(scene, least)
            path.kill()
            path.restart()
        await applying
        await _once_each(scene)


async def test_no_task_is_lost_or_doubled_when_the_operator_is_away_for_most_of_it(scene: Scene) -> None:
    queue = await scene.queue()
    with scene.data_path() as path, scene.workers(queue):
        await asyncio.to_thread(scene.apply, *_tasks())
        await scene.until(lambda: scene.phases()["none"] == 0, within=60, why="all admitted")
        path.send(signal.SIGTERM)
        await _done(scene, COUNT)
        path.restart()
        await _once_each(scene)


async def test_what_waits_says_the_same_after_the_operator_was_killed(scene: Scene) -> None:
    await scene.queue()
    with scene.data_path() as path:
        scene.apply(a_task("now"), a_task("later", notBefore=in_seconds(3600)))
        await scene.status("now", phase="Queued")
        await scene.status("later", phase="Scheduled")
        before = scene.task("now"), scene.task("later")
        path.kill()
        path.restart()
        await eventually(lambda: path.ready, within=20)
        scene.apply(a_task("new"))
        await scene.status("new", phase="Queued")
        assert (scene.task("now"), scene.task("later")) == before


async def test_no_task_is_lost_or_doubled_when_the_api_server_is_killed(scene: Scene) -> None:
    queue = await scene.queue()
    cluster = scene.api.cluster
    with scene.data_path(), scene.workers(queue):
        await asyncio.to_thread(scene.apply, *_tasks())
        await _done(scene, 50)
        cluster.kill(Part.API_SERVER)
        cluster.start(Part.API_SERVER)
        await eventually(lambda: _answers(scene), within=60)
        await _once_each(scene)


async def test_no_task_is_lost_or_doubled_when_the_broker_is_killed(
    galley_api: ApiServer, own_nats_server: NatsServer, scene: Scene
) -> None:
    scene = Scene(galley_api, own_nats_server.url, scene.namespace, scene.folder)
    queue = await scene.queue()
    with scene.data_path(), scene.workers(queue):
        applying = asyncio.create_task(asyncio.to_thread(scene.apply, *_tasks()))
        for least in (30, 150):
            await _done(scene, least)
            own_nats_server.kill()
            await own_nats_server.start()
        await applying
        await _once_each(scene)


def _answers(scene: Scene) -> bool:
    try:
        return scene.api.kubectl("get", "--raw", "/readyz", within=5) == "ok"
    except KubectlFailed:
        return False


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_task_has_one_outcome_whatever_is_killed(
    galley_api: ApiServer, own_nats_server: NatsServer, scene: Scene, seed: int
) -> None:
    chance = random.Random(seed)
    scene = Scene(galley_api, own_nats_server.url, scene.namespace, scene.folder)
    queue = await scene.queue(worker={"concurrency": 4}, retry={"crashes": 20})
    with scene.data_path() as path, scene.workers(queue, "w1", "w2") as workers:
        applying = asyncio.create_task(asyncio.to_thread(scene.apply, *_tasks()))
        kills = 0
        for least in sorted(chance.sample(range(10, COUNT - 30), 6)):
            await _done(scene, least)
            victim = chance.choice(["operator", "worker", "broker"])
            if victim == "operator":
                path.kill()
                path.restart()
            elif victim == "broker":
                own_nats_server.kill()
                await own_nats_server.start()
            else:
                kills += 1
                worker = chance.choice(workers)
                worker.kill()
                worker.restart()
        await applying
        await scene.all_in("Succeeded", COUNT, within=150)
    runs = scene.runs()
    assert set(runs) == {f"w{number}" for number in range(COUNT)}
    # What a killed worker was at has to be run again: it is not known how far it came. Nothing else is.
    held_at_most = 4 * 10
    assert sum(runs.values()) - COUNT <= kills * held_at_most


async def test_work_the_broker_lost_is_put_there_again(scene: Scene) -> None:
    queue = await scene.queue()
    with scene.data_path(resync_seconds=1.0):
        scene.apply(a_task("one", "note", input={"word": "one"}))
        await scene.status("one", phase="Queued")
        async with Broker(scene.server, name="test") as broker:
            stream = work_stream(scene.namespace, queue.metadata.name)
            await broker.api("lose all tasks", f"STREAM.PURGE.{stream}")
        with scene.workers(queue):
            await scene.status("one", phase="Succeeded")
        assert scene.runs() == {"one": 1}
