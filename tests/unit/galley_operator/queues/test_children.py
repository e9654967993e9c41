"""What matters of the objects of a queue, one claim at a time."""

import json
from pathlib import Path
from typing import Any

import pytest

from galley.resources import TaskQueue, parse_manifests
from galley.resources.pod_resources import PodResources
from galley_operator.cluster.resource import CONFIGMAPS, DEPLOYMENTS, PDBS, SERVICEACCOUNTS, Resource
from galley_operator.credentials.client_tls import ClientTls
from galley_operator.queues.children import Making, children_of, manifest_for_workers
from galley_operator.queues.pod import with_resources
from tests.unit.galley.resources.test_task_queue import AFFINITY, VOLUMES


def a_queue(**spec: Any) -> TaskQueue:
    return TaskQueue.model_validate(
        {"metadata": {"name": "images", "namespace": "shop"}, "spec": spec}, by_alias=True
    )


def made(queue: TaskQueue, resource: Resource = DEPLOYMENTS, **more: Any) -> dict[str, Any]:
    making = Making(queue, "uid-1", "nats://nats:4222", "worker:1", **more)
    return dict(children_of(making))[resource]


def pod(queue: TaskQueue, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = made(queue, **more)["spec"]["template"]
    return found


def container(queue: TaskQueue) -> dict[str, Any]:
    [found] = pod(queue)["spec"]["containers"]
    return dict(found)


def environment(queue: TaskQueue) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(queue)["env"]}


def test_what_a_pod_needs_is_made_before_it() -> None:
    kinds = [resource for resource, _ in children_of(Making(a_queue(), "uid-1", "nats://x", "worker:1"))]
    assert kinds == [CONFIGMAPS, SERVICEACCOUNTS, PDBS, DEPLOYMENTS]


@pytest.mark.parametrize("resource", [CONFIGMAPS, SERVICEACCOUNTS, PDBS, DEPLOYMENTS])
def test_each_object_is_named_labelled_and_owned(resource: Resource) -> None:
    metadata = made(a_queue(), resource)["metadata"]
    assert (metadata["namespace"], metadata["name"]) == ("shop", "galley-images")
    assert metadata["labels"] == {
        "app.kubernetes.io/name": "galley-worker",
        "app.kubernetes.io/managed-by": "galley",
        "galley.dev/queue": "images",
    }
    [owner] = metadata["ownerReferences"]
    assert owner == {
        "apiVersion": "galley.dev/v1alpha1",
        "kind": "TaskQueue",
        "name": "images",
        "uid": "uid-1",
        "controller": True,
    }


def test_the_number_of_replicas_is_left_to_the_autoscaler() -> None:
    assert "replicas" not in made(a_queue(scaling={"minWorkers": 3}))["spec"]


def test_a_rollout_takes_no_worker_before_another_is_ready() -> None:
    assert made(a_queue())["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": 0}


def test_pods_are_selected_by_labels_that_cannot_be_taken_away() -> None:
    queue = a_queue(worker={"template": {"labels": {"team": "data"}}})
    selector = made(queue)["spec"]["selector"]["matchLabels"]
    assert selector == {"app.kubernetes.io/name": "galley-worker", "galley.dev/queue": "images"}
    assert pod(queue)["metadata"]["labels"] == {"team": "data", **selector}
    assert made(queue, PDBS)["spec"]["selector"]["matchLabels"] == selector


def test_a_pod_gets_longer_to_end_than_its_worker_needs() -> None:
    assert pod(a_queue(worker={"gracePeriodSeconds": 600}))["spec"]["terminationGracePeriodSeconds"] == 631


