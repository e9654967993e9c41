"""Objects that are nearly right, on a real API server: the operator goes on, and other queues are served.

What the API server takes of them reaches the operator: TaskQueues, Tasks, Topics, Workflows, TaskSchedules,
and the Secrets that belong to queues. `GALLEY_HOSTILE_OBJECTS=3000` tries as many (`make hostile`).
"""

import base64
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from e2e.api.operator_process import OperatorProcess, operator
from e2e.api.queue_stage import Stage
from galley.broker.permissions import Role
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.cluster.errors import ApiRefused
from galley_operator.cluster.resource import (
    SECRETS,
    TASKQUEUES,
    TASKS,
    TASKSCHEDULES,
    TOPICS,
    WORKFLOWS,
    Resource,
)
from galley_operator.credentials.key_pair import KeyPair, Owner
from galley_operator.credentials.queue_secrets import FILE_KEY, secret_name
from galley_operator.credentials.trust import made_keys
from tests.support.api_server import ApiServer
from tests.support.eventually import eventually
from tests.support.guarded_nats import GuardedNats
from tests.support.mutation import mangled, mutated

MANY: Final = int(os.environ.get("GALLEY_HOSTILE_OBJECTS", "60"))
SEED: Final = int(os.environ.get("GALLEY_HOSTILE_SEED", "1"))
AT_ONCE: Final = 60
pytestmark = pytest.mark.timeout(1800)

QUEUE = {
    "lanes": ["high", "normal"], "worker": {"modules": ["drills"], "concurrency": 4},
    "scaling": {"minWorkers": 0, "maxWorkers": 3}, "retry": {"attempts": 3}, "timeoutSeconds": 60,
    "limits": {"backlog": 100, "backlogBytes": 2000000, "perKey": {"concurrency": 2}},
    "retention": {"resultsSeconds": 3600}, "lifeEvents": {"topic": "life"},
    "handlers": {"commands": [{"name": "ls", "command": ["ls"]}],
                 "http": [{"name": "h", "url": "https://a.b/c", "secretName": "s"}]},
}  # fmt: skip
SPECS: Final[dict[Resource, dict[str, Any]]] = {
    TASKQUEUES: QUEUE,
    TASKS: {
        "queueName": "drills", "handler": "echo", "input": {"value": 1, "sizes": [1, 2.5]},
        "priority": "high", "retry": {"attempts": 3, "backoffSeconds": 1}, "timeoutSeconds": 60,
        "notBefore": "2026-03-01T09:00:00Z", "deadline": "2098-03-02T09:00:00Z",
        "ttlSecondsAfterFinished": 60, "key": "k",
    },
    TOPICS: {
        "retention": {"seconds": 60, "size": "1Mi"},
        "subscriptions": [{
            "name": "all", "queueName": "drills", "handler": "echo", "filter": 'attributes.a == "b"',
            "input": {"value": "data"},
        }],
    },
    WORKFLOWS: {
        "steps": [
            {"name": "first", "queueName": "drills", "handler": "echo", "input": {"value": 1}},
            {"name": "last", "queueName": "drills", "handler": "echo", "dependsOn": ["first"],
             "input": {"value": "${steps.first.result}"}},
        ],
    },
    TASKSCHEDULES: {
        "queueName": "drills", "handler": "echo", "cron": "*/5 * * * *", "timeZone": "Europe/Berlin",
        "overlap": "skip", "input": {"value": 1},
    },
}  # fmt: skip
"""One good object of each kind."""


@pytest.fixture
async def guarded_stage(
    galley_api: ApiServer, api_namespace: str, tmp_path: Path
) -> AsyncIterator[tuple[Stage, OperatorProcess]]:
    """A namespace with an operator that has a NATS with credentials, and so Secrets of its queues."""
    folder = tmp_path / "guarded"
    folder.mkdir()
    keys = made_keys(time.time())
    data = {name: base64.b64encode(text.encode()).decode() for name, text in keys.items()}
    galley_api.kubectl.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "nats-auth"}, "data": data},
        namespace=api_namespace,
    )
    nats = GuardedNats(folder, keys)
    settings: dict[str, Any] = {
        "namespaces": api_namespace, "lease_namespace": api_namespace, "install": api_namespace,
        "sweep_seconds": 2, "auth_secret": "nats-auth",
    }  # fmt: skip
    try:
        async with nats.operator() as broker:
            with operator(galley_api.kubeconfig, nats.url, tmp_path, **settings) as running:
                yield Stage(galley_api, broker, api_namespace), running
    finally:
        nats.kill()


