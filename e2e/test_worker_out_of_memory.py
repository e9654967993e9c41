"""The kernel kills for want of memory: the Task says so and what to do, whichever process it hit."""

from typing import Any

import pytest

from e2e import producer, waits
from e2e.place import Object, Place

pytestmark = pytest.mark.timeout(600)

HANDLERS = '''
import pathlib

from galley import task


@task(queue="hungry")
def eat(mebibytes: int, whole_worker: bool = False) -> int:
    """Take memory; with `whole_worker` the kernel takes process 1, and all others go with it."""
    if whole_worker:
        pathlib.Path("/proc/1/oom_score_adj").write_text("1000")
    return sum(len(block) for block in [bytes(range(256)) * 4096 for _ in range(mebibytes)])
'''

TOO_MUCH = 1000


def a_queue() -> tuple[Object, Object]:
    worker = {
        "modules": ["hungry"],
        "code": {"configMapName": "hungry"},
        "concurrency": 1,
        # Limits of both kinds, or the kernel is told to prefer this container's processes alike.
        "template": {"resources": {"limits": {"memory": "192Mi", "cpu": "500m"}}},
    }
    spec = {"worker": worker, "scaling": {"maxWorkers": 1}, "retry": {"crashes": 1}}
    data = {"hungry.py": HANDLERS}
    return (
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hungry"}, "data": data},
        {
            "apiVersion": "galley.dev/v1alpha1",
            "kind": "TaskQueue",
            "metadata": {"name": "hungry"},
            "spec": spec,
        },
    )


def a_task(name: str, mebibytes: int, **arguments: Any) -> Object:
    spec = {"queueName": "hungry", "handler": "eat", "input": {"mebibytes": mebibytes, **arguments}}
    return {"apiVersion": "galley.dev/v1alpha1", "kind": "Task", "metadata": {"name": name}, "spec": spec}


def ended(place: Place, *names: str) -> dict[str, Object]:
    """Return the condition of each of these tasks once all of them have ended."""

    def look() -> dict[str, Object]:
        conditions = {name: place.status(name).get("conditions", [{}])[0] for name in names}
        assert {each.get("status") for each in conditions.values()} <= {"True", "False"}, conditions
        return conditions

    return place.until(f"the end of {', '.join(names)}", look, within=waits.TASKS_ENDED)


def test_a_task_says_that_its_handler_had_no_memory_left_and_the_worker_goes_on(place: Place) -> None:
    place.apply(*a_queue(), a_task("greedy", TOO_MUCH), a_task("modest", 1))
    told = ended(place, "greedy", "modest")
    assert told["modest"]["status"] == "True"
    assert told["greedy"]["reason"] == "KillsItsWorker"
    assert "signal 9 (SIGKILL), for want of memory (OOMKilled)" in told["greedy"]["message"]
    assert "raise spec.worker.template.resources.limits.memory" in told["greedy"]["message"]
    [pod] = place.workers()
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_task_says_that_its_worker_was_killed_for_want_of_memory(place: Place) -> None:
    place.apply(*a_queue(), a_task("greedy", TOO_MUCH, whole_worker=True))
    told = ended(place, "greedy")["greedy"]
    assert told["reason"] == "KillsItsWorker"
    assert "is gone, and did not end the attempt" in told["message"]
    assert "was killed for want of memory (OOMKilled); raise spec.worker.template" in told["message"]
    letter = producer.run(place, "reader", "hungry", ["galley", "dead", "show", "hungry/greedy"], "manager")
    assert "Reason:     KillsItsWorker" in letter
    assert "OOMKilled" in letter
    place.apply(a_task("modest", 1))
    assert ended(place, "modest")["modest"]["status"] == "True"