def test_pods_are_restricted_whatever_the_queue_says() -> None:
    spec = pod(a_queue())["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(a_queue())["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert all("hostPath" not in volume for volume in spec["volumes"])


def test_workers_have_an_account_without_rights_and_without_a_token() -> None:
    assert made(a_queue(), SERVICEACCOUNTS)["automountServiceAccountToken"] is False
    spec = pod(a_queue())["spec"]
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("galley-images", False)


def test_an_account_the_queue_names_is_not_made_and_has_its_token() -> None:
    queue = a_queue(worker={"template": {"serviceAccountName": "reader"}})
    kinds = [resource for resource, _ in children_of(Making(queue, "uid-1", "nats://x", "worker:1"))]
    assert SERVICEACCOUNTS not in kinds
    spec = pod(queue)["spec"]
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("reader", True)


def test_the_queues_image_comes_before_the_default() -> None:
    assert container(a_queue())["image"] == "worker:1"
    assert container(a_queue(worker={"image": "shop/images:7"}))["image"] == "shop/images:7"


def test_a_worker_is_told_where_it_is_and_for_whom() -> None:
    told = environment(a_queue())
    assert told["GALLEY_SERVER"] == "nats://nats:4222"
    assert told["GALLEY_QUEUE_MANIFEST"] == "/etc/galley/queue/queue.json"
    assert told["GALLEY_TERMINATION_LOG"] == "/dev/termination-log"
    assert told["GALLEY_WORKER"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert "GALLEY_IMPORT_PATHS" not in told
    mounts = {each["mountPath"]: each["name"] for each in container(a_queue())["volumeMounts"]}
    assert mounts["/etc/galley/queue"] == "queue"


def test_keys_that_sign_requests_are_mounted_once_for_each_secret() -> None:
    at = {"url": "https://x.example/", "secretName": "hooks.v1"}
    queue = a_queue(handlers={"http": [{"name": "a", **at}, {"name": "b", **at}]})
    assert environment(queue)["GALLEY_SIGNING_KEYS"] == "hooks.v1=/etc/galley/signing/hooks.v1"
    [volume] = [each for each in pod(queue)["spec"]["volumes"] if each["name"].startswith("signing-")]
    assert volume["secret"] == {"secretName": "hooks.v1", "defaultMode": 0o440}
    [mount] = [each for each in container(queue)["volumeMounts"] if each["name"] == volume["name"]]
    assert mount["mountPath"] == "/etc/galley/signing/hooks.v1"


def test_keys_of_an_encrypted_queue_are_mounted_as_a_folder_that_changes() -> None:
    queue = a_queue(encryption={"secretName": "image-keys"})
    assert environment(queue)["GALLEY_KEYS"] == f"{queue.metadata.name}=/etc/galley/keys"
    secret = {"secretName": "image-keys", "defaultMode": 0o440}
    assert {"name": "encryption-keys", "secret": secret} in pod(queue)["spec"]["volumes"]
    [mount] = [each for each in container(queue)["volumeMounts"] if each["name"] == "encryption-keys"]
    assert mount == {"name": "encryption-keys", "mountPath": "/etc/galley/keys", "readOnly": True}
    assert "GALLEY_KEYS" not in environment(a_queue())


def test_code_from_a_config_map_is_mounted_and_imported() -> None:
    queue = a_queue(worker={"code": {"configMapName": "thumbs"}, "modules": ["thumbs"]})
    assert environment(queue)["GALLEY_IMPORT_PATHS"] == "/etc/galley/code"
    assert {"name": "code", "configMap": {"name": "thumbs"}} in pod(queue)["spec"]["volumes"]
    assert pod(queue, code_digest="abc")["metadata"]["annotations"]["galley.dev/code"] == "abc"


def test_what_the_allow_list_holds_gets_into_the_pod() -> None:
    queue = a_queue(
        worker={
            "template": {
                "annotations": {"note": "x"},
                "imagePullSecrets": [{"name": "registry"}],
                "env": [
                    {"name": "REGION", "value": "eu"},
                    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                ],
                "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}},
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "priorityClassName": "batch",
            }
        }
    )
    spec = pod(queue)["spec"]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["nodeSelector"] == {"disk": "ssd"}
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert spec["priorityClassName"] == "batch"
    assert container(queue)["resources"] == {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}}
    assert environment(queue)["REGION"] == "eu"
    assert environment(queue)["KEY"] == {"secretKeyRef": {"name": "s", "key": "k"}}
    assert pod(queue)["metadata"]["annotations"]["note"] == "x"


def of_template(**template: Any) -> TaskQueue:
    return a_queue(worker={"template": template})


def mounts(queue: TaskQueue) -> dict[str, Any]:
    return {each["mountPath"]: each for each in container(queue)["volumeMounts"]}


def test_volumes_of_a_queue_are_mounted_beside_galleys_own() -> None:
    queue = of_template(
        volumes=VOLUMES,
        volumeMounts=[
            {"name": "models", "mountPath": "/data/models", "subPath": "v1", "readOnly": True},
            {"name": "memory", "mountPath": "/dev/shm"},
        ],
    )
    volumes = {each["name"]: each for each in pod(queue)["spec"]["volumes"]}
    assert set(volumes) == {"queue", "tmp", *(each["name"] for each in VOLUMES)}
    assert [volumes[each["name"]] for each in VOLUMES] == VOLUMES
    assert mounts(queue)["/data/models"] == {
        "name": "models", "mountPath": "/data/models", "subPath": "v1", "readOnly": True,
    }  # fmt: skip
    assert {"/etc/galley/queue", "/tmp", "/dev/shm"} < set(mounts(queue))


def test_a_volume_of_its_own_can_be_written_by_one_node_if_nothing_else_is_said() -> None:
    claim = {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}}
    [volume] = pod(of_template(volumes=[{"name": "scratch", "ephemeral": claim}]))["spec"]["volumes"][2:]
    assert volume["ephemeral"]["volumeClaimTemplate"]["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_a_volume_at_the_temporary_folder_takes_its_place() -> None:
    queue = of_template(
        volumes=[{"name": "large", "emptyDir": {"sizeLimit": "5Gi"}}],
        volumeMounts=[{"name": "large", "mountPath": "/tmp"}],
    )
    assert mounts(queue)["/tmp"]["name"] == "large"
    assert len(container(queue)["volumeMounts"]) == 2


def test_variables_come_from_whole_objects_and_from_entries() -> None:
    queue = of_template(
        env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "a"}}}],
        envFrom=[{"prefix": "S_", "secretRef": {"name": "s"}}, {"configMapRef": {"name": "m"}}],
    )
    assert environment(queue)["A"] == {"configMapKeyRef": {"name": "m", "key": "a"}}
    assert container(queue)["envFrom"] == [
        {"prefix": "S_", "secretRef": {"name": "s"}}, {"configMapRef": {"name": "m"}},
    ]  # fmt: skip
    # Kubernetes lets `env` win, so no entry can stand for one of Galley's own.
    assert environment(queue)["GALLEY_SERVER"] == "nats://nats:4222"


