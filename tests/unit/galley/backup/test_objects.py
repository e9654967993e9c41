"""What of an object is archived, and what is created from it."""

from typing import Any

import pytest

from galley.backup.archive import Need
from galley.backup.objects import ObjectKind, kept, needs_of, restorable
from galley.workflow.state import WORKFLOW


def a_task(phase: str | None) -> dict[str, Any]:
    return {
        "apiVersion": "galley.dev/v1alpha1",
        "kind": "Task",
        "metadata": {
            "name": "t", "namespace": "shop", "uid": "u", "resourceVersion": "7", "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{}],
            "ownerReferences": [{"uid": "o"}],
            "finalizers": ["f"], "labels": {"a": "b"},
            "annotations": {"note": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
        },
        "spec": {"handler": "h"},
        "status": {"phase": phase, "result": {"secret": 1}} if phase else {},
    }  # fmt: skip


def test_only_what_people_wrote_is_archived() -> None:
    assert kept(ObjectKind.TASKS, a_task("Running")) == {
        "metadata": {"name": "t", "namespace": "shop", "labels": {"a": "b"}, "annotations": {"note": "x"}},
        "spec": {"handler": "h"},
        "status": {"phase": "Running"},
    }
    assert "status" not in kept(ObjectKind.QUEUES, a_task("Running"))


@pytest.mark.parametrize(("phase", "created"), [
    (None, True), ("Pending", True), ("Queued", True), ("Running", True), ("Retrying", True),
    ("Succeeded", False), ("Failed", False), ("Cancelled", False),
])  # fmt: skip
def test_a_task_that_has_ended_is_not_created_again(phase: str | None, created: bool) -> None:
    archived = kept(ObjectKind.TASKS, a_task(phase))
    body = restorable(ObjectKind.TASKS, archived, "new")
    assert (body is not None) == created
    if body is not None:
        assert body == {"metadata": {**archived["metadata"], "namespace": "new"}, "spec": {"handler": "h"}}


def test_a_workflow_that_runs_goes_on_under_its_id_and_one_that_ended_is_not_created() -> None:
    running = a_task("Running")
    running["status"]["workflow"] = "order-1a2b"
    body = restorable(ObjectKind.WORKFLOWS, kept(ObjectKind.WORKFLOWS, running), "new")
    assert body is not None
    assert body["metadata"]["annotations"] == {"note": "x", WORKFLOW: "order-1a2b"}
    running["status"]["phase"] = "Failed"
    assert restorable(ObjectKind.WORKFLOWS, kept(ObjectKind.WORKFLOWS, running), "new") is None


def test_what_a_queue_needs_is_named() -> None:
    queue = {
        "metadata": {"name": "q", "namespace": "shop"},
        "spec": {
            "worker": {
                "modulesFrom": {"configMapName": "code"},
                "template": {
                    "serviceAccountName": "runner",
                    "imagePullSecrets": [{"name": "registry"}],
                    "env": [
                        {"name": "PLAIN", "value": "x"},
                        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
                        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "b"}}},
                    ],
                    "envFrom": [{"secretRef": {"name": "more"}}, {"configMapRef": {"name": "even-more"}}],
                    "volumes": [
                        {"name": "v", "secret": {"secretName": "files"}},
                        {"name": "w", "persistentVolumeClaim": {"claimName": "disk"}},
                        {"name": "x", "configMap": {"name": "texts"}},
                    ],
                },
            }
        },
    }
    assert set(needs_of(queue)) == {
        Need(kind, "shop", name)
        for kind, name in (
            ("ConfigMap", "code"), ("ServiceAccount", "runner"), ("Secret", "registry"), ("Secret", "db"),
            ("ConfigMap", "settings"), ("Secret", "more"), ("ConfigMap", "even-more"), ("Secret", "files"),
            ("PersistentVolumeClaim", "disk"), ("ConfigMap", "texts"),
        )
    }  # fmt: skip
