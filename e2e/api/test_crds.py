"""What an API server makes of our kinds: defaults, columns, selectors, scaling, and what may not change."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

from docs.generate.crds import KINDS, manifest
from docs.generate.structural import one_line
from galley.resources import (
    Condition,
    DeclaredFailure,
    DeclaredStatus,
    LaneStatus,
    ScalingMode,
    Task,
    TaskQueue,
    TaskQueueStatus,
    Truth,
    Worker,
    WorkersStatus,
)
from galley.task_status import Phase
from tests.support.api_server import ApiServer
from tests.support.kubectl import KubectlFailed
from tests.unit.galley.resources.test_task import FULL as FULL_TASK
from tests.unit.galley.resources.test_task_queue import FULL as FULL_QUEUE

NOON = "2026-01-01T12:00:00Z"


def a_condition(kind: str, status: Truth) -> Condition:
    return Condition(
        type=kind, status=status, reason="AllWell", message="all is well", last_transition_time=NOON,
        observed_generation=1,
    )  # fmt: skip


QUEUE_STATUS = TaskQueueStatus(
    observed_generation=1,
    conditions=(a_condition("Ready", Truth.TRUE), a_condition("Paused", Truth.FALSE)),
    waiting=12, in_flight=8, later=3, oldest_waiting_time=NOON, dead_letters=5,
    lanes=(LaneStatus(name="high", waiting=12, in_flight=8), LaneStatus(name="low")),
    workers=WorkersStatus(ready=2, desired=3, replicas=3, selector="galley.dev/queue=images"),
    scaling_mode=ScalingMode.AUTOMATIC, scaling_reason="3 workers: 20 tasks over 8 slots each",
)  # fmt: skip

TASK_STATUS = DeclaredStatus(
    observed_generation=1, phase=Phase.FAILED, conditions=(a_condition("Succeeded", Truth.FALSE),),
    attempts=3, queued_time=NOON, start_time=NOON, completion_time=NOON, worker="galley-images-7d4f-x2x",
    result={"a": [1, None, {"b": 2.5}]}, result_bytes=70_000,
    error=DeclaredFailure(reason="TimedOut", message="took longer than 9 s", traceback="Traceback\n  ..."),
)  # fmt: skip


def as_written(part: BaseModel) -> dict[str, Any]:
    """Return a part as the operator writes it."""
    return dict(part.model_dump(mode="json", by_alias=True, exclude_none=True))


def without_what_is_empty(value: Any) -> Any:
    """Return a value without the fields that have nothing in them, which are not stored."""
    if isinstance(value, dict):
        kept = {key: without_what_is_empty(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner not in (None, "", [], {})}
    return value


class Shelf:
    """One namespace with our kinds."""

    def __init__(self, api: ApiServer, namespace: str) -> None:
        self._kubectl = api.kubectl
        self._namespace = namespace

    def __call__(self, *words: str, given: str | None = None) -> str:
        return self._kubectl("-n", self._namespace, *words, given=given)

    def apply(self, thing: dict[str, Any]) -> dict[str, Any]:
        """Apply a manifest and return the object it became."""
        plain = thing | {"metadata": {"name": thing["metadata"]["name"]}}
        done = self("apply", "--warnings-as-errors", "-o", "json", "-f", "-", given=json.dumps(plain))
        return dict(json.loads(done))

    def spec(self, kind: str, name: str) -> dict[str, Any]:
        return dict(json.loads(self("get", kind, name, "-o", "json"))["spec"])

    def set_status(self, kind: str, name: str, status: BaseModel) -> dict[str, Any]:
        patch = json.dumps({"status": as_written(status)})
        done = self("patch", kind, name, "--subresource=status", "--type=merge", "-p", patch, "-o", "json")
        return dict(json.loads(done)["status"])


@pytest.fixture
def shelf(galley_api: ApiServer, api_namespace: str) -> Shelf:
    return Shelf(galley_api, api_namespace)


def a_queue(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "galley.dev/v1alpha1",
        "kind": "TaskQueue",
        "metadata": {"name": "images"},
        "spec": spec,
    }


def a_task(name: str = "cat", queue: str = "images", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "galley.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name},
        "spec": {"queueName": queue, "handler": "resize", **spec},
    }


def test_both_definitions_are_taken_without_a_warning_and_served(api_server: ApiServer) -> None:
    for kind in KINDS:
        api_server.kubectl(
            "apply",
            "--server-side",
            "--force-conflicts",
            "--warnings-as-errors",
            "-f",
            "-",
            given=manifest(kind),
        )
        name = f"crd/{kind.plural}.galley.dev"
        api_server.kubectl("wait", "--for=condition=Established", "--timeout=20s", name)
        conditions = api_server.kubectl.get(name)["status"]["conditions"]
        assert {each["type"]: each["status"] for each in conditions} == {
            "NamesAccepted": "True",
            "Established": "True",
        }


def test_what_a_queue_leaves_out_is_stored_as_the_model_has_it(shelf: Shelf) -> None:
    bare = a_queue()
    del bare["spec"]
    stored = shelf.apply(bare)
    assert stored["spec"] == without_what_is_empty(as_written(TaskQueue.model_validate(bare).spec))


def test_what_a_task_leaves_out_is_stored_as_the_model_has_it(shelf: Shelf) -> None:
    stored = shelf.apply(a_task(retry={}))
    assert stored["spec"] == without_what_is_empty(as_written(Task.model_validate(a_task(retry={})).spec))
    assert "retry" not in shelf.apply(a_task("dog"))["spec"]


@pytest.mark.parametrize(
    ("model", "full"), [(TaskQueue, FULL_QUEUE), (Task, FULL_TASK)], ids=["TaskQueue", "Task"]
)
def test_every_field_comes_back_as_it_was_written(
    shelf: Shelf, model: type[TaskQueue] | type[Task], full: dict[str, Any]
) -> None:
    written = model.model_validate(full)
    stored = shelf.apply(as_written(written))
    assert type(written.spec).model_validate(stored["spec"]) == written.spec


def test_the_status_of_a_queue_is_kept_whole(shelf: Shelf) -> None:
    shelf.apply(a_queue())
    stored = shelf.set_status("tq", "images", QUEUE_STATUS)
    assert TaskQueueStatus.model_validate(stored) == QUEUE_STATUS


def test_the_status_of_a_task_is_kept_whole(shelf: Shelf) -> None:
    shelf.apply(a_task())
    assert DeclaredStatus.model_validate(shelf.set_status("tk", "cat", TASK_STATUS)) == TASK_STATUS


def test_a_phase_we_do_not_have_is_refused(shelf: Shelf) -> None:
    shelf.apply(a_task())
    with pytest.raises(KubectlFailed, match=r'status\.phase: Unsupported value: "Done"'):
        shelf(
            "patch",
            "tk",
            "cat",
            "--subresource=status",
            "--type=merge",
            "-p",
            '{"status": {"phase": "Done"}}',
        )


CHANGES = {
    "another queue": {"queueName": "other"},
    "a value deep in the input": {"input": {"a": {"b": 2}}},
    "a field that was not there": {"deadline": "2030-01-01T00:00:00Z"},
    "how long it is kept": {"ttlSecondsAfterFinished": 5},
    "a default that is taken back": {"priority": "low"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_task_is_to_do_cannot_be_changed(shelf: Shelf, change: dict[str, Any]) -> None:
    shelf.apply(a_task(input={"a": {"b": 1}}))
    with pytest.raises(KubectlFailed, match=r"spec: Forbidden: a task stays as it was declared.*delete it"):
        shelf("patch", "tk", "cat", "--type=merge", "-p", json.dumps({"spec": change}))


def test_a_task_cannot_lose_what_it_is_to_do(shelf: Shelf) -> None:
    shelf.apply(a_task())
    with pytest.raises(KubectlFailed, match="spec: Required value"):
        shelf("patch", "tk", "cat", "--type=merge", "-p", '{"spec": null}')


# Everything that stands in a list and may be left out.
IN_LISTS = """
apiVersion: galley.dev/v1alpha1
kind: TaskQueue
metadata: {name: lists}
spec:
  worker:
    modules: [cats]
    template:
      env:
      - {name: A, valueFrom: {secretKeyRef: {name: a, key: a}}}
      - {name: B, valueFrom: {configMapKeyRef: {name: a, key: a}}}
      envFrom: [{secretRef: {name: a}}, {configMapRef: {name: a}}]
      volumes:
      - {name: a, secret: {secretName: a}}
      - {name: b, configMap: {name: a}}
      - {name: c, persistentVolumeClaim: {claimName: a}}
      - {name: d, ephemeral: {volumeClaimTemplate: {spec: {resources: {requests: {storage: 1Gi}}}}}}
      volumeMounts: [{name: a, mountPath: /a}]
      tolerations: [{key: a, value: b}]
      topologySpreadConstraints: [{topologyKey: zone}]
  handlers: {commands: [{name: meow, command: [echo]}]}
  scaling: {minimums: [{minWorkers: 1, start: "08:00", end: "09:00"}]}