def test_placement_reaches_the_pod_and_workers_spread_among_themselves() -> None:
    queue = of_template(
        affinity=AFFINITY,
        topologySpreadConstraints=[{"topologyKey": "kubernetes.io/hostname"}],
        imagePullPolicy="Always",
    )
    spec = pod(queue)["spec"]
    without_empty = json.loads(json.dumps(AFFINITY).replace(', "values": []', ""))
    assert spec["affinity"] == without_empty
    assert spec["topologySpreadConstraints"] == [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": made(queue)["spec"]["selector"]["matchLabels"]},
        }
    ]
    assert container(queue)["imagePullPolicy"] == "Always"
    assert "imagePullPolicy" not in container(a_queue())


def test_users_and_groups_can_be_chosen_and_nothing_that_weakens_the_profile() -> None:
    queue = of_template(
        securityContext={"runAsUser": 1000, "fsGroup": 2000, "readOnlyRootFilesystem": False},
        initContainers=[{"name": "fetch"}],
    )
    spec = pod(queue)["spec"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 65532, "fsGroup": 2000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    for each in (*spec["containers"], *spec["initContainers"]):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": False,
            "capabilities": {"drop": ["ALL"]},
        }


def test_an_init_container_has_the_workers_image_and_none_of_its_credentials() -> None:
    queue = a_queue(
        worker={
            "image": "shop/images:7",
            "template": {
                "initContainers": [
                    {"name": "fetch", "command": ["fetch"], "env": [{"name": "A", "value": "b"}]},
                    {"name": "other", "image": "other:1"},
                ]
            },
        }
    )
    fetch, other = pod(queue, credentials=True)["spec"]["initContainers"]
    assert (fetch["image"], fetch["command"], other["image"]) == ("shop/images:7", ["fetch"], "other:1")
    assert fetch["env"] == [{"name": "A", "value": "b"}]
    assert "volumeMounts" not in fetch


def test_what_needs_consent_is_found_wherever_it_is_named() -> None:
    key = {"secretKeyRef": {"name": "a", "key": "k"}}
    template = of_template(
        env=[{"name": "A", "valueFrom": key}],
        envFrom=[{"secretRef": {"name": "b", "optional": True}}],
        volumes=VOLUMES,
        initContainers=[{"name": "c", "env": [{"name": "A", "valueFrom": key | {}}]}],
    ).spec.worker.template
    assert template.secrets() == {("a", False), ("b", True), ("shop-keys", True)}
    assert template.claims() == {("models", False)}


@pytest.mark.parametrize(
    ("spec", "replaces"),
    [
        ({"scaling": {"maxWorkers": 9}}, False),
        ({"limits": {"backlog": 5}}, False),
        ({"limits": {"perKey": {"concurrency": 1}}}, True),
        ({"limits": {"concurrency": 1}}, True),
        ({"limits": {"rate": {"tasks": 1}}}, True),
        ({"lanes": ["normal", "low"]}, True),
        ({"timeoutSeconds": 7}, True),
        ({"retry": {"attempts": 9}}, True),
        ({"worker": {"concurrency": 9}}, True),
        ({"handlers": {"commands": [{"name": "date", "command": ["date"]}]}}, True),
    ],
)
def test_only_what_concerns_workers_replaces_them(spec: dict[str, Any], replaces: bool) -> None:
    assert (pod(a_queue(**spec)) != pod(a_queue())) is replaces


def test_labels_and_annotations_of_a_queue_replace_no_worker() -> None:
    noted = TaskQueue.model_validate(
        {"metadata": {"name": "images", "namespace": "shop", "annotations": {"a": "b"}, "labels": {"c": "d"}}}
    )
    assert pod(noted) == pod(a_queue())


