"""An encrypted queue on a cluster: its keys in pods, an operator that encrypts, and a key that changes."""

import base64
import os
from typing import Any

import pytest

from e2e.test_first_task import a_queue, a_task, status, wait_for
from tests.support.eventually import eventually
from tests.support.kubectl import Kubectl

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("galley")]

_UPDATE_SECONDS = 180
"""A kubelet updates a mounted Secret within about a minute and a half."""


def keys(primary: str, **entries: str) -> dict[str, Any]:
    metadata = {"name": "echo-keys", "labels": {"galley.dev/workers": "allowed"}}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "stringData": {"primary": primary, **entries},
    }


def a_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


async def test_a_task_runs_encrypted_and_its_workers_take_a_new_key(
    kubectl: Kubectl, namespace_of_pods: str
) -> None:
    place, one = namespace_of_pods, {"k1": a_key()}
    queue = a_queue(encryption={"secretName": "echo-keys"}, scaling={"minWorkers": 1, "maxWorkers": 1})
    kubectl.apply(keys("k1", **one), queue, a_task("first"), namespace=place)
    wait_for(kubectl, place, "first")
    found = status(kubectl, place, "first")
    assert "result" not in found
    [message] = [each["message"] for each in found["conditions"] if each["type"] == "Succeeded"]
    assert message.startswith("its result is encrypted with key 'k1'; galley show echo/first")

    pods = kubectl.get("pods", "-n", place, "-l", "app.kubernetes.io/name=galley-worker")["items"]
    kubectl.apply(keys("k2", k2=a_key(), **one), namespace=place)
    numbers = iter(range(1000))

    def with_the_new_key() -> bool:
        name = f"later-{next(numbers)}"
        kubectl.apply(a_task(name), namespace=place)
        wait_for(kubectl, place, name)
        return "with key 'k2'" in str(status(kubectl, place, name)["conditions"])

    await eventually(with_the_new_key, within=_UPDATE_SECONDS)
    after = kubectl.get("pods", "-n", place, "-l", "app.kubernetes.io/name=galley-worker")["items"]
    assert [each["metadata"]["uid"] for each in after] == [each["metadata"]["uid"] for each in pods]
    kubectl("delete", "taskqueues,tasks", "--all", "-n", place)
