"""TaskQueue: its defaults, and what it makes of what is written."""

from typing import Any

import pytest
from pydantic import ValidationError

from galley.errors import HandlerNameInvalid
from galley.handler import Handler
from galley.lanes import Lane
from galley.resources import (
    Command,
    InputAs,
    LogLevel,
    Metadata,
    Recycle,
    Retry,
    TaskQueue,
    TaskQueueSpec,
    parse_manifests,
)  # fmt: skip
from galley.retry import RetryPolicy

VOLUMES: list[dict[str, Any]] = [
    {
        "name": "settings",
        "configMap": {"name": "shop", "items": [{"key": "a.toml", "path": "conf/a.toml"}], "optional": True},
    },
    {
        "name": "keys",
        "secret": {
            "secretName": "shop-keys", "items": [{"key": "tls.key", "path": "tls.key"}], "optional": True,
        },
    },
    {"name": "memory", "emptyDir": {"sizeLimit": "1Gi", "medium": "Memory"}},
    {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
    {
        "name": "scratch",
        "ephemeral": {
            "volumeClaimTemplate": {
                "spec": {
                    "accessModes": ["ReadWriteOncePod"],
                    "storageClassName": "fast",
                    "resources": {"requests": {"storage": "10Gi"}},
                }
            }
        },
    },
]  # fmt: skip

_NODES = {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]}]}
_PODS = {
    "topologyKey": "kubernetes.io/hostname",
    "labelSelector": {
        "matchLabels": {"app": "cache"},
        "matchExpressions": [{"key": "tier", "operator": "Exists", "values": []}],
    },
}
_NEAR = {
    "requiredDuringSchedulingIgnoredDuringExecution": [_PODS],
    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": _PODS}],
}
AFFINITY: dict[str, Any] = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_NODES]},
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": _NODES}],
    },
    "podAffinity": _NEAR,
    "podAntiAffinity": _NEAR,
}

