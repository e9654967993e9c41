"""From nothing: a task is declared, workers come, its result is in its status, workers go."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from e2e.release import Release
from testcluster.images.image import ROOT
from tests.support.eventually import eventually
from tests.support.kubectl import Kubectl

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("galley")]

_TASK_SECONDS = 240
_IDLE_SECONDS = 2


def a_queue(name: str = "echo", **spec: Any) -> dict[str, Any]:
    command = {"name": "echo", "command": ["echo"], "inputAs": "args"}
    scaling = {"maxWorkers": 2, "idleSeconds": _IDLE_SECONDS}
    return {
        "apiVersion": "galley.dev/v1alpha1",
        "kind": "TaskQueue",
        "metadata": {"name": name},
        "spec": {"handlers": {"commands": [command]}, "scaling": scaling, **spec},
    }


def a_task(name: str, **spec: Any) -> dict[str, Any]:
    said = {"queueName": "echo", "handler": "echo", "input": [name], **spec}
    return {
        "apiVersion": "galley.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name},
        "spec": said,
    }


def status(kubectl: Kubectl, namespace: str, task: str) -> dict[str, Any]:
    return dict(kubectl.get("task", task, "-n", namespace).get("status", {}))


def workers(kubectl: Kubectl, namespace: str) -> list[str]:
    pods = kubectl.get("pods", "-n", namespace, "-l", "app.kubernetes.io/name=galley-worker")["items"]
    return [pod["metadata"]["name"] for pod in pods]


def wait_for(kubectl: Kubectl, namespace: str, *tasks: str, condition: str = "Succeeded") -> None:
    names = [f"task/{task}" for task in tasks]
    kubectl(
        *("wait", "-n", namespace, f"--for=condition={condition}", f"--timeout={_TASK_SECONDS}s", *names),
        within=_TASK_SECONDS + 10,
    )


def a_moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.fixture
def place(namespace_of_pods: str, kubectl: Kubectl) -> Iterator[str]:
    """A namespace that admits only restricted pods."""
    kubectl("label", "namespace", namespace_of_pods, "pod-security.kubernetes.io/enforce=restricted")
    yield namespace_of_pods
    kubectl("delete", "taskqueues,tasks", "--all", "-n", namespace_of_pods)


async def test_a_task_brings_its_worker_and_its_result_is_in_its_status(kubectl: Kubectl, place: str) -> None:
    assert workers(kubectl, place) == []
    kubectl.apply(a_queue(), a_task("first"), namespace=place)
    wait_for(kubectl, place, "first")
    first = status(kubectl, place, "first")
    assert (first["phase"], first["attempts"]) == ("Succeeded", 1)
    assert first["result"]["stdout"] == "first\n"
    assert first["worker"].startswith("galley-echo-")
    assert a_moment(first["queuedTime"]) <= a_moment(first["startTime"]) <= a_moment(first["completionTime"])


async def test_workers_go_when_there_is_nothing_to_do_and_come_back(kubectl: Kubectl, place: str) -> None:
    kubectl.apply(a_queue(), a_task("before"), namespace=place)
    wait_for(kubectl, place, "before")
    await eventually(lambda: workers(kubectl, place) == [], within=60 + _IDLE_SECONDS, why="no workers")
    deployment = kubectl.get("deployment", "galley-echo", "-n", place)
    assert deployment["spec"]["replicas"] == 0
    kubectl.apply(a_task("after"), namespace=place)
    wait_for(kubectl, place, "after")
    assert status(kubectl, place, "after")["worker"] != status(kubectl, place, "before")["worker"]


async def test_a_task_waits_for_its_queue(kubectl: Kubectl, place: str) -> None:
    kubectl.apply(a_task("early"), namespace=place)

    def said() -> list[dict[str, Any]]:
        return list(status(kubectl, place, "early").get("conditions", ()))

    conditions = await eventually(said, within=30, why="a condition that says why")
    assert [(each["type"], each["status"]) for each in conditions] == [
        ("Succeeded", "Unknown"),
        ("Finished", "False"),
    ]
    assert "echo" in conditions[0]["message"]
    kubectl.apply(a_queue(), namespace=place)
    wait_for(kubectl, place, "early")


async def test_code_comes_from_a_config_map(kubectl: Kubectl, place: str) -> None:
    kubectl("apply", "-n", place, "-k", str(ROOT / "examples" / "words"))
    wait_for(kubectl, place, "goethe", "carroll")
    assert status(kubectl, place, "goethe")["result"]["longest"] == "wipfeln"


async def test_code_comes_from_an_image_of_the_queue(kubectl: Kubectl, place: str) -> None:
    files = ROOT / "examples" / "thumbnails"
    kubectl("apply", "-n", place, "-f", str(files / "queue.yaml"), "-f", str(files / "tasks.yaml"))
    wait_for(kubectl, place, "thumbnail-hills", "thumbnail-life")
    result = status(kubectl, place, "thumbnail-hills")["result"]
    assert max(result["size"]) == 96
    assert result["jpeg"].startswith("/9j/")  # how every JPEG begins
    wait_for(kubectl, place, "thumbnail-of-a-poem", condition="Succeeded=False")
    error = status(kubectl, place, "thumbnail-of-a-poem")["error"]
    assert error["reason"] == "NonRetryable"
    assert "'raven.txt' is not a picture" in error["message"]


async def test_a_queue_tells_why_it_has_so_many_workers(kubectl: Kubectl, place: str) -> None:
    kubectl.apply(a_queue(scaling={"minWorkers": 1, "maxWorkers": 1}), namespace=place)

    def ready() -> dict[str, Any]:
        found: dict[str, Any] = kubectl.get("taskqueue", "echo", "-n", place).get("status", {})
        return found if found.get("workers", {}).get("ready") == 1 else {}

    found = await eventually(ready, within=_TASK_SECONDS, why="one ready worker")
    assert "1 worker" in found["scalingReason"]
    told = kubectl("describe", "taskqueue", "echo", "-n", place)
    assert found["scalingReason"] in told


def test_helm_test_runs_a_task_and_leaves_nothing(galley: Release, kubectl: Kubectl) -> None:
    said = galley.test()
    assert "Succeeded after" in said
    assert "over HTTP" in said
    left = kubectl.get("taskqueues,tasks", "-n", "default")["items"]
    assert [thing["metadata"]["name"] for thing in left] == []


def test_nothing_of_a_queue_stays_when_it_is_deleted(kubectl: Kubectl, place: str) -> None:
    kubectl.apply(a_queue(scaling={"minWorkers": 1, "maxWorkers": 1}), namespace=place)
    kubectl("wait", "-n", place, "--for=create", "--timeout=60s", "deployment/galley-echo", within=70)
    kubectl("delete", "taskqueue", "echo", "-n", place)
    kinds = "deployments,configmaps,poddisruptionbudgets,serviceaccounts,pods"
    kubectl(
        *("wait", "-n", place, "--for=delete", "--timeout=30s", "-l", "galley.dev/queue=echo", kinds),
        within=100,
    )
    assert (
        json.loads(kubectl("get", kinds, "-n", place, "-l", "galley.dev/queue=echo", "-o", "json"))["items"]
        == []
    )
