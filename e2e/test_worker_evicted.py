"""The node evicts a worker: the task that it was for is a dead letter that says so, and others run on."""

import pytest

from e2e import producer, waits
from e2e.place import Object, Place

pytestmark = pytest.mark.timeout(900)

HANDLERS = '''
import pathlib
import time

from galley import task


@task(queue="untidy")
def fill(mebibytes: int) -> int:
    """Write more than the volume may hold; the node notices within a minute or so, and evicts the pod."""
    file = pathlib.Path("/scratch/big")
    file.write_bytes(b"x" * (mebibytes << 20))
    if mebibytes > 16:
        time.sleep(600)
    return file.stat().st_size
'''

TOO_MUCH = 64


def a_queue() -> tuple[Object, Object]:
    worker = {
        "modules": ["untidy"],
        "code": {"configMapName": "untidy"},
        "concurrency": 1,
        "template": {
            "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "16Mi"}}],
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        },
    }
    spec = {"worker": worker, "scaling": {"maxWorkers": 1}, "retry": {"crashes": 1}}
    data = {"untidy.py": HANDLERS}
    return (
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "untidy"}, "data": data},
        {
            "apiVersion": "galley.dev/v1alpha1",
            "kind": "TaskQueue",
            "metadata": {"name": "untidy"},
            "spec": spec,
        },
    )


def a_task(name: str, mebibytes: int) -> Object:
    spec = {"queueName": "untidy", "handler": "fill", "input": {"mebibytes": mebibytes}}
    return {"apiVersion": "galley.dev/v1alpha1", "kind": "Task", "metadata": {"name": name}, "spec": spec}


def test_a_task_says_that_its_worker_was_evicted_and_why_and_others_run_on(place: Place) -> None:
    place.apply(*a_queue(), a_task("big", TOO_MUCH))

    def ended() -> Object:
        condition: Object = place.status("big").get("conditions", [{}])[0]
        assert condition.get("status") in {"True", "False"}, condition
        return condition

    # Twice: once beside others, as far as its worker knows, and once alone.
    told = place.until("the end of big", ended, within=waits.EVICTED_TWICE)
    assert told["reason"] == "KillsItsWorker"
    assert "was evicted by its node: Usage of EmptyDir volume" in told["message"]
    assert "raise the sizeLimit of that volume, or write less to the pod's disk" in told["message"]
    letter = producer.run(place, "reader", "untidy", ["galley", "dead", "show", "untidy/big"], "manager")
    assert "Reason:     KillsItsWorker" in letter
    assert letter.count("was evicted by its node") >= 2
    place.apply(a_task("small", 1))

    def small_succeeded() -> bool:
        return bool(place.status("small").get("phase") == "Succeeded")

    place.until("the end of small", small_succeeded, within=waits.TASKS_ENDED)