---
apiVersion: galley.dev/v1alpha1
kind: Topic
metadata: {name: lists}
spec: {subscriptions: [{name: a, queueName: lists, handler: meow}]}
---
apiVersion: galley.dev/v1alpha1
kind: Workflow
metadata: {name: lists}
spec: {steps: [{name: a, queueName: lists, handler: meow, retry: {attempts: 5}}]}
"""


def test_manifests_that_are_applied_again_are_unchanged_whatever_their_lists_leave_out(shelf: Shelf) -> None:
    """As GitOps tools do each minute; they, too, compare lists as a whole."""
    created = shelf("apply", "-f", "-", given=IN_LISTS).splitlines()
    assert [line.rpartition(" ")[2] for line in created] == ["created"] * 3
    again = shelf("apply", "-f", "-", given=IN_LISTS).splitlines()
    assert [line.rpartition(" ")[2] for line in again] == ["unchanged"] * 3


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ("{backoffSeconds: 500}", "backoffSeconds is 500, above maxBackoffSeconds, which is 300"),
        ("{maxBackoffSeconds: 0.5}", "backoffSeconds is 1, above maxBackoffSeconds, which is 0.5"),
    ],
)
def test_pauses_of_a_step_are_compared_with_what_they_are_if_left_out(
    shelf: Shelf, step: str, problem: str
) -> None:
    with pytest.raises(KubectlFailed, match=problem):
        shelf("apply", "-f", "-", given=IN_LISTS.replace("{attempts: 5}", step))


def test_a_task_may_be_applied_again_and_labelled(shelf: Shelf) -> None:
    shelf.apply(a_task(input={"a": 1}))
    again = shelf("apply", "-f", "-", given=json.dumps(a_task(input={"a": 1})))
    assert again == "task.galley.dev/cat unchanged\n"
    assert shelf("label", "tk", "cat", "team=pictures") == "task.galley.dev/cat labeled\n"


def test_a_field_that_is_not_ours_is_refused(shelf: Shelf) -> None:
    with pytest.raises(KubectlFailed, match=r'unknown field "spec.worker.concurency"'):
        shelf.apply(a_queue(worker={"concurency": 2}))


def test_a_queue_may_be_changed_as_long_as_it_is_right(shelf: Shelf) -> None:
    shelf.apply(a_queue(scaling={"maxWorkers": 2}))
    assert shelf.apply(a_queue(scaling={"maxWorkers": 9}))["spec"]["scaling"]["maxWorkers"] == 9
    with pytest.raises(KubectlFailed, match="minWorkers is 10, above maxWorkers, which is 9"):
        shelf("patch", "tq", "images", "--type=merge", "-p", '{"spec": {"scaling": {"minWorkers": 10}}}')


def test_a_wrong_value_is_told_with_what_else_is_wrong(shelf: Shelf) -> None:
    with pytest.raises(KubectlFailed) as caught:
        shelf.apply(a_queue(lanes=["low", "low"], worker={"modules": ["a.py"], "image": "my image"}))
    said = str(caught.value)
    assert "spec.lanes: Invalid value" in said
    assert "lane 'low' stands in the list twice; remove or rename one of the two" in said
    assert "'a.py' is the name of a file; write the module: a" in said
    assert "'my image' is not the name of an image; write it as docker pull takes it" in said


def test_kubectl_get_shows_how_queues_and_tasks_stand(shelf: Shelf) -> None:
    shelf.apply(a_queue())
    shelf.apply(a_task())
    shelf.set_status("tq", "images", QUEUE_STATUS)
    shelf.set_status("tk", "cat", TASK_STATUS)
    head, queue, _, task_head, task = (line.split() for line in shelf("get", "tq,tk").splitlines())
    assert head == ["NAME", "READY", "WAITING", "RUNNING", "WORKERS", "MAX", "SCALING", "AGE"]
    assert queue[:-1] == ["taskqueue.galley.dev/images", "True", "12", "8", "2", "4", "Automatic"]
    assert task_head == ["NAME", "QUEUE", "HANDLER", "PHASE", "ATTEMPTS", "AGE"]
    assert task[:-1] == ["task.galley.dev/cat", "images", "resize", "Failed", "3"]
    wide = shelf("get", "galley", "-o", "wide")
    assert "3 workers: 20 tasks over 8 slots each" in wide
    assert "AllWell   all is well" in wide


def test_tasks_are_selected_by_phase_and_queue(shelf: Shelf) -> None:
    for name, queue, phase in [
        ("a", "x", "QUEUED"),
        ("b", "x", "SUCCEEDED"),
        ("c", "y", "QUEUED"),
        ("d", "y", ""),
    ]:
        shelf.apply(a_task(name, queue))
        if phase:
            shelf.set_status("tk", name, DeclaredStatus(phase=Phase[phase]))

    def named(selector: str) -> list[str]:
        return shelf("get", "tk", "-o", "name", "--field-selector", selector).split()

    assert named("status.phase=Queued,spec.queueName=x") == ["task.galley.dev/a"]
    ended = "status.phase!=Succeeded,status.phase!=Failed,status.phase!=Cancelled"
    assert named(ended) == [f"task.galley.dev/{name}" for name in "acd"]


def test_kubectl_waits_for_a_task_to_succeed(shelf: Shelf) -> None:
    shelf.apply(a_task())
    shelf.set_status("tk", "cat", DeclaredStatus(conditions=(a_condition("Succeeded", Truth.TRUE),)))
    assert (
        shelf("wait", "--for=condition=Succeeded", "tk/cat", "--timeout=5s")
        == "task.galley.dev/cat condition met\n"
    )


@pytest.mark.parametrize("succeeded", [Truth.TRUE, Truth.FALSE])
def test_kubectl_waits_for_a_task_to_end_however_it_does(shelf: Shelf, succeeded: Truth) -> None:
    shelf.apply(a_task())
    ended = (a_condition("Succeeded", succeeded), a_condition("Finished", Truth.TRUE))
    shelf.set_status("tk", "cat", DeclaredStatus(conditions=ended))
    shelf("wait", "--for=condition=Finished", "tk/cat", "--timeout=5s")


def test_kubectl_scale_fixes_the_number_of_workers_within_the_maximum(shelf: Shelf) -> None:
    shelf.apply(a_queue())
    shelf.set_status("tq", "images", QUEUE_STATUS)
    for replicas in (0, 2):
        assert shelf("scale", "tq/images", f"--replicas={replicas}") == "taskqueue.galley.dev/images scaled\n"
        assert TaskQueue.model_validate(a_queue(**shelf.spec("tq", "images"))).spec.scaling.most == replicas
    with pytest.raises(
        KubectlFailed, match="is 5, above maxWorkers, which is 4; lower it, or set maxWorkers to 5"
    ):
        shelf("scale", "tq/images", "--replicas=5")
    scale = json.loads(shelf("get", "tq", "images", "--subresource=scale", "-o", "json"))
    assert (scale["spec"], scale["status"]) == (
        {"replicas": 2},
        {"replicas": 3, "selector": "galley.dev/queue=images"},
    )


def test_a_manifest_that_fixes_the_number_of_workers_undoes_kubectl_scale(shelf: Shelf) -> None:
    fixed = a_queue(scaling={"workers": 2})
    shelf.apply(fixed)
    shelf("scale", "tq/images", "--replicas=0")
    assert shelf.apply(fixed)["spec"]["scaling"]["workers"] == 2
    shelf("scale", "tq/images", "--replicas=0")
    given = json.dumps(fixed)
    shelf("apply", "--server-side", "--field-manager=ci", "--force-conflicts", "-f", "-", given=given)
    assert shelf.spec("tq", "images")["scaling"]["workers"] == 2


def test_kubectl_explains_a_field_as_the_model_does(shelf: Shelf) -> None:
    explained = one_line(shelf("explain", "taskqueue.spec.worker"))
    for name, field in Worker.model_fields.items():
        assert f"{field.alias} <" in explained, name
        assert one_line(field.description or "") in explained, name