FULL: dict[str, Any] = {
    "apiVersion": "galley.dev/v1alpha1",
    "kind": "TaskQueue",
    "metadata": {"name": "images", "namespace": "shop", "labels": {"a/b": "c"}, "annotations": {"d": "e f"}},
    "spec": {
        "paused": True,
        "lanes": ["critical", "low"],
        "worker": {
            "image": "registry.example.com:5000/shop/images:1.2@sha256:" + "0" * 64,
            "code": {"configMapName": "images-code"},
            "modules": ["shop.images", "shop.mail"],
            "preload": ["numpy"],
            "recycle": {"tasks": 1_000_000_000, "memory": "999999999Gi"},
            "logLevel": "ERROR",
            "concurrency": 256,
            "gracePeriodSeconds": 3600,
            "template": {
                "labels": {"team": "pictures"},
                "annotations": {"example.com/note": "two words"},
                "serviceAccountName": "images",
                "imagePullSecrets": [{"name": "registry.example.com"}],
                "env": [
                    {"name": "BUCKET", "value": "pictures"},
                    {
                        "name": "API_TOKEN",
                        "valueFrom": {"secretKeyRef": {"name": "api", "key": "token", "optional": True}},
                    },
                    {
                        "name": "REGION",
                        "valueFrom": {
                            "configMapKeyRef": {"name": "place", "key": "region", "optional": True}
                        },
                    },
                ],
                "envFrom": [
                    {"prefix": "SHOP_", "configMapRef": {"name": "shop", "optional": True}},
                    {"secretRef": {"name": "shop-keys", "optional": True}},
                ],
                "volumes": VOLUMES,
                "volumeMounts": [
                    {"name": "models", "mountPath": "/data/models", "subPath": "large/v1", "readOnly": True},
                    {"name": "memory", "mountPath": "/dev/shm", "readOnly": False},
                ],
                "initContainers": [
                    {
                        "name": "fetch",
                        "image": "shop/fetch:1",
                        "command": ["fetch", ""],
                        "args": ["--all"],
                        "env": [{"name": "FROM", "value": "s3"}],
                        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch", "readOnly": False}],
                    }
                ],
                "securityContext": {
                    "runAsUser": 2**31 - 1,
                    "runAsGroup": 1000,
                    "fsGroup": 1000,
                    "fsGroupChangePolicy": "OnRootMismatch",
                    "supplementalGroups": [2000],
                    "readOnlyRootFilesystem": False,
                },
                "imagePullPolicy": "Always",
                "resources": {
                    "requests": {"cpu": "500m", "memory": "1Gi"},
                    "limits": {"cpu": "1.5", "memory": "1.5Gi", "nvidia.com/gpu": "1"},
                },
                "nodeSelector": {"kubernetes.io/arch": "arm64"},
                "tolerations": [
                    {
                        "key": "spot",
                        "operator": "Equal",
                        "value": "yes",
                        "effect": "NoExecute",
                        "tolerationSeconds": 60,
                    }
                ],
                "affinity": AFFINITY,
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 100,
                        "topologyKey": "topology.kubernetes.io/zone",
                        "whenUnsatisfiable": "DoNotSchedule",
                    }
                ],
                "priorityClassName": "batch",
            },
        },
        "handlers": {
            "commands": [{"name": "convert", "command": ["convert", ""], "inputAs": "args"}],
            "http": [{"name": "charge", "url": "https://pay.example.com/tasks", "secretName": "pay"}],
        },
        "scaling": {
            "minWorkers": 1000,
            "minimums": [
                {
                    "days": ["Mon", "Sun"],
                    "start": "23:59",
                    "end": "00:00",
                    "timeZone": "Europe/Berlin",
                    "minWorkers": 1000,
                }
            ],
            "lanes": [{"name": "low", "targetWaitSeconds": 1800.0}],
            "maxWorkers": 1000,
            "idleSeconds": 86_400,
            "targetWaitSeconds": 86_400,
            "priority": 1000,
            "weight": 100,
            "workers": 1000,
        },
        "retry": {"attempts": 100, "backoffSeconds": 0.5, "maxBackoffSeconds": 0.5, "crashes": 20},
        "timeoutSeconds": 86_400,
        "limits": {
            "backlog": 10_000_000,
            "backlogBytes": 1024**4,
            "laterBytes": 1024**4,
            "recordBytes": 1024**2,
            "deadLetterBytes": 1024**3,
            "objectBytes": 1024**3,
            "outputBytes": 32 * 1024**2,
            "workflowBytes": 16 * 1024**2,
            "concurrency": 100_000,
            "rate": {"tasks": 1_000_000, "seconds": 86_400, "burst": 1_000_000},
            "perKey": {
                "concurrency": 1000,
                "ordered": False,
                "rate": {"tasks": 1_000_000, "seconds": 86_400, "burst": 1_000_000},
                "weights": {"k" * 64: 100},
            },
        },
        "retention": {"resultsSeconds": 2_592_000, "deadLettersSeconds": 31_536_000},
    },
}
"""Every field, each at the upper end of what is allowed."""


def test_a_queue_needs_no_more_than_a_name() -> None:
    spec = TaskQueue(metadata=Metadata(name="images")).spec
    assert spec.lanes == (Lane.HIGH, Lane.NORMAL, Lane.LOW)
    assert (spec.worker.modules, spec.worker.concurrency, spec.worker.grace_period_seconds) == ((), 4, 30)
    assert (spec.worker.preload, spec.worker.log_level) == ((), LogLevel.INFO)
    assert (spec.worker.recycle.tasks, spec.worker.recycle.memory_bytes) == (None, None)
    assert spec.handlers.commands == ()
    assert (spec.scaling.min_workers, spec.scaling.max_workers, spec.scaling.idle_seconds) == (0, 4, None)
    assert spec.timeout_seconds == 300
    assert (spec.limits.backlog, spec.limits.backlog_bytes) == (100_000, 256 * 1024**2)
    assert (spec.retention.results_seconds, spec.retention.dead_letters_seconds) == (86_400, None)


def test_a_queue_survives_being_written_and_read() -> None:
    queue = TaskQueue.model_validate(FULL)
    written = queue.model_dump(by_alias=True, mode="json", exclude_none=True)
    assert written == FULL
    assert TaskQueue.model_validate(written) == queue
    assert TaskQueue.model_validate_json(queue.model_dump_json(by_alias=True)) == queue


def test_a_written_queue_is_a_manifest() -> None:
    queue = TaskQueue.model_validate(FULL)
    assert parse_manifests(queue.model_dump_json(by_alias=True, indent=1), "queue.json") == [queue]


def test_lanes_are_kept_highest_first() -> None:
    lanes = (Lane.LOW, Lane.CRITICAL, Lane.NORMAL)
    assert TaskQueueSpec(lanes=lanes).lanes == (Lane.CRITICAL, Lane.NORMAL, Lane.LOW)


