"""Gathering what `galley_operator.checkup.judge` judges, with whatever rights there are."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace
from pydantic import BaseModel

from galley.doctor import Finding, Level
from galley.resources import (
    DeclaredStatus,
    DeclaredWorkflowStatus,
    Task,
    TaskQueue,
    TaskQueueStatus,
    TaskSchedule,
    TaskScheduleStatus,
    Topic,
    TopicStatus,
    Workflow,
)
from galley.resources.description import model_in
from galley_operator.checkup.facts import (
    ClaimFacts,
    ClusterFacts,
    DefinitionFacts,
    OperatorFacts,
    QueueObjectFacts,
)
from galley_operator.checkup.judge import judge_cluster
from galley_operator.claims import CLAIM
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.cluster.errors import ApiRefused, ClusterError, ObjectNotFound
from galley_operator.cluster.resource import CRDS, DEPLOYMENTS, LEASES, TASKQUEUES, Resource
from galley_operator.leadership import shown
from galley_operator.settings import PREFIX

_OURS: Final[dict[str, tuple[type[BaseModel], type[BaseModel]]]] = {
    "taskqueues.galley.dev": (TaskQueue, TaskQueueStatus),
    "tasks.galley.dev": (Task, DeclaredStatus),
    "taskschedules.galley.dev": (TaskSchedule, TaskScheduleStatus),
    "topics.galley.dev": (Topic, TopicStatus),
    "workflows.galley.dev": (Workflow, DeclaredWorkflowStatus),
}
_OPERATOR: Final = "app.kubernetes.io/name=galley-operator"


async def examine(kubeconfig: Path | None, namespace: str) -> list[Finding]:
    """Return what is found in a cluster: the definitions, the operator, and the queues of a namespace.

    Args:
        kubeconfig: the cluster; None is the one this runs in, or that of KUBECONFIG.
        namespace: whose TaskQueues are looked at.
    """
    try:
        async with Cluster(load_config(kubeconfig)) as cluster:
            return list(judge_cluster(await gather(cluster, namespace)))
    except ClusterError as error:
        return [Finding(Level.FAIL, "cluster", str(error), error.hint)]


async def gather(cluster: Cluster, namespace: str) -> ClusterFacts:
    """Return what can be read of Galley's objects.

    Raises:
        ClusterUnreachable: if the API server does not answer.
    """
    unread: list[ClusterError] = []
    definitions: list[DefinitionFacts] = []
    for name, models in _OURS.items():
        try:
            found: dict[str, Any] | None = await cluster.get(CRDS, None, name)
        except ObjectNotFound:
            found = None
        except ApiRefused as error:
            unread.append(error)
            continue
        definitions.append(DefinitionFacts(name, None if found is None else _served(found), _known(*models)))
    operators: tuple[OperatorFacts, ...] | None = None
    try:
        found_operators = [
            await _operator(cluster, each) async for each in _each(cluster, DEPLOYMENTS, None, _OPERATOR)
        ]
        operators = tuple(found_operators)
    except ApiRefused as error:
        unread.append(error)
    claim = None
    try:
        lease = await cluster.get(LEASES, namespace, CLAIM)
        claim = ClaimFacts(namespace, shown((lease.get("spec") or {}).get("holderIdentity") or ""))
    except ObjectNotFound:
        pass  # an operator that serves all namespaces has none
    except ApiRefused as error:
        unread.append(error)
    queues: list[QueueObjectFacts] = []
    try:
        queues = [_queue(each) async for each in _each(cluster, TASKQUEUES, namespace)]
    except ObjectNotFound:
        pass  # no definition, which is a finding of its own
    except ApiRefused as error:
        unread.append(error)
    return ClusterFacts(
        datetime.now(UTC),
        version("galley-tasks"),
        tuple(definitions),
        operators,
        tuple(queues),
        tuple(unread),
        claim,
    )


async def _each(
    cluster: Cluster, resource: Resource, namespace: str | None, labels: str = ""
) -> AsyncIterator[dict[str, Any]]:
    async for page in cluster.pages(resource, namespace, labels=labels):
        for each in page:
            yield each


def _served(definition: dict[str, Any]) -> frozenset[str]:
    """Return the fields a definition has, of the version it stores."""
    [stored] = [each for each in definition["spec"]["versions"] if each.get("storage")]
    properties = stored["schema"]["openAPIV3Schema"].get("properties", {})
    return frozenset(
        path for part in ("spec", "status") for path in _in_schema(properties.get(part, {}), f"{part}")
    )


def _in_schema(schema: dict[str, Any], place: str) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        yield f"{place}.{name}"
        yield from _in_schema(field.get("items", field), f"{place}.{name}")


def _known(model: type[BaseModel], status: type[BaseModel]) -> frozenset[str]:
    spec = model_in(model.model_fields["spec"].annotation)
    assert spec is not None
    return frozenset((*_in_model(spec, "spec"), *_in_model(status, "status")))


def _in_model(model: type[BaseModel], place: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{place}.{field.alias or name}"
        yield path
        if (part := model_in(field.annotation)) is not None:
            yield from _in_model(part, path)


async def _operator(cluster: Cluster, deployment: dict[str, Any]) -> OperatorFacts:
    metadata, spec = deployment["metadata"], deployment["spec"]
    [container] = [each for each in spec["template"]["spec"]["containers"] if each["name"] == "operator"]
    told = {each["name"].removeprefix(PREFIX): each.get("value", "") for each in container.get("env", ())}
    lease_namespace = told.get("LEASE_NAMESPACE") or metadata["namespace"]
    lease_name = told.get("LEASE_NAME") or "galley-operator"
    facts = OperatorFacts(
        f"{metadata['namespace']}/{metadata['name']}",
        spec.get("replicas", 1),
        deployment.get("status", {}).get("readyReplicas", 0),
        metadata.get("labels", {}).get("app.kubernetes.io/version", ""),
        tuple(each.strip() for each in told.get("NAMESPACES", "").split(",") if each.strip()),
        told.get("OWN_NAMESPACE") or metadata["namespace"],
        f"{lease_namespace}/{lease_name}",
    )
    try:
        lease = (await cluster.get(LEASES, lease_namespace, lease_name)).get("spec", {})
    except ObjectNotFound:
        return facts
    renewed = lease.get("renewTime")
    return replace(
        facts,
        holder=lease.get("holderIdentity") or "",
        renewed_at=datetime.fromisoformat(renewed) if renewed else None,
        lease_seconds=float(lease.get("leaseDurationSeconds") or 15),
    )


def _queue(found: dict[str, Any]) -> QueueObjectFacts:
    metadata, status = found["metadata"], found.get("status", {})
    ready: dict[str, Any] = next(
        (each for each in status.get("conditions", ()) if each["type"] == "Ready"), {}
    )
    return QueueObjectFacts(
        metadata["namespace"], metadata["name"], ready.get("status", ""), ready.get("reason", ""),
        ready.get("message", ""), status.get("observedGeneration") == metadata.get("generation"),
    )  # fmt: skip