def test_workers_read_the_queue_they_were_given(tmp_path: Path) -> None:
    queue = a_queue(
        lanes=["high", "normal"],
        worker={"modules": ["thumbs"], "image": "x:1", "template": {"nodeSelector": {"a": "b"}}},
        retry={"attempts": 7},
        scaling={"maxWorkers": 9},
        timeoutSeconds=5,
    )
    text = manifest_for_workers(queue)
    [read] = parse_manifests(text, "queue.json")
    assert isinstance(read, TaskQueue)
    assert read.metadata.name == "images"
    assert read.spec.retry == queue.spec.retry
    assert read.spec.lanes == queue.spec.lanes
    assert read.spec.worker.modules == ("thumbs",)
    assert json.loads(text)["spec"].keys() == {"lanes", "worker", "retry", "timeoutSeconds"}


def test_workers_are_told_the_limits_that_they_keep() -> None:
    queue = a_queue(limits={"backlog": 5, "perKey": {"ordered": True}})
    [read] = parse_manifests(manifest_for_workers(queue), "queue.json")
    assert isinstance(read, TaskQueue)
    assert read.spec.limits.per_key == queue.spec.limits.per_key
    assert read.spec.limits.backlog != 5, "the broker keeps it"


def test_an_older_worker_is_not_told_what_has_its_default() -> None:
    assert json.loads(manifest_for_workers(a_queue()))["spec"] == {}


def test_a_worker_that_has_to_say_who_it_is_reads_it_from_the_secret_of_its_role() -> None:
    found = pod(a_queue(), credentials=True)["spec"]
    assert {
        "name": "credentials",
        "secret": {"secretName": "galley-images-worker", "defaultMode": 0o440},
    } in found["volumes"]
    [worker] = found["containers"]
    assert {"name": "credentials", "mountPath": "/etc/galley/credentials", "readOnly": True} in worker[
        "volumeMounts"
    ]
    assert {"name": "GALLEY_CREDENTIALS", "value": "/etc/galley/credentials/nats.creds"} in worker["env"]


def test_without_credentials_a_worker_has_no_secret() -> None:
    found = pod(a_queue())["spec"]
    assert not any("secret" in volume for volume in found["volumes"])


DEFAULTS = PodResources(requests={"cpu": "50m", "memory": "128Mi"}, limits={"memory": "1Gi"})


@pytest.mark.parametrize(
    ("own", "requests", "limits"),
    [
        ({}, {"cpu": "50m", "memory": "128Mi"}, {"memory": "1Gi"}),
        ({"limits": {"cpu": "2"}}, {"memory": "128Mi"}, {"memory": "1Gi", "cpu": "2"}),
        # More than the default limit, which would refuse it.
        ({"requests": {"memory": "4Gi"}}, {"cpu": "50m", "memory": "4Gi"}, {}),
        ({"limits": {"memory": "64Mi"}}, {"cpu": "50m"}, {"memory": "64Mi"}),
    ],
)
def test_a_worker_has_the_default_of_each_resource_that_its_queue_does_not_mention(
    own: dict[str, Any], requests: dict[str, str], limits: dict[str, str]
) -> None:
    queue = with_resources(a_queue(worker={"template": {"resources": own}}), DEFAULTS)
    resources = queue.spec.worker.template.resources
    assert (resources.requests, resources.limits) == (requests, limits)


def test_workers_trust_the_authorities_of_their_configmap_and_show_the_certificate_of_their_secret() -> None:
    tls = ClientTls("CA", "CERTIFICATE", "KEY", "nats.example")
    assert made(a_queue(), CONFIGMAPS, tls=tls)["data"]["ca.crt"] == "CA"
    [found] = pod(a_queue(), tls=tls, credentials=True)["spec"]["containers"]
    told = {each["name"]: each.get("value") for each in found["env"]}
    assert told["GALLEY_TLS_CA"] == "/etc/galley/queue/ca.crt"
    assert told["GALLEY_TLS_CERTIFICATE"] == "/etc/galley/credentials/tls.crt"
    assert told["GALLEY_TLS_KEY"] == "/etc/galley/credentials/tls.key"
    assert told["GALLEY_TLS_SERVER_NAME"] == "nats.example"


def test_without_tls_or_with_authorities_of_the_system_workers_are_told_of_no_file() -> None:
    for tls in (None, ClientTls()):
        assert "ca.crt" not in made(a_queue(), CONFIGMAPS, tls=tls)["data"]
        [found] = pod(a_queue(), tls=tls)["spec"]["containers"]
        assert not [each for each in found["env"] if each["name"].startswith("GALLEY_TLS")]
