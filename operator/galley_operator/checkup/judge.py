"""What the facts of a cluster mean: findings, each with what to do. Pure."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from galley.doctor import Finding, Level
from galley_operator.checkup.facts import (
    ClaimFacts,
    ClusterFacts,
    DefinitionFacts,
    OperatorFacts,
    QueueObjectFacts,
)
from galley_operator.claims import CLAIM

_SHOWN: Final = 5
_AT_PEACE: Final = frozenset({"Paused", "CircuitOpen"})
"""Reasons why a queue is not ready that are asked for."""


def judge_cluster(facts: ClusterFacts) -> Iterator[Finding]:
    """Yield what there is to say of Galley's objects in a cluster."""
    for definition in facts.definitions:
        yield _definition(definition)
    if facts.operators is not None and not facts.operators:
        yield Finding(
            Level.FAIL, "operator", "no Deployment of it is there",
            "helm install galley charts/galley --namespace galley-system --create-namespace",
        )  # fmt: skip
    for operator in facts.operators or ():
        yield from _operator(operator, facts)
    if facts.claim is not None and facts.claim.holder:
        yield from _claim(facts.claim, facts)
    for queue in facts.queues:
        yield _queue(queue, facts)
    for error in facts.unread:
        yield Finding(Level.WARN, "cluster", f"not all could be read: {error}", error.hint)


def _definition(facts: DefinitionFacts) -> Finding:
    check = f"definition {facts.name}"
    if facts.fields is None:
        return Finding(Level.FAIL, check, "missing", "kubectl apply --server-side -f crds/, or helm upgrade")
    if lacking := sorted(facts.known - facts.fields):
        return Finding(
            Level.FAIL, check, f"older than this command: it lacks {_some(lacking)}",
            "kubectl apply --server-side -f crds/ of this version; what it lacks is dropped from manifests",
        )  # fmt: skip
    if more := sorted(facts.fields - facts.known):
        return Finding(
            Level.WARN, check, f"newer than this command: it has {_some(more)}",
            "use the command of the version that is installed",
        )  # fmt: skip
    return Finding(Level.OK, check, "there, and of this version")


def _some(fields: list[str]) -> str:
    more = f" and {len(fields) - _SHOWN} more" if len(fields) > _SHOWN else ""
    return f"{', '.join(fields[:_SHOWN])}{more}"


def _operator(facts: OperatorFacts, cluster: ClusterFacts) -> Iterator[Finding]:
    namespace, name = facts.name.split("/")
    check = f"operator {facts.name}"
    logs = f"kubectl logs deployment/{name} --namespace {namespace}"
    if not facts.ready:
        yield Finding(
            Level.FAIL, check,
            f"0 of {facts.replicas} replicas are ready: no worker is added, and declared Tasks wait",
            f"kubectl describe pods --namespace {namespace}; {logs}",
        )  # fmt: skip
    else:
        yield Finding(Level.OK, check, f"{facts.ready} of {facts.replicas} replicas are ready")
    if facts.version and facts.version != cluster.version:
        yield Finding(
            Level.WARN, f"{check}: version", f"it is {facts.version}, and this command {cluster.version}",
            "use the same version of both",
        )  # fmt: skip
    yield _lease(check, facts, cluster, logs)


def _lease(check: str, facts: OperatorFacts, cluster: ClusterFacts, logs: str) -> Finding:
    check = f"{check}: lease"
    if not facts.holder or facts.renewed_at is None:
        what = "not there" if facts.holder is None else "held by no replica"
        return Finding(Level.FAIL, check, f"Lease {facts.lease} is {what}: none leads", logs)
    ago = cluster.now - facts.renewed_at
    # Two machines' clocks are compared here: a few seconds say nothing.
    if ago > timedelta(seconds=3 * facts.lease_seconds):
        return Finding(
            Level.FAIL, check,
            f"Lease {facts.lease} was renewed {ago.total_seconds():.0f} s ago by {facts.holder}: none leads",
            logs,
        )  # fmt: skip
    return Finding(Level.OK, check, f"held by {facts.holder}, and fresh")


def _claim(claim: ClaimFacts, cluster: ClusterFacts) -> Iterator[Finding]:
    """Yield which operator serves a namespace, for each that is to."""
    operators = {each.lease for each in cluster.operators or ()}
    for operator in cluster.operators or ():
        if claim.namespace not in operator.namespaces:
            continue
        check = f"operator {operator.name}: namespace {claim.namespace}"
        if claim.holder == operator.lease:
            yield Finding(Level.OK, check, "served by it")
        elif claim.holder in operators:
            yield Finding(
                Level.FAIL, check, f"not served by it: the operator {claim.holder} has the Lease {CLAIM}",
                "uninstall one of the two releases, or take the namespace out of operator.namespaces of one",
            )  # fmt: skip
        else:
            yield Finding(
                Level.FAIL, check,
                f"not served: {claim.holder} has the Lease {CLAIM}, and is no operator that is found here",
                "if there is no such operator, see who may write Leases in the namespace, and: "
                f"kubectl delete lease {CLAIM} --namespace {claim.namespace}",
            )  # fmt: skip


def _queue(queue: QueueObjectFacts, cluster: ClusterFacts) -> Finding:
    check = f"taskqueue {queue.namespace}/{queue.name}"
    if cluster.operators and not any(each.serves(queue.namespace) for each in cluster.operators):
        return Finding(
            Level.FAIL, check, f"no operator serves the namespace {queue.namespace}",
            f"add it to operator.namespaces of the chart: helm upgrade --reuse-values --set "
            f"'operator.namespaces={{...,{queue.namespace}}}'",
        )  # fmt: skip
    describe = f"kubectl describe taskqueue {queue.name} --namespace {queue.namespace}"
    if not queue.ready or not queue.looked_at:
        what = "has no status" if not queue.ready else "was changed, and its status is that of before"
        return Finding(Level.WARN, check, f"{what}: the operator has not looked at it yet", describe)
    if queue.ready == "False":
        level = Level.WARN if queue.reason in _AT_PEACE else Level.FAIL
        return Finding(level, check, f"not ready: {queue.reason}: {queue.message}", describe)
    return Finding(Level.OK, check, f"{queue.reason}: {queue.message}" if queue.reason else "ready")
