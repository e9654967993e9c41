"""What people and other programs do wrong with scaling: it is said, the number holds, all else goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.api.operator_process import OperatorProcess, operator
from e2e.api.queue_stage import CHILD, Stage, settings_for
from galley_local.nats_server import NatsServer
from tests.support.eventually import eventually
from tests.support.kubectl import KubectlFailed


async def until_replicas(stage: Stage, number: int, name: str = CHILD) -> None:
    def so() -> bool:
        assert stage.there("deployment", name)
        seen = stage.get("deployment", name)["spec"]["replicas"]
        assert seen == number
        return True

    await eventually(so, within=60, why=f"{number} replicas of {name}")


def edited(stage: Stage) -> None:
    container = {"name": "worker", "image": "localhost/stranger:1"}
    stage.change("deployment", CHILD, {"spec": {"template": {"spec": {"containers": [container]}}}})


def deleted(stage: Stage) -> None:
    stage.delete("deployment", CHILD)


def scaled(stage: Stage) -> None:
    stage.api.kubectl("scale", "deployment", CHILD, "-n", stage.namespace, "--replicas=7")


@pytest.mark.parametrize(
    ("happen", "reason"),
    [(edited, "DeploymentChanged"), (deleted, "DeploymentDeleted"), (scaled, "ReplicasChanged")],
)
async def test_a_deployment_that_others_change_is_told_and_other_queues_go_on(
    stage: Stage, running: OperatorProcess, happen: Callable[[Stage], None], reason: str
) -> None:
    stage.apply(scaling={"minWorkers": 2})
    stage.apply("other")
    await stage.condition("ScalingActive", status="True", reason="Scaling")
    await until_replicas(stage, 2)
    happen(stage)
    told = await stage.condition("ScalingActive", status="True", reason=reason)
    assert CHILD in told["message"]
    if happen is not scaled:  # workers that are too many are drained first
        await until_replicas(stage, 2)
        [container] = stage.get("deployment", CHILD)["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "localhost/worker:1"
    stage.apply("other", scaling={"minWorkers": 1})
    await until_replicas(stage, 1, "galley-other")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"scaling": {"minWorkers": 3, "maxWorkers": 2}}, "minWorkers is 3, above maxWorkers, which is 2"),
        ({"worker": {"concurrency": 0}}, "spec.worker.concurrency"),
    ],
)
async def test_bounds_that_cannot_be_are_refused_and_the_number_holds(
    stage: Stage, running: OperatorProcess, spec: dict[str, Any], says: str
) -> None:
    stage.apply(scaling={"minWorkers": 2})
    await until_replicas(stage, 2)
    with pytest.raises(KubectlFailed, match=says):
        stage.apply(**spec)
    stage.apply(scaling={"minWorkers": 3})
    await until_replicas(stage, 3)


async def test_minima_above_the_budget_are_told_and_the_budget_holds(
    stage: Stage, nats_server: NatsServer, tmp_path: Path
) -> None:
    settings = settings_for(stage.namespace, budget=json.dumps({"workers": 3}))
    with operator(stage.api.kubeconfig, nats_server.url, tmp_path, **settings):
        stage.apply("first", scaling={"minWorkers": 2, "priority": 5})
        await until_replicas(stage, 2, "galley-first")
        stage.apply("second", scaling={"minWorkers": 2})
        told = await stage.condition("ScalingActive", name="second", status="False", reason="BudgetTooSmall")
        assert "4 workers, are more than the budget, which leaves this queue 1 of 2" in told["message"]
        await until_replicas(stage, 1, "galley-second")
        await stage.condition("ScalingActive", name="first", status="True", reason="Scaling")
        await until_replicas(stage, 2, "galley-first")
