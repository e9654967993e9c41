"""An operator that lacks a right, or the CRDs, says so and goes on once it has them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.api.operator_process import operator
from e2e.api.queue_stage import Stage, settings_for
from galley.broker.connection import Broker
from galley_local.nats_server import NatsServer
from tests.support.api_server import ApiServer
from tests.support.eventually import eventually

ALL = ["get", "list", "watch", "create", "patch"]
RULES = [
    {
        "apiGroups": ["galley.dev"], "resources": ["taskqueues", "taskschedules", "topics"],
        "verbs": ["get", "list", "watch"],
    },
    {
        "apiGroups": ["galley.dev"], "resources": ["tasks", "workflows"],
        "verbs": ["get", "list", "watch", "delete"],
    },
    {
        "apiGroups": ["galley.dev"],
        "resources": [
            "taskqueues/status", "tasks/status", "taskschedules/status", "topics/status", "workflows/status",
        ],
        "verbs": ["patch"],
    },
    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ALL},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "patch"]},
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ALL},
    {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get", "create", "patch"]},
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "patch"]},
]  # fmt: skip
"""All an operator needs, but for PodDisruptionBudgets."""

BUDGETS = {
    "apiGroups": ["policy"],
    "resources": ["poddisruptionbudgets"],
    "verbs": ["get", "create", "patch"],
}


@pytest.fixture
async def stage(galley_api: ApiServer, nats_server: NatsServer, api_namespace: str) -> AsyncIterator[Stage]:
    async with Broker(nats_server.url, name="test") as broker:
        yield Stage(galley_api, broker, api_namespace)


def give(stage: Stage, rules: list[dict[str, Any]]) -> None:
    """Have the ServiceAccount `operator` these rights in the namespace, and no others."""
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": stage.namespace}
    role_ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"}
    version = "rbac.authorization.k8s.io/v1"
    metadata = {"name": "operator"}
    stage.api.kubectl.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": version, "kind": "Role", "metadata": metadata, "rules": rules},
        {"apiVersion": version, "kind": "RoleBinding", "metadata": metadata}
        | {"subjects": [subject], "roleRef": role_ref},
        namespace=stage.namespace,
    )  # fmt: skip


def kubeconfig_of(stage: Stage, folder: Path) -> Path:
    """Return access as that ServiceAccount."""
    token = stage.api.kubectl("create", "token", "operator", "-n", stage.namespace).strip()
    document = yaml.safe_load(stage.api.kubeconfig.read_text())
    document["users"] = [{"name": document["contexts"][0]["context"]["user"], "user": {"token": token}}]
    file = folder / "operator.kubeconfig"
    file.write_text(yaml.safe_dump(document))
    return file


async def test_a_missing_right_is_said_and_everything_else_goes_on(
    stage: Stage, nats_server: NatsServer, tmp_path: Path
) -> None:
    give(stage, RULES)
    with operator(
        kubeconfig_of(stage, tmp_path), nats_server.url, tmp_path, **settings_for(stage.namespace)
    ) as running:
        stage.apply()
        found = await stage.condition("Ready", status="False", reason="RightsMissing")
        assert f"cannot get poddisruptionbudgets {stage.namespace}/galley-drills" in found["message"]
        assert f"{stage.namespace}/operator the right to 'get' on" in found["message"]
        await eventually(lambda: running.page("readyz")[0] == 200, within=20)
        give(stage, [*RULES, BUDGETS])
        await stage.condition("Ready", status="True")


async def test_no_more_rights_are_needed_than_the_chart_gives(
    stage: Stage, nats_server: NatsServer, tmp_path: Path
) -> None:
    give(stage, [*RULES, BUDGETS])
    with operator(
        kubeconfig_of(stage, tmp_path), nats_server.url, tmp_path, **settings_for(stage.namespace)
    ) as running:
        stage.apply(scaling={"minWorkers": 1})
        await stage.condition("Ready", status="True")
        stage.apply(scaling={"minWorkers": 2})
        await eventually(lambda: stage.get("deployment", "galley-drills")["spec"]["replicas"] == 2, within=30)
        assert running.stop() == 0
        assert [line for line in running.log() if "forbidden" in json.dumps(line)] == []
