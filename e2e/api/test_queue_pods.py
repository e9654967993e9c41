"""Pods of workers: what they may use, and who has to allow it."""

import json
import re
import shlex
from pathlib import Path

from e2e.api.operator_process import OperatorProcess, operator
from e2e.api.queue_stage import CHILD, Stage, condition_of, settings_for
from galley_local.nats_server import NatsServer
from tests.support.eventually import eventually
from tests.unit.galley.resources.test_task_queue import FULL


async def test_workers_run_as_an_account_only_if_it_was_set_free(
    stage: Stage, running: OperatorProcess
) -> None:
    stage.api.kubectl("create", "serviceaccount", "admin", "-n", stage.namespace)
    stage.apply(worker={"template": {"serviceAccountName": "admin"}})
    found = await stage.condition("Ready", status="False", reason="AccountNotAllowed")
    assert not stage.there("deployment")
    [command] = re.findall(r"runs (kubectl label .*);", found["message"])
    stage.api.kubectl(*shlex.split(command)[1:])
    await stage.condition("Ready", status="True")
    pod = stage.get("deployment", CHILD)["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("admin", True)


async def test_secrets_and_claims_are_used_only_if_their_owner_labelled_them(
    stage: Stage, running: OperatorProcess
) -> None:
    volumes = [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}]
    template = {"envFrom": [{"secretRef": {"name": "keys"}}], "volumes": volumes}
    stage.apply(worker={"template": template})
    found = await stage.condition("Ready", status="False", reason="ReferenceNotAllowed")
    assert "Secret 'keys': it does not exist" in found["message"]
    stage.api.kubectl("create", "secret", "generic", "keys", "-n", stage.namespace, "--from-literal=a=b")
    await eventually(lambda: "has no label" in condition_of(stage, "Ready")["message"], within=20)
    command = shlex.split(re.findall(r"runs (kubectl label .*);", condition_of(stage, "Ready")["message"])[0])
    stage.api.kubectl(*command[1:])
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models", "labels": {"galley.dev/workers": "allowed"}},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    await eventually(lambda: "'models'" in condition_of(stage, "Ready")["message"], within=20)
    assert not stage.there("deployment")
    stage.api.kubectl.apply(claim, namespace=stage.namespace)
    await stage.condition("Ready", status="True")


async def test_init_containers_need_the_consent_of_the_installation(
    stage: Stage, nats_server: NatsServer, tmp_path: Path
) -> None:
    fetch = {"name": "fetch", "command": ["true"]}
    with operator(stage.api.kubeconfig, nats_server.url, tmp_path, **settings_for(stage.namespace)):
        stage.apply(worker={"template": {"initContainers": [fetch]}})
        found = await stage.condition("Ready", status="False", reason="InitContainersNotAllowed")
        assert "operator.allowInitContainers" in found["message"]
        assert not stage.there("deployment")
    allowing = settings_for(stage.namespace, allow_init_containers=True)
    with operator(stage.api.kubeconfig, nats_server.url, tmp_path, "operator-2", **allowing):
        await stage.condition("Ready", status="True")
    [container] = stage.get("deployment", CHILD)["spec"]["template"]["spec"]["initContainers"]
    assert container["name"] == "fetch"


async def test_an_api_server_takes_a_pod_with_every_part_a_queue_may_name(
    stage: Stage, running: OperatorProcess
) -> None:
    template = FULL["spec"]["worker"]["template"] | {"serviceAccountName": None, "initContainers": []}
    given = {key: value for key, value in template.items() if value}
    for name in ("api", "shop-keys", "registry.example.com"):
        stage.api.kubectl("create", "secret", "generic", name, "-n", stage.namespace)
        stage.api.kubectl("label", "secret", name, "-n", stage.namespace, "galley.dev/workers=allowed")
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models", "labels": {"galley.dev/workers": "allowed"}},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    stage.api.kubectl.apply(claim, namespace=stage.namespace)
    stage.apply(worker={"template": given})
    await stage.condition("StreamsReady", status="True")
    await eventually(lambda: stage.there("deployment"), within=20)
    pod = stage.get("deployment", CHILD)["spec"]["template"]["spec"]
    stage.api.kubectl(
        "label", "namespace", stage.namespace, "pod-security.kubernetes.io/enforce=restricted", "--overwrite"
    )
    thing = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, "spec": pod}
    stage.api.kubectl(
        "create", "--dry-run=server", "-n", stage.namespace, "-f", "-",
        given=json.dumps(thing | {"spec": {**pod, "priorityClassName": None}}),
    )  # fmt: skip
