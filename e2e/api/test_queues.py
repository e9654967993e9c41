"""The operator as a process: what becomes of a TaskQueue, whatever is done to it and its objects."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from e2e.api.operator_process import OperatorProcess, operator
from e2e.api.queue_stage import CHILD, Stage, condition_of, events, settings_for
from galley.broker.connection import Broker
from galley.broker.ensure import ensure, stream_info
from galley.broker.layout import layout_of
from galley.broker.orphans import kept_queues
from galley.calls import call
from galley.client import AsyncClient
from galley.errors import ResultTimeout, TaskFailed
from galley_local.nats_server import NatsServer
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue, workers

KINDS = ("configmap", "serviceaccount", "poddisruptionbudget", "deployment")


async def test_a_queue_gets_streams_objects_and_conditions(stage: Stage, running: OperatorProcess) -> None:
    stage.apply(worker={"modules": ["drills"]})
    ready = await stage.condition("Ready", status="True", reason="Serving")
    assert ready["observedGeneration"] == 1
    assert (await stage.condition("StreamsReady", status="True"))["reason"] == "Present"
    assert (await stage.condition("WorkersAvailable", status="True"))["reason"] == "ScaledToZero"
    uid = stage.get("taskqueue", "drills")["metadata"]["uid"]
    for kind in KINDS:
        [owner] = stage.get(kind, CHILD)["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (uid, True)
    [kept] = await kept_queues(stage.broker, stage.namespace)
    assert (kept.queue, kept.uid) == ("drills", uid)
    assert "finalizers" not in stage.get("taskqueue", "drills")["metadata"]
    assert stage.get("deployment", CHILD)["spec"]["replicas"] == 0
    status = stage.status()
    assert status["workers"]["selector"] == "app.kubernetes.io/name=galley-worker,galley.dev/queue=drills"
    assert (status["waiting"], status["inFlight"], status["observedGeneration"]) == (0, 0, 1)


async def test_work_raises_replicas_and_people_are_told_why(stage: Stage, running: OperatorProcess) -> None:
    stage.apply(worker={"modules": ["drills"], "concurrency": 2}, scaling={"maxWorkers": 3})
    await stage.condition("Ready", status="True")
    client = AsyncClient.over(stage.broker, stage.namespace)
    for _ in range(3):
        await client.submit(call("drills", "nothing"))

    def scaled() -> bool:
        return bool(stage.get("deployment", CHILD)["spec"]["replicas"] == 2)

    await eventually(scaled, within=30)

    def told() -> bool:
        described = stage.api.kubectl("describe", "taskqueue", "-n", stage.namespace, "drills")
        assert "2 workers: 3 waiting + 0 running tasks over 2 slots each; at most 3" in described
        # The bell may have rung for the first of them before the others were there.
        return "Scaled" in described and "to 2 workers. 2 workers: " in described

    await eventually(told, within=30)
    await eventually(lambda: stage.status()["waiting"] == 3, within=30)
    await stage.condition("WorkersAvailable", status="True", reason="Starting")


async def test_what_only_has_the_name_of_a_queues_object_is_left_alone(
    stage: Stage, running: OperatorProcess
) -> None:
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CHILD}, "data": {"theirs": "yes"}}
    stage.api.kubectl.apply(theirs, namespace=stage.namespace)
    stage.apply()
    told = await stage.condition("Ready", status="False", reason="NameTaken")
    assert f"ConfigMap '{CHILD}'" in told["message"]
    found = stage.get("configmap", CHILD)
    assert found["data"] == {"theirs": "yes"}
    assert "ownerReferences" not in found["metadata"]
    assert not stage.there("deployment")
    stage.delete("configmap", CHILD)
    await stage.condition("Ready", status="True")
    assert stage.get("configmap", CHILD)["metadata"]["ownerReferences"]


async def test_a_queue_beside_the_keys_is_not_served_unless_asked_for(
    stage: Stage, nats_server: NatsServer, tmp_path: Path
) -> None:
    settings = settings_for("") | {"install": stage.namespace, "lease_namespace": stage.namespace}
    with operator(stage.api.kubeconfig, nats_server.url, tmp_path, **settings, own_namespace=stage.namespace):
        stage.apply()
        await stage.condition("Ready", status="False", reason="NamespaceReserved")
        assert not stage.there("deployment")
    listed = settings_for(stage.namespace, own_namespace=stage.namespace)
    with operator(stage.api.kubeconfig, nats_server.url, tmp_path, **listed):
        await stage.condition("Ready", status="True")


async def test_a_paused_queue_says_what_waits_and_its_command_resumes_it(
    stage: Stage, running: OperatorProcess
) -> None:
    stage.apply()
    await stage.condition("Ready", status="True")
    assert stage.status()["scalingMode"] == "Automatic"
    stage.api.kubectl("scale", "tq/drills", "-n", stage.namespace, "--replicas=0")
    await stage.condition("Ready", status="False", reason="Paused")
    client = AsyncClient.over(stage.broker, stage.namespace)
    handles = [await client.submit(call("drills", "nothing")) for _ in range(3)]
    with pytest.raises(ResultTimeout, match=r"queue 'drills' is paused: spec.scaling.workers is 0"):
        await handles[0].result(within=1)
    await eventually(lambda: "3 tasks wait" in condition_of(stage, "Ready")["message"], within=30)
    await eventually(lambda: "Paused" in [reason for reason, _ in events(stage, "Warning")], within=30)
    # To apply the manifest again does not undo it: it does not have the field.
    stage.apply()
    command = shlex.split(condition_of(stage, "Ready")["message"].partition("to resume: ")[2])
    assert command[:3] == ["kubectl", "patch", "taskqueue"]
    stage.api.kubectl(*command[1:])
    await stage.condition("Ready", status="True")
    assert "workers" not in stage.get("taskqueue", "drills")["spec"]["scaling"]
    await eventually(lambda: stage.status()["scalingMode"] == "Automatic", within=30)
    await eventually(lambda: "Ready" in [reason for reason, _ in events(stage, "Normal")], within=30)


async def test_a_queue_without_handlers_is_not_ready(stage: Stage, running: OperatorProcess) -> None:
    stage.apply(worker={"modules": []})
    found = await stage.condition("Ready", status="False", reason="HandlersMissing")
    assert "spec.worker.modules" in found["message"]
    await eventually(
        lambda: "HandlersMissing" in [reason for reason, _ in events(stage, "Warning")], within=30
    )
    stage.apply(handlers={"commands": [{"name": "echo", "command": ["echo"]}]}, worker={"modules": []})
    await stage.condition("Ready", status="True")


async def test_failed_tasks_are_told_in_one_warning(
    stage: Stage, running: OperatorProcess, nats_server: NatsServer, tmp_path: Path
) -> None:
    stage.apply()
    await stage.condition("Ready", status="True")
    queue = a_task_queue(stage.namespace)
    client = AsyncClient.over(stage.broker, stage.namespace)
    with workers(nats_server.url, queue, tmp_path):
        handles = [await client.submit(call("drills", "fail", kind="never")) for _ in range(5)]
        for handle in handles:
            with pytest.raises(TaskFailed):
                await handle.result(30)

        def told() -> bool:
            notes = [note for reason, note in events(stage, "Warning") if reason == "TasksFailed"]
            return sum(int(note.split()[0]) for note in notes) == 5

        # Two events at most, a minute apart. While the worker lives: it writes a letter after the outcome.
        await eventually(told, within=80)


async def test_an_edited_or_deleted_object_is_put_right(stage: Stage, running: OperatorProcess) -> None:
    stage.apply()
    await stage.condition("Ready", status="True")
    template = {"spec": {"containers": [{"name": "worker", "image": "localhost/stranger:1"}]}}
    stage.change("deployment", CHILD, {"spec": {"template": template}})

    def right() -> bool:
        [container] = stage.get("deployment", CHILD)["spec"]["template"]["spec"]["containers"]
        return bool(container["image"] == "localhost/worker:1")

    await eventually(right, within=30)
    stage.change("configmap", CHILD, {"data": {"queue.json": "{}"}})
    await eventually(lambda: "drills" in stage.get("configmap", CHILD)["data"]["queue.json"], within=30)
    for kind in KINDS:
        stage.delete(kind, CHILD)
    await eventually(lambda: all(stage.there(kind) for kind in KINDS), within=30)


async def test_a_deleted_stream_is_made_again(stage: Stage, running: OperatorProcess) -> None:
    stage.apply()
    await stage.condition("Ready", status="True")
    stream = f"GW_{stage.namespace}_drills"
    await stage.broker.api("delete", f"STREAM.DELETE.{stream}")

    async def again() -> bool:
        return await stream_info(stage.broker, stream) is not None

    await eventually(again, within=30)


async def test_replicas_are_left_alone_when_a_queue_changes(stage: Stage, running: OperatorProcess) -> None:
    stage.apply(scaling={"minWorkers": 2})
    await stage.condition("Ready", status="True")
    await eventually(lambda: stage.get("deployment", CHILD)["spec"]["replicas"] == 2, within=30)
    stage.apply(scaling={"minWorkers": 2}, timeoutSeconds=60)
    await stage.condition("Ready", status="True", observedGeneration=2)
    found = stage.get("deployment", CHILD)
    assert found["spec"]["replicas"] == 2
    owners = json.loads(
        stage.api.kubectl(
            "get", "deployment", CHILD, "-n", stage.namespace, "-o", "json", "--show-managed-fields"
        )
    )["metadata"]["managedFields"]
    assert [each["manager"] for each in owners if "f:replicas" in each["fieldsV1"].get("f:spec", {})] == [
        "galley-autoscaler"
    ]


async def test_a_change_of_scaling_or_limits_replaces_no_worker(
    stage: Stage, running: OperatorProcess
) -> None:
    stage.apply(scaling={"maxWorkers": 2})
    await stage.condition("Ready", status="True")
    before = stage.get("deployment", CHILD)["spec"]["template"]
    stage.apply(scaling={"maxWorkers": 9}, limits={"backlog": 5})
    await stage.condition("Ready", status="True", observedGeneration=2)
    assert stage.get("deployment", CHILD)["spec"]["template"] == before
    stage.apply(timeoutSeconds=7)
    await eventually(lambda: stage.get("deployment", CHILD)["spec"]["template"] != before, within=30)


async def test_streams_of_another_installation_are_left_alone_and_it_is_said(
    stage: Stage, running: OperatorProcess
) -> None:
    await ensure(stage.broker, layout_of(a_task_queue(stage.namespace), "another"))
    stage.apply()
    found = await stage.condition("Ready", status="False", reason="QueueConflict")
    assert "installation 'another'" in found["message"]
    assert "use another namespace" in found["message"]
    await stage.condition("StreamsReady", status="False", reason="QueueConflict")
    assert not stage.there("deployment")


async def test_code_that_is_missing_is_said_and_waited_for(stage: Stage, running: OperatorProcess) -> None:
    stage.apply(worker={"modules": ["handlers"], "code": {"configMapName": "code"}})
    found = await stage.condition("Ready", status="False", reason="CodeNotFound")
    assert f"kubectl create configmap code --namespace {stage.namespace}" in found["message"]
    stage.api.kubectl("create", "configmap", "code", "-n", stage.namespace, "--from-literal=handlers.py=1")
    await stage.condition("Ready", status="True")
    before = stage.get("deployment", CHILD)["spec"]["template"]["metadata"]["annotations"]
    stage.change("configmap", "code", {"data": {"handlers.py": "2"}})

    def newer() -> bool:
        now = stage.get("deployment", CHILD)["spec"]["template"]["metadata"]["annotations"]
        return bool(now != before)

    await eventually(newer, within=30)


async def test_a_deleted_queue_is_served_no_more_and_keeps_its_streams(
    stage: Stage, running: OperatorProcess
) -> None:
    stage.apply()
    await stage.condition("Ready", status="True")
    stage.delete("taskqueue", "drills")
    await eventually(lambda: running.logged("queue is gone"), within=30)
    assert await stream_info(stage.broker, f"GW_{stage.namespace}_drills") is not None
    stage.apply()
    await stage.condition("Ready", status="True")
    [kept] = await kept_queues(stage.broker, stage.namespace)
    assert kept.uid == stage.get("taskqueue", "drills")["metadata"]["uid"]


async def test_a_queue_that_waits_for_its_objects_to_go_gets_none_again(
    stage: Stage, running: OperatorProcess
) -> None:
    stage.apply()
    await stage.condition("Ready", status="True")
    stage.api.kubectl(
        "delete", "taskqueue", "drills", "-n", stage.namespace, "--cascade=foreground", "--wait=false"
    )

    def without_objects() -> bool:
        # What the garbage collector of a whole cluster does now; the finalizer would go with the last one.
        left = [kind for kind in KINDS if stage.there(kind)]
        for kind in left:
            stage.delete(kind, CHILD)
        return not left

    await eventually(without_objects, within=30)
    stage.apply("another")
    await stage.condition("Ready", name="another", status="True")
    assert not any(stage.there(kind) for kind in KINDS)
    await eventually(lambda: len(running.logged("queue is gone")) == 1, within=30)


async def test_it_starts_ready_and_ends_in_good_order(stage: Stage, running: OperatorProcess) -> None:
    await eventually(lambda: running.leads, within=30)
    assert running.page("livez")[0] == 200
    assert "galley_operator_leading 1.0" in running.page("metrics")[1]
    assert running.stop() == 0
    lease = stage.get("lease", "galley-operator")
    assert lease["spec"]["holderIdentity"] == ""


async def test_streams_that_nats_lost_are_made_again_as_soon_as_it_is_back(
    stage: Stage, own_nats_server: NatsServer, tmp_path: Path
) -> None:
    folder = tmp_path / "operator"
    folder.mkdir()
    # No sweep would come in time.
    settings = settings_for(stage.namespace, sweep_seconds=600)
    with operator(stage.api.kubeconfig, own_nats_server.url, folder, **settings) as running:
        stage.apply()
        await stage.condition("Ready", status="True")
        own_nats_server.kill()
        shutil.rmtree(tmp_path / "nats" / "jetstream")
        await own_nats_server.start()

        async def again() -> bool:
            async with Broker(own_nats_server.url, name="test") as broker:
                return await stream_info(broker, f"GW_{stage.namespace}_drills") is not None

        await eventually(again, within=30)
        await stage.condition("Ready", status="True")
        assert running.stop() == 0
