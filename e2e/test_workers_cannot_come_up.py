"""An image that cannot be pulled, a module that does not import: the queue tells, and other queues go on."""

from typing import Any

import pytest

from e2e import waits
from e2e.place import Object, Place
from testcluster.images.image import WORKER

pytestmark = pytest.mark.timeout(600)

NOWHERE = "localhost:1/no/such-image:1"


def a_queue(name: str, **worker: Any) -> Object:
    command = {"name": "echo", "command": ["echo"], "inputAs": "args"}
    spec = {"handlers": {"commands": [command]}, "scaling": {"maxWorkers": 1}, "worker": worker}
    return {
        "apiVersion": "galley.dev/v1alpha1",
        "kind": "TaskQueue",
        "metadata": {"name": name},
        "spec": spec,
    }


def code(text: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "code"},
        "data": {"thumbs.py": text},
    }


def a_task(name: str, queue: str) -> Object:
    spec = {"queueName": queue, "handler": "echo", "input": [name]}
    return {"apiVersion": "galley.dev/v1alpha1", "kind": "Task", "metadata": {"name": name}, "spec": spec}


def condition(place: Place, queue: str, kind: str, **wanted: str) -> Object:
    """Return a condition of a queue once these of its fields are so."""

    def look() -> Object:
        conditions = {each["type"]: each for each in place.queue(queue).get("conditions", ())}
        found: Object = conditions.get(kind, {})
        assert {key: found.get(key) for key in wanted} == wanted, found
        return found

    return place.until(f"{kind} of queue {queue}: {wanted}", look, within=waits.CONDITION_SAID)


def succeeded(place: Place, task: str) -> None:
    place.until(
        f"task {task} to succeed",
        lambda: place.status(task).get("phase") == "Succeeded",
        within=waits.TASKS_ENDED,
    )


def test_an_image_that_cannot_be_pulled_is_named_and_other_queues_go_on(place: Place) -> None:
    place.apply(a_queue("broken", image=NOWHERE), a_task("waits", "broken"))
    found = condition(place, "broken", "Ready", status="False", reason="ImagePullFailed")
    assert NOWHERE in found["message"]
    assert "check spec.worker.image" in found["message"]
    place.apply(a_queue("whole"), a_task("goes-on", "whole"))
    succeeded(place, "goes-on")
    assert place.status("waits")["phase"] == "Queued"
    place.apply(a_queue("broken", image=WORKER.reference))
    succeeded(place, "waits")
    condition(place, "broken", "Ready", status="True")


def test_a_module_that_does_not_import_is_quoted_and_other_queues_go_on(place: Place) -> None:
    worker = {"modules": ["thumbs"], "code": {"configMapName": "code"}}
    place.apply(code("import nothing_of_that_name"), a_queue("broken", **worker), a_task("waits", "broken"))
    found = condition(place, "broken", "Ready", status="False", reason="WorkerCannotStart")
    assert "module 'thumbs' does not import" in found["message"]
    assert "No module named 'nothing_of_that_name'" in found["message"]
    place.apply(a_queue("whole"), a_task("goes-on", "whole"))
    succeeded(place, "goes-on")
    assert place.status("waits")["phase"] == "Queued"
    place.apply(code("import math"), a_queue("broken", **worker))
    succeeded(place, "waits")
    condition(place, "broken", "Ready", status="True")