def test_the_retry_defaults_are_those_of_the_policy() -> None:
    assert Retry().policy() == RetryPolicy()


def test_every_word_of_a_retry_reaches_the_policy() -> None:
    retry = Retry(attempts=7, backoff_seconds=2.5, max_backoff_seconds=9, crashes=2)
    assert retry.policy() == RetryPolicy(attempts=7, backoff_seconds=2.5, max_backoff_seconds=9.0, crashes=2)


def test_a_command_reads_its_input_from_stdin_unless_told_otherwise() -> None:
    spec = TaskQueueSpec.model_validate({"handlers": {"commands": [{"name": "a", "command": ["cat"]}]}})
    assert spec.handlers.commands[0].input_as is InputAs.STDIN


def test_a_queue_cannot_be_changed() -> None:
    queue = TaskQueue(metadata=Metadata(name="images"))
    with pytest.raises(ValidationError, match="frozen"):
        queue.spec.timeout_seconds = 5  # type: ignore[misc]


def test_wrong_bounds_are_refused_in_python_too() -> None:
    with pytest.raises(
        ValidationError, match="lower backoffSeconds, or set maxBackoffSeconds to 600 or more"
    ):
        Retry(backoff_seconds=600)


NAMES = ["a", "A9", "a.b-c_D", "x" * 63, "x" * 64, "", "-a", "a-", ".a", "a_", "a b", "a/b", "a\n", "é", "a*"]


@pytest.mark.parametrize("name", NAMES)
def test_a_command_may_be_named_what_a_function_may(name: str) -> None:
    try:
        Handler(print, "images", name)
        of_a_function = True
    except HandlerNameInvalid:
        of_a_function = False
    try:
        Command(name=name, command=("true",))
        of_a_command = True
    except ValidationError:
        of_a_command = False
    assert of_a_command == of_a_function


@pytest.mark.parametrize(
    ("memory", "in_bytes"), [("512Mi", 512 * 1024**2), ("2Gi", 2 * 1024**3), ("300M", 300_000_000)]
)
def test_the_memory_after_which_a_process_is_replaced_is_written_with_its_unit(
    memory: str, in_bytes: int
) -> None:
    assert Recycle(memory=memory).memory_bytes == in_bytes


@pytest.mark.parametrize("memory", ["512", "128m", "1gb", "0Mi", "1.5Gi", ""])
def test_memory_without_a_unit_or_with_one_that_means_less_is_refused(memory: str) -> None:
    with pytest.raises(ValidationError):
        Recycle(memory=memory)


@pytest.mark.parametrize(
    "key",
    ["container.apparmor.security.beta.kubernetes.io/worker", "seccomp.security.alpha.kubernetes.io/pod",
     "io.kubernetes.cri-o.Devices", "io.katacontainers.config.hypervisor.path",
     "k8s.v1.cni.cncf.io/networks", "v1.multus-cni.io/default-network", "sidecar.istio.io/proxyImage",
     "sidecar.istio.io/userVolume", "sidecar.istio.io/userVolumeMount", "proxy.istio.io/overrides",
     "dapr.io/env-from-secret", "dapr.io/sidecar-image", "vault.hashicorp.com/agent-extra-secret"],
)  # fmt: skip
def test_no_annotation_weakens_the_restrictions_of_a_pod(key: str) -> None:
    def template(key: str) -> dict[str, object]:
        return {"worker": {"template": {"annotations": {key: "unconfined"}}}}

    for harmless in ("example.com/team", "sidecar.istio.io/inject", "vault.hashicorp.com/agent-inject"):
        assert TaskQueueSpec.model_validate(template(harmless)).worker.template.annotations
    with pytest.raises(ValidationError, match="would weaken the restrictions of the pod"):
        TaskQueueSpec.model_validate(template(key))


def test_a_queue_may_say_where_large_data_are_and_no_more() -> None:
    def template(name: str) -> dict[str, object]:
        return {"worker": {"template": {"env": [{"name": name, "value": "s3://bucket"}]}}}

    assert (
        TaskQueueSpec.model_validate(template("GALLEY_OBJECTS")).worker.template.env[0].value == "s3://bucket"
    )
    with pytest.raises(ValidationError, match="is set by Galley itself"):
        TaskQueueSpec.model_validate(template("GALLEY_SERVER"))
