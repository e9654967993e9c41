"""Tasks that cannot run now say why, and run once they can; those that never can say so."""

import pytest

from e2e.api.scene import Scene, a_task, in_seconds
from galley.broker.connection import Broker
from galley.broker.orphans import collect
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(90)


async def test_a_task_without_a_queue_says_so_and_runs_once_there_is_one(scene: Scene) -> None:
    with scene.data_path():
        scene.apply(a_task("early", input={"value": 1}))
        status = await scene.status("early", reason="QueueNotFound")
        assert status["phase"] == "Pending"
        assert status["condition"]["status"] == "Unknown"
        assert "no TaskQueue 'drills'" in status["condition"]["message"]
        with scene.workers(await scene.queue()):
            await scene.status("early", phase="Succeeded")


async def test_tasks_of_a_queue_that_was_deleted_say_so_and_go_on_once_it_is_back(scene: Scene) -> None:
    queue = await scene.queue()
    with scene.data_path() as path:
        scene.apply(a_task("one"), a_task("later", notBefore=in_seconds(3600)))
        await scene.status("one", phase="Queued", reason="Queued")
        await scene.status("later", phase="Scheduled", reason="Scheduled")
        scene.api.kubectl("delete", "taskqueue", "drills", "-n", scene.namespace)
        for name, phase in (("one", "Queued"), ("later", "Scheduled")):
            status = await scene.status(name, phase=phase, reason="QueueNotFound")
            assert "apply it again, and the task goes on" in status["condition"]["message"]
        path.kill()
        path.restart()  # who leads next finds them as they are
        await scene.queue()
        await scene.status("one", phase="Queued", reason="Queued")
        await scene.status("later", phase="Scheduled", reason="Scheduled")
        with scene.workers(queue):
            await scene.status("one", phase="Succeeded")


async def test_tasks_of_a_queue_whose_streams_were_collected_are_put_into_the_next(scene: Scene) -> None:
    await scene.queue()
    with scene.data_path():
        scene.apply(a_task("one"))
        await scene.status("one", phase="Queued", reason="Queued")
        async with Broker(scene.server, name="test") as broker:
            await collect(broker, scene.namespace, "drills")
        scene.api.kubectl("delete", "taskqueue", "drills", "-n", scene.namespace)
        await scene.status("one", phase="Pending", reason="QueueNotFound")
        with scene.workers(await scene.queue()):
            await scene.status("one", phase="Succeeded")


async def test_a_task_whose_queue_has_no_streams_yet_waits_for_them(scene: Scene) -> None:
    with scene.data_path():
        spec = {"worker": {"modules": ["drills"]}}
        scene.apply(
            {
                "apiVersion": "galley.dev/v1alpha1",
                "kind": "TaskQueue",
                "metadata": {"name": "drills"},
                "spec": spec,
            },
            a_task("early"),
        )
        status = await scene.status("early", reason="QueueNotReady")
        assert status["phase"] == "Pending"
        await scene.queue()
        await scene.status("early", phase="Queued")


async def test_a_task_for_a_lane_its_queue_lacks_waits_until_it_has_it(scene: Scene) -> None:
    await scene.queue()
    with scene.data_path():
        scene.apply(a_task("urgent", priority="critical"))
        status = await scene.status("urgent", reason="LaneNotEnabled")
        assert "high, normal, low" in status["condition"]["message"]
        await scene.queue(lanes=["critical", "normal"])
        await scene.status("urgent", phase="Queued")


async def test_a_task_for_a_handler_a_queue_of_commands_lacks_waits_until_it_has_it(scene: Scene) -> None:
    commands = {"commands": [{"name": "list", "command": ["ls"]}]}
    await scene.queue(worker={"modules": []}, handlers=commands)
    with scene.data_path():
        scene.apply(a_task("one", "lst"), a_task("two", "list"))
        status = await scene.status("one", reason="HandlerNotFound")
        assert "but list;" in status["condition"]["message"]
        await scene.status("two", phase="Queued")
        commands["commands"].append({"name": "lst", "command": ["ls"]})
        await scene.queue(worker={"modules": []}, handlers=commands)
        await scene.status("one", phase="Queued")


async def test_a_task_whose_deadline_has_passed_has_failed_and_says_why(scene: Scene) -> None:
    await scene.queue()
    with scene.data_path():
        scene.apply(a_task("late", deadline=in_seconds(-60)))
        status = await scene.status("late", phase="Failed")
        assert status["error"]["reason"] == "DeadlineExceeded"
        assert status["condition"]["status"] == "False"


async def test_tasks_a_full_queue_refuses_wait_and_are_all_run_in_the_end(scene: Scene) -> None:
    queue = await scene.queue(limits={"backlog": 5})
    with scene.data_path():
        scene.apply(*[a_task(f"t{number:02}", "note", input={"word": f"w{number}"}) for number in range(40)])
        refused = 35

        def waiting() -> int:
            tasks = scene.tasks()
            reasons = [task.get("status", {}).get("conditions", [{}])[0].get("reason") for task in tasks]
            return reasons.count("QueueFull")

        await scene.until(lambda: waiting() == refused, within=20, why=f"{refused} tasks refused")
        with scene.workers(queue):
            await scene.all_in("Succeeded", 40, within=40)
        assert scene.runs() == {f"w{number}": 1 for number in range(40)}


async def test_a_task_of_a_full_queue_harms_no_other_queue(scene: Scene) -> None:
    await scene.queue(limits={"backlog": 1})
    await scene.queue("other")
    with scene.data_path():
        scene.apply(*[a_task(f"t{number}") for number in range(10)])
        # Which of them is admitted first is not said: they were applied together.
        await eventually(lambda: scene.reasons()["QueueFull"] == 9, within=20, why="nine wait for room")
        scene.apply(a_task("free", queue="other"))
        await scene.status("free", phase="Queued", within=5)
