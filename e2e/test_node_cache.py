"""Workers of one node that share a folder fetch an object once for all of them."""

import json

import pytest

from e2e import producer, volume
from e2e.place import Object, Place
from e2e.release import NAMESPACE

pytestmark = pytest.mark.timeout(600)

HANDLERS = """
import hashlib

from galley import File, task


@task(queue="models")
def digest(model: File, number: int) -> str:
    return hashlib.sha256(model.path().read_bytes()).hexdigest()
"""

SUBMITS = """
import json, pathlib, galley
model = pathlib.Path("/dev/shm/model")
model.write_bytes(bytes(range(256)) * 4096 * 40)
with galley.Client() as client:
    calls = [galley.call("models", "digest", model=galley.File(model), number=n) for n in range(50)]
    digests = {handle.result(within=300) for handle in client.submit_many(calls)}
print(json.dumps(len(digests)))
"""


def a_queue() -> tuple[Object, Object]:
    template = {
        "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
        "volumeMounts": [{"name": "models", "mountPath": "/cache"}],
        "env": [{"name": "GALLEY_CACHE", "value": "/cache/objects"}],
    }
    code, data = {"configMapName": "models"}, {"models.py": HANDLERS}
    worker = {"modules": ["models"], "code": code, "concurrency": 4, "template": template}
    return (
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "models"}, "data": data},
        {
            "apiVersion": "galley.dev/v1alpha1",
            "kind": "TaskQueue",
            "metadata": {"name": "models"},
            "spec": {"worker": worker, "scaling": {"minWorkers": 2, "maxWorkers": 2}},
        },
    )


def test_fifty_tasks_in_two_pods_of_a_node_fetch_their_model_once(place: Place) -> None:
    volume.add(place.kubectl, place.namespace, "models", by=NAMESPACE)
    place.kubectl("label", "pvc", "models", "-n", place.namespace, "galley.dev/workers=allowed")
    place.apply(*a_queue())
    pods = place.ready_workers(2)
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 1
    said = producer.run(place, "producer", "models", ["python", "-c", SUBMITS])
    assert json.loads(said.splitlines()[-1]) == 1
    logs = [place.kubectl("logs", "-n", place.namespace, pod["metadata"]["name"]) for pod in pods]
    assert [log.count("object fetched") for log in logs].count(1) == 1, logs
    assert sum(log.count("object fetched") for log in logs) == 1
    assert all("attempt settled" in log for log in logs), "both ran some"
