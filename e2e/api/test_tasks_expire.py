"""Tasks that ended go when their time is over, and those that would come back stay."""

import pytest

from e2e.api.scene import Scene, a_task

pytestmark = pytest.mark.timeout(90)


async def test_an_ended_task_goes_after_its_time_and_its_neighbours_stay(scene: Scene) -> None:
    queue = await scene.queue()
    argo = {"app.kubernetes.io/instance": "thumbs"}
    with scene.data_path(task_ttl_seconds=1, expiry_seconds=0.5), scene.workers(queue):
        scene.apply(
            a_task("default"),
            a_task("soon", ttlSecondsAfterFinished=0),
            a_task("long", ttlSecondsAfterFinished=3600),
            a_task("argo", labels=argo),
            a_task("both", labels=argo, ttlSecondsAfterFinished=0),
            a_task("runs", "hold", input={"word": "runs", "seconds": 60}, ttlSecondsAfterFinished=0),
        )

        def left() -> set[str]:
            return {task["metadata"]["name"] for task in scene.tasks()}

        await scene.until(lambda: left() == {"long", "argo", "runs"}, within=30, why="three are gone")
        assert scene.phases()["Succeeded"] == 2


async def test_without_a_default_only_tasks_that_ask_for_it_go(scene: Scene) -> None:
    queue = await scene.queue()
    with scene.data_path(expiry_seconds=0.5), scene.workers(queue):
        scene.apply(a_task("stays"), a_task("goes", ttlSecondsAfterFinished=0))
        await scene.status("stays", phase="Succeeded")

        def left() -> list[str]:
            return [task["metadata"]["name"] for task in scene.tasks()]

        await scene.until(lambda: left() == ["stays"], within=30, why="one is gone")
