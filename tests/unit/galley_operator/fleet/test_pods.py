from typing import Any

import msgspec
import pytest

from galley.broker.control import Heartbeat
from galley_operator.fleet.deployment import Deployment, newer
from galley_operator.fleet.fleet import WorkerPhase
from galley_operator.fleet.pods import LEAVING_COST, Pod, removal_order, would_go_first
from galley_operator.fleet.trouble import end_of, trouble_of
from galley_operator.fleet.view import phase_of

RUNNING = {"running": {"startedAt": "2026-03-01T08:30:00Z"}}


def a_pod(name: str = "w-1", **changes: Any) -> Pod:
    """Return a pod that runs and is ready; `cost`, `ready`, `phase`, `node` and so on change it."""
    conditions = [{"type": "Ready", "status": str(changes.get("ready", True))}]
    if unplaced := changes.get("unplaced"):
        conditions.append(
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unplaced}
        )
    if disrupted := changes.get("disrupted"):
        conditions.append(
            {"type": "DisruptionTarget", "status": "True", "reason": disrupted, "message": "by the API"}
        )
    container = {
        "name": "worker",
        "restartCount": changes.get("restarts", 0),
        "state": changes.get("state", RUNNING),
        "lastState": changes.get("last", {}),
    }
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "shop",
        "uid": f"uid-{name}",
        "creationTimestamp": "2026-03-01T08:00:00Z",
    }
    if "cost" in changes:
        metadata["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": str(changes["cost"])}
    if changes.get("deleted"):
        metadata["deletionTimestamp"] = "2026-03-01T09:00:00Z"
    return msgspec.convert(
        {
            "metadata": metadata,
            "spec": {"nodeName": changes.get("node", "n1")},
            "status": {
                "phase": changes.get("phase", "Running"),
                "reason": changes.get("reason", ""),
                "message": changes.get("message", ""),
                "conditions": conditions,
                "containerStatuses": [container],
            },
        },
        Pod,
    )


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def terminated(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def a_beat(**changes: Any) -> Heartbeat:
    return Heartbeat(**{"worker": "w-1", "slots": 4, "busy": 1, "draining": False, "ready": True, **changes})


@pytest.mark.parametrize(
    ("pod", "beat", "phase"),
    [
        (a_pod(ready=False), None, WorkerPhase.STARTING),
        (a_pod(ready=False, phase="Pending", state=waiting("ContainerCreating")), None, WorkerPhase.STARTING),
        (a_pod(ready=False), a_beat(ready=False), WorkerPhase.STARTING),
        (a_pod(ready=False), a_beat(), WorkerPhase.READY),
        (a_pod(), a_beat(), WorkerPhase.READY),
        (a_pod(), None, WorkerPhase.READY),
        (a_pod(), a_beat(draining=True, ready=False), WorkerPhase.DRAINING),
        (a_pod(deleted=True), a_beat(), WorkerPhase.STOPPING),
        (a_pod(ready=False, state=waiting("ImagePullBackOff")), None, WorkerPhase.FAILED),
        (a_pod(ready=False, state=waiting("CreateContainerConfigError")), None, WorkerPhase.FAILED),
        (a_pod(ready=False, restarts=2, state=waiting("CrashLoopBackOff")), None, WorkerPhase.FAILED),
        (a_pod(ready=False, restarts=1), None, WorkerPhase.FAILED),
        (a_pod(ready=False, restarts=1), a_beat(), WorkerPhase.READY),
        # What was said before the container ended is no longer true.
        (a_pod(ready=False, restarts=1, state=waiting("CrashLoopBackOff")), a_beat(), WorkerPhase.FAILED),
        (a_pod(ready=False, phase="Pending", node="", unplaced="no room"), None, WorkerPhase.FAILED),
    ],
)
def test_the_phase_follows_the_worker_first_and_the_pod_second(
    pod: Pod, beat: Heartbeat | None, phase: WorkerPhase
) -> None:
    assert phase_of(pod, beat, stuck=False) is phase


def test_who_does_not_come_up_for_long_counts_as_failed() -> None:
    assert phase_of(a_pod(ready=False), None, stuck=True) is WorkerPhase.FAILED
    assert phase_of(a_pod(), a_beat(), stuck=True) is WorkerPhase.READY


@pytest.mark.parametrize(
    ("pod", "reason", "words"),
    [
        (
            a_pod(state=waiting("ErrImagePull", "not found")),
            "ImagePullFailed",
            "not found; check spec.worker.image",
        ),
        (
            a_pod(state=waiting("CreateContainerConfigError", 'secret "s" not found')),
            "ContainerNotCreated",
            'secret "s" not found; check what spec.worker.template',
        ),
        (
            a_pod(restarts=1, state=waiting("CrashLoopBackOff"), last=terminated(137, "OOMKilled")),
            "OutOfMemory",
            "raise spec.worker.template.resources.limits.memory",
        ),
        (
            a_pod(restarts=1, last=terminated(3, message="module 'thumbs' does not import\n")),
            "WorkerCannotStart",
            "worker w-1 cannot start: module 'thumbs' does not import",
        ),
        (
            a_pod(
                restarts=1,
                last=terminated(3, message="module 'a' does not import\n  File 'a.py'\nKeyError: 'x'\n"),
            ),
            "WorkerCannotStart",
            "cannot start: module 'a' does not import\n  File 'a.py'\nKeyError: 'x'",
        ),
        (
            a_pod(restarts=1, last=terminated(3, message='x\n{"event":"y","error":"no settings"}\n')),
            "WorkerCannotStart",
            "worker w-1 cannot start: no settings",
        ),
        (
            a_pod(restarts=1, last=terminated(1, message='x\n{"event":"boom","error":"disk on fire"}')),
            "WorkerCrashed",
            "exit code 1; its last words: disk on fire; kubectl logs w-1 --namespace shop --previous",
        ),
        (a_pod(restarts=1, last=terminated(139)), "WorkerCrashed", "exit code 139; kubectl logs"),
        (
            a_pod(node="", unplaced="0/3 nodes: Insufficient cpu"),
            "Unschedulable",
            "Insufficient cpu; add nodes",
        ),
    ],
)
def test_trouble_is_told_as_a_sentence_with_what_to_do(pod: Pod, reason: str, words: str) -> None:
    trouble = trouble_of(pod)
    assert trouble is not None
    assert trouble.reason == reason
    assert words in trouble.message


def test_a_worker_that_is_well_has_no_trouble() -> None:
    assert trouble_of(a_pod()) is None


def test_pods_go_in_the_order_of_their_replica_set() -> None:
    pods = [
        a_pod("ready"),
        a_pod("cheap", cost=LEAVING_COST),
        a_pod("unready", ready=False),
        a_pod("pending", ready=False, phase="Pending"),
        a_pod("unplaced", ready=False, phase="Pending", node=""),
    ]
    order = [pod.name for pod in removal_order(pods)]
    assert order == ["unplaced", "pending", "unready", "cheap", "ready"]


def test_a_cost_that_was_just_written_counts_before_it_is_seen() -> None:
    pods = [a_pod("a"), a_pod("b")]
    assert [pod.name for pod in removal_order(pods, ["uid-b"])] == ["b", "a"]


@pytest.mark.parametrize(
    ("chosen", "others", "exactly"),
    [
        ([a_pod("a", cost=LEAVING_COST)], [a_pod("b")], True),
        ([a_pod("a", cost=LEAVING_COST, ready=False)], [a_pod("b")], True),
        # A pod that starts, or whose readiness flutters, goes before any deletion cost counts.
        ([a_pod("a", cost=LEAVING_COST)], [a_pod("b", ready=False)], False),
        ([a_pod("a", cost=LEAVING_COST)], [a_pod("b", phase="Pending", ready=False)], False),
        ([a_pod("a")], [a_pod("b")], False),
        ([a_pod("a", cost=LEAVING_COST)], [a_pod("b", cost=-5000)], False),
        ([a_pod("a")], [], True),
        ([], [a_pod("b")], True),
    ],
)
def test_others_are_never_taken_for_those_chosen(chosen: list[Pod], others: list[Pod], exactly: bool) -> None:
    assert would_go_first(chosen, others, frozenset()) is exactly


def a_deployment(generation: int = 1, uid: str = "d", **status: Any) -> Deployment:
    return msgspec.convert(
        {
            "metadata": {"name": "galley-images", "uid": uid, "generation": generation},
            "spec": {"replicas": 3},
            "status": {"observedGeneration": generation, "replicas": 3, "updatedReplicas": 3, **status},
        },
        Deployment,
    )


def test_a_deployment_is_settled_when_its_controller_has_done_everything() -> None:
    assert a_deployment().settled
    assert not a_deployment(observedGeneration=0).settled
    assert not a_deployment(updatedReplicas=1).settled
    assert a_deployment(updatedReplicas=1).rolling


def test_a_quota_that_is_used_up_is_told() -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: small, used: pods=2"}
    trouble = a_deployment(conditions=[refused]).trouble
    assert trouble is not None
    assert trouble.reason == "QuotaExceeded"
    assert "raise the namespace's quota, or lower spec.scaling.maxWorkers" in trouble.message


def test_of_two_sights_of_a_deployment_the_later_counts() -> None:
    old, new = a_deployment(1), a_deployment(2)
    assert newer(old, new) is new
    assert newer(new, old) is new
    assert newer(a_deployment(1, uid="made again"), new).uid == "made again"  # type: ignore[union-attr]
    assert newer(None, new) is None
    assert newer(old, None) is old


def test_how_a_worker_ended_is_known_after_it_was_started_again() -> None:
    starved = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    end = end_of(a_pod(restarts=1, last=starved))
    assert end is not None
    assert (end.reason, "OOMKilled" in end.message) == ("OutOfMemory", True)
    assert end_of(a_pod()) is None


LOW = "The node was low on resource: memory."
SMALL = 'Usage of EmptyDir volume "scratch" exceeds the limit "16Mi". '


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (
            a_pod(phase="Failed", reason="Evicted", message=LOW, state=terminated(137)),
            "by its node: The node was low on resource: memory; raise spec.worker.template.resources.",
        ),
        (
            a_pod(phase="Failed", reason="Evicted", message=SMALL, state=terminated(137)),
            'limit "16Mi"; raise the sizeLimit of that volume, or',
        ),
        (a_pod(phase="Failed", reason="Evicted", state={}), "by its node: no reason was given; raise"),
        (a_pod(deleted=True, disrupted="EvictionByEvictionAPI"), "EvictionByEvictionAPI (by the API); if it"),
        (
            a_pod(deleted=True, disrupted="PreemptionByScheduler", state=terminated(143)),
            "PreemptionBySch",
        ),
    ],
)
def test_a_worker_whose_pod_was_evicted_ended_by_that(pod: Pod, words: str) -> None:
    end = end_of(pod)
    assert end is not None
    assert end.reason == "Evicted"
    assert words in end.message


def test_a_pod_that_stays_was_not_evicted_and_one_without_memory_ended_by_that() -> None:
    assert end_of(a_pod(disrupted="EvictionByEvictionAPI")) is None
    starved = end_of(a_pod(phase="Failed", reason="Evicted", state=terminated(137, "OOMKilled")))
    assert starved is not None
    assert starved.reason == "OutOfMemory"


def test_a_deletion_cost_that_is_no_number_counts_as_none() -> None:
    assert a_pod(cost="cheap").cost == 0


@pytest.mark.parametrize("message", ["{not JSON}", '["a list"] }', '{"event": "started"}\n}'])
def test_last_words_that_are_no_line_of_ours_are_told_as_they_are(message: str) -> None:
    ended = {"terminated": {"exitCode": 2, "reason": "Error", "message": message}}
    trouble = trouble_of(a_pod(ready=False, restarts=3, state=waiting("CrashLoopBackOff"), last=ended))
    assert trouble is not None
    assert message.splitlines()[-1] in trouble.message
