"""Tasks that are applied run, and say in their status how they are and what came out."""

import json

import pytest

from e2e.api.scene import Scene, a_task, in_seconds
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(90)


async def test_an_applied_task_runs_and_carries_its_result(scene: Scene) -> None:
    queue = await scene.queue()
    with scene.data_path(), scene.workers(queue):
        scene.apply(a_task("one", input={"value": {"n": [1, 2]}}))
        scene.api.kubectl(
            "wait", "--for=condition=Succeeded", "task/one", "-n", scene.namespace, "--timeout=20s"
        )
        status = scene.task("one")["status"]
        assert status["phase"] == "Succeeded"
        assert status["result"] == {"n": [1, 2]}
        assert status["attempts"] == 1
        assert status["worker"] == "w1"
        assert status["observedGeneration"] == 1
        assert status["queuedTime"] <= status["startTime"] <= status["completionTime"]
        assert "error" not in status


async def test_a_task_without_a_worker_is_queued_and_says_what_it_waits_for(scene: Scene) -> None:
    await scene.queue()
    with scene.data_path():
        scene.apply(a_task("one"))
        status = await scene.status("one", phase="Queued")
        assert status["condition"]["status"] == "Unknown"
        assert status["condition"]["message"] == "waits for a free worker"
        assert status["condition"]["lastTransitionTime"] == scene.task("one")["metadata"]["creationTimestamp"]


async def test_a_task_that_failed_says_why_and_its_condition_is_false(scene: Scene) -> None:
    queue = await scene.queue()
    with scene.data_path(), scene.workers(queue):
        scene.apply(a_task("one", "fail_for_good", input={"message": "no such picture"}))
        scene.api.kubectl(
            "wait", "--for=condition=Succeeded=False", "task/one", "-n", scene.namespace, "--timeout=20s"
        )
        status = scene.task("one")["status"]
        assert status["phase"] == "Failed"
        assert status["error"]["reason"] == "NonRetryable"
        assert "no such picture" in status["error"]["message"]
        assert status["conditions"][0]["reason"] == "NonRetryable"
        assert "result" not in status


async def test_a_task_tells_of_the_attempt_that_failed_while_it_waits_for_the_next(scene: Scene) -> None:
    queue = await scene.queue()
    with scene.data_path(), scene.workers(queue):
        retry = {"attempts": 3, "backoffSeconds": 3600, "maxBackoffSeconds": 3600}
        scene.apply(a_task("one", "fail", input={"message": "not yet"}, retry=retry))
        status = await scene.status("one", phase="Retrying")
        assert status["attempts"] == 1
        error = status["error"]
        assert (error["reason"], error["message"]) == ("HandlerRaised", "ValueError: not yet")
        assert error["traceback"].rstrip().endswith("ValueError: not yet")
        assert "in fail" in error["traceback"]


async def test_a_result_too_large_for_the_object_leaves_its_size_there(scene: Scene) -> None:
    queue = await scene.queue()
    with scene.data_path(), scene.workers(queue):
        scene.apply(a_task("large", "huge", input={"size": 20_000}), a_task("none", "echo"))
        large = await scene.status("large", phase="Succeeded")
        assert large["resultBytes"] > 20_000
        assert "result" not in large
        assert "result" not in await scene.status("none", phase="Succeeded")


async def test_a_task_for_later_is_scheduled_and_runs_then(scene: Scene) -> None:
    queue = await scene.queue()
    with scene.data_path() as path, scene.workers(queue):
        await eventually(lambda: path.ready, within=60, why="the data path is ready")
        scene.apply(a_task("later", "note", input={"word": "later"}, notBefore=in_seconds(6)))
        status = await scene.status("later", phase="Scheduled")
        assert "is to start at" in status["condition"]["message"]
        assert scene.runs() == {}
        await scene.status("later", phase="Succeeded")
        assert scene.runs() == {"later": 1}


async def test_a_long_task_says_that_it_runs_and_where(scene: Scene) -> None:
    queue = await scene.queue()
    with scene.data_path(), scene.workers(queue):
        scene.apply(a_task("long", "hold", input={"word": "long", "seconds": 30}))
        status = await scene.status("long", phase="Running")
        assert status["worker"] == "w1"
        assert status["attempts"] == 1


async def test_short_tasks_cost_two_status_writes_at_most(scene: Scene) -> None:
    queue = await scene.queue(limits={"backlog": 1000})
    with scene.data_path() as path, scene.workers(queue):
        scene.apply(*[a_task(f"t{number}", input={"value": number}) for number in range(100)])
        await scene.all_in("Succeeded", 100, within=40)
        path.kill()
    writes = scene.status_writes()
    assert len(writes) == 100
    assert max(writes.values()) <= 2


async def test_the_result_of_one_task_is_not_written_into_another_of_its_name(scene: Scene) -> None:
    queue = await scene.queue()
    with scene.data_path():
        scene.apply(a_task("one", input={"value": "first"}))
        await scene.status("one", phase="Queued")
        first = scene.task("one")["metadata"]["uid"]
        scene.delete("one")
        scene.apply(a_task("one", input={"value": "second"}))
        assert scene.task("one")["metadata"]["uid"] != first
        with scene.workers(queue):
            status = await scene.status("one", phase="Succeeded")
            assert status["result"] == "second"


async def test_what_is_asked_for_is_what_the_handler_gets(scene: Scene) -> None:
    queue = await scene.queue()
    value = {"text": 'Grüße \u2028 "quoted"', "numbers": [1, -2.5, 1e-7], "nothing": None, "yes": True}
    with scene.data_path(), scene.workers(queue):
        # `kubectl apply` leaves out a null, as a merge would.
        given = json.dumps(a_task("one", input={"value": value}))
        scene.api.kubectl("create", "-n", scene.namespace, "-f", "-", given=given)
        status = await scene.status("one", phase="Succeeded")
        assert json.dumps(status["result"], sort_keys=True) == json.dumps(value, sort_keys=True)