async def put(
    cluster: Cluster, kind: Resource, place: tuple[str, str], spec: Any, tried: Counter[str],
    *, kept: bool = False,
) -> None:  # fmt: skip
    """Create an object, if the API server takes it; or one that is deleted, and `kept` by a finalizer."""
    metadata: dict[str, Any] = {"namespace": place[0], "name": place[1], "labels": {"changed": "yes"}}
    if kept:
        metadata["finalizers"] = ["example.com/kept"]
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}
    try:
        await cluster.create(kind, body)
        if kept:
            await cluster.delete(kind, *place)
        tried[kind.kind] += 1
    except ApiRefused:
        tried["refused"] += 1


async def without_conditions(cluster: Cluster, namespace: str) -> list[str]:
    """Return the objects of which nothing is told."""
    return [
        f"{kind.kind} {body['metadata']['name']}"
        for kind in SPECS
        async for page in cluster.pages(kind, namespace)
        for body in page
        if not body.get("status", {}).get("conditions")
    ]


async def let_go(cluster: Cluster, namespace: str) -> None:
    """Take their finalizers away from all objects that have some."""
    for kind in SPECS:
        async for page in cluster.pages(kind, namespace):
            for body in page:
                if body["metadata"].get("finalizers"):
                    patch = {"metadata": {"finalizers": None}}
                    await cluster.merge_patch(kind, namespace, body["metadata"]["name"], patch)


async def spoil(cluster: Cluster, namespace: str, rng: random.Random, tried: Counter[str]) -> None:
    """Write bytes that are nearly credentials into a Secret of the good queue."""
    good = f"-----BEGIN NATS USER JWT-----\n{KeyPair.made(Owner.USER).public}\n".encode()
    data = {FILE_KEY: base64.b64encode(mangled(good, rng)).decode()}
    name = secret_name(rng.choice(list(Role)), "drills")
    try:
        await cluster.merge_patch(SECRETS, namespace, name, {"data": rng.choice((data, {FILE_KEY: None}))})
        tried["Secret"] += 1
    except ApiRefused:
        tried["refused"] += 1


async def serves(stage: Stage, running: OperatorProcess, number: int) -> None:
    """A queue that is made now is served, and a Task of the good one admitted."""
    assert running.process.poll() is None
    stage.apply(f"good{number}")
    await stage.condition("Ready", name=f"good{number}", status="True")
    task = {"apiVersion": "galley.dev/v1alpha1", "kind": "Task", "metadata": {"name": f"good{number}"},
            "spec": {"queueName": "drills", "handler": "echo"}}  # fmt: skip
    stage.api.kubectl.apply(task, namespace=stage.namespace)

    def queued() -> bool:
        return bool(stage.get("task", f"good{number}").get("status", {}).get("phase") == "Queued")

    await eventually(queued, within=60)
    stage.delete("taskqueue", f"good{number}")
    stage.delete("task", f"good{number}")


async def test_objects_that_are_nearly_right_stop_no_operator_and_no_other_queue(
    galley_api: ApiServer, guarded_stage: tuple[Stage, OperatorProcess]
) -> None:
    stage, running = guarded_stage
    rng, tried = random.Random(SEED), Counter[str]()
    stage.apply()
    await stage.condition("Ready", status="True")
    async with Cluster(load_config(galley_api.kubeconfig)) as cluster:
        for kind, spec in SPECS.items():
            # Each is right before it is changed: else nothing would reach the operator.
            await put(cluster, kind, (stage.namespace, f"right-{kind.plural}"), spec, tried)
        assert tried["refused"] == 0, tried
        for first in range(0, MANY, AT_ONCE):
            for number in range(first, min(first + AT_ONCE, MANY)):
                kind = rng.choice(list(SPECS))
                place = (stage.namespace, f"m{number}")
                spec = SPECS[kind] if number % 5 == 0 else mutated(SPECS[kind], rng)
                await put(cluster, kind, place, spec, tried, kept=number % 5 == 0)
                if number % 10 == 9:
                    await spoil(cluster, stage.namespace, rng, tried)
            await serves(stage, running, first)

            async def told() -> bool:
                left = await without_conditions(cluster, stage.namespace)
                assert left == []
                return True

            await eventually(told, within=120, why="a condition of each object")
            await let_go(cluster, stage.namespace)
            for kind in SPECS:
                stage.api.kubectl("delete", kind.plural, "-l=changed", "-n", stage.namespace, "--wait=false")
        await serves(stage, running, MANY)
    sys.stdout.write(f"\n{MANY} changed objects: {dict(tried)}\n")
    assert running.logged("unexpected error") == []
    assert running.process.poll() is None
    assert tried["Secret"]
    assert all(tried[kind.kind] > 1 for kind in SPECS), "more than the one that is right"
