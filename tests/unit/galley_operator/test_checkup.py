"""Each check of the doctor in a cluster fails for what it is there to find, and says what to do."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from docs.generate.crds import KINDS, definition
from galley.cli import doctor
from galley.cli.main import main
from galley.doctor import Level
from galley_operator.checkup.facts import (
    ClaimFacts,
    ClusterFacts,
    DefinitionFacts,
    OperatorFacts,
    QueueObjectFacts,
)
from galley_operator.checkup.gather import examine, gather
from galley_operator.checkup.judge import judge_cluster
from galley_operator.cluster.errors import ApiRefused, ObjectNotFound, RightsMissing
from galley_operator.cluster.resource import CRDS, DEPLOYMENTS, LEASES, TASKQUEUES
from tests.support.memory_cluster import MemoryCluster
from tests.unit.galley.cli.a_terminal import a_terminal, out

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEFINITION = DefinitionFacts("tasks.galley.dev", frozenset({"spec.a"}), frozenset({"spec.a"}))
OPERATOR = OperatorFacts(
    "galley-system/galley-operator", 2, 2, "0.2.0", ("shop",), "galley-system",
    "galley-system/galley-operator", "pod-1", NOW - timedelta(seconds=3), 15.0,
)  # fmt: skip
QUEUE = QueueObjectFacts("shop", "images", "True", "Serving", "tasks are accepted and run")
CLUSTER = ClusterFacts(NOW, "0.2.0", (DEFINITION,), (OPERATOR,), (QUEUE,))
DENIED = RightsMissing("list", "deployments", 403, "User cannot list deployments")


def wrong(facts: ClusterFacts) -> list[tuple[Level, str]]:
    """Return level and check of what is not well; each has to say what to do."""
    found = [finding for finding in judge_cluster(facts) if finding.level is not Level.OK]
    assert all(finding.hint and finding.message for finding in found)
    return [(finding.level, finding.check) for finding in found]


def test_a_cluster_that_is_well_has_nothing_but_ok() -> None:
    assert wrong(CLUSTER) == []
    everywhere = replace(OPERATOR, namespaces=())
    assert wrong(replace(CLUSTER, operators=(everywhere,))) == []


@pytest.mark.parametrize(
    ("changes", "level", "check"),
    [
        ({"fields": None}, Level.FAIL, "definition tasks.galley.dev"),
        ({"fields": frozenset[str]()}, Level.FAIL, "definition tasks.galley.dev"),
        ({"fields": frozenset({"spec.a", "spec.b"})}, Level.WARN, "definition tasks.galley.dev"),
    ],
)
def test_a_definition_that_is_missing_or_of_another_version_is_found(
    changes: dict[str, Any], level: Level, check: str
) -> None:
    facts = replace(CLUSTER, definitions=(replace(DEFINITION, **changes),))
    assert wrong(facts) == [(level, check)]


NAME = "operator galley-system/galley-operator"


@pytest.mark.parametrize(
    ("changes", "level", "check"),
    [
        ({"ready": 0}, Level.FAIL, NAME),
        ({"version": "0.1.0"}, Level.WARN, f"{NAME}: version"),
        ({"holder": None}, Level.FAIL, f"{NAME}: lease"),
        ({"holder": ""}, Level.FAIL, f"{NAME}: lease"),
        ({"renewed_at": NOW - timedelta(minutes=2)}, Level.FAIL, f"{NAME}: lease"),
        ({"namespaces": ("other",)}, Level.FAIL, "taskqueue shop/images"),
        ({"namespaces": (), "own_namespace": "shop"}, Level.FAIL, "taskqueue shop/images"),
    ],
)
def test_what_is_wrong_with_the_operator_is_found(changes: dict[str, Any], level: Level, check: str) -> None:
    facts = replace(CLUSTER, operators=(replace(OPERATOR, **changes),))
    assert wrong(facts) == [(level, check)]


def test_the_operator_that_serves_a_namespace_is_named() -> None:
    other = replace(OPERATOR, name="there/galley-operator", lease="there/galley-operator")
    two = replace(CLUSTER, operators=(OPERATOR, other))
    assert wrong(replace(CLUSTER, claim=ClaimFacts("shop", OPERATOR.lease))) == []
    assert wrong(replace(CLUSTER, claim=ClaimFacts("shop", ""))) == []
    found = wrong(replace(two, claim=ClaimFacts("shop", other.lease)))
    assert found == [(Level.FAIL, f"{NAME}: namespace shop")]
    # A holder that is no operator, and an operator that takes no notice of Leases.
    facts = replace(CLUSTER, claim=ClaimFacts("shop", "mallory"))
    assert wrong(facts) == [(Level.FAIL, f"{NAME}: namespace shop")]
    assert any("kubectl delete lease galley-serves --namespace shop" in each.hint
               for each in judge_cluster(facts))  # fmt: skip
    assert wrong(replace(facts, operators=(replace(OPERATOR, namespaces=()),))) == []


def test_a_cluster_without_an_operator_is_found() -> None:
    assert wrong(replace(CLUSTER, operators=())) == [(Level.FAIL, "operator")]
    assert wrong(replace(CLUSTER, operators=None, unread=(DENIED,))) == [(Level.WARN, "cluster")]


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"ready": ""}, Level.WARN),
        ({"looked_at": False}, Level.WARN),
        ({"ready": "False", "reason": "ImageNotPulled", "message": "no such image"}, Level.FAIL),
        ({"ready": "False", "reason": "Paused", "message": "spec.paused is true"}, Level.WARN),
    ],
)
def test_a_queue_that_is_not_ready_is_found(changes: dict[str, Any], level: Level) -> None:
    facts = replace(CLUSTER, queues=(replace(QUEUE, **changes),))
    assert wrong(facts) == [(level, "taskqueue shop/images")]


def a_cluster(*, crds: bool = True) -> MemoryCluster:
    cluster = MemoryCluster()
    for kind in KINDS if crds else ():
        cluster.put(CRDS, definition(kind))
    environ = [
        {"name": "GALLEY_OPERATOR_NAMESPACES", "value": "shop, other"},
        {"name": "GALLEY_OPERATOR_POD_NAME", "valueFrom": {}},
    ]
    operator = {
        "metadata": {
            "name": "galley-operator", "namespace": "galley-system",
            "labels": {"app.kubernetes.io/name": "galley-operator", "app.kubernetes.io/version": "0.2.0"},
        },
        "spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "operator", "env": environ}]}}},
        "status": {"readyReplicas": 1},
    }  # fmt: skip
    cluster.put(DEPLOYMENTS, operator)
    return cluster


async def test_all_that_is_judged_is_read_from_the_objects() -> None:
    cluster = a_cluster()
    assert (await gather(cluster, "shop")).operators == (
        OperatorFacts(
            "galley-system/galley-operator", 2, 1, "0.2.0", ("shop", "other"), "galley-system",
            "galley-system/galley-operator",
        ),
    )  # fmt: skip
    lease = {
        "holderIdentity": "pod-1",
        "leaseDurationSeconds": 15,
        "renewTime": "2026-03-01T11:59:58.000000Z",
    }
    cluster.put(
        LEASES, {"metadata": {"name": "galley-operator", "namespace": "galley-system"}, "spec": lease}
    )
    cluster.put(
        LEASES,
        {"metadata": {"name": "galley-serves", "namespace": "shop"}, "spec": {"holderIdentity": "x\n"}},
    )
    condition = {"type": "Ready", "status": "False", "reason": "ImageNotPulled", "message": "no such image"}
    queue = {
        "metadata": {"name": "images", "namespace": "shop", "generation": 3},
        "status": {"observedGeneration": 2, "conditions": [condition]},
    }
    cluster.put(TASKQUEUES, queue)
    found = await gather(cluster, "shop")
    assert found.operators is not None
    [operator] = found.operators
    assert (operator.holder, operator.lease_seconds) == ("pod-1", 15.0)
    assert operator.renewed_at == NOW - timedelta(seconds=2)
    assert found.claim == ClaimFacts("shop", "x?")
    assert found.queues[0].reason == "ImageNotPulled"
    assert not found.queues[0].looked_at
    assert found.unread == ()
    assert len(found.definitions) == len(KINDS)


def test_the_definitions_of_this_version_have_exactly_its_fields() -> None:
    found = asyncio.run(gather(a_cluster(), "shop"))
    for each in found.definitions:
        assert each.fields == each.known, each.name


async def test_missing_definitions_are_read_as_such() -> None:
    found = await gather(a_cluster(crds=False), "shop")
    assert [each.fields for each in found.definitions] == [None] * len(KINDS)
    assert [each.level for each in judge_cluster(found)][: len(KINDS)] == [Level.FAIL] * len(KINDS)


class Refusing(MemoryCluster):
    """A cluster that shows us nothing."""

    def __init__(self, refusal: ApiRefused) -> None:
        super().__init__()
        self._refusal = refusal

    async def get(self, *_: Any, **__: Any) -> dict[str, Any]:
        raise self._refusal

    async def pages_of(self, *_: Any, **__: Any) -> AsyncIterator[tuple[list[Any], str]]:
        raise self._refusal
        yield


async def test_a_cluster_without_the_kind_has_no_queues() -> None:
    found = await gather(Refusing(ObjectNotFound("list", "taskqueues", 404, "no such resource")), "shop")
    assert [each.fields for each in found.definitions] == [None] * len(KINDS)
    assert found.queues == ()


async def test_what_the_rights_do_not_show_is_said_once_for_each_and_ends_nothing() -> None:
    found = await gather(Refusing(DENIED), "shop")
    assert len(found.unread) == len(KINDS) + 3
    assert {(each.level, each.check) for each in judge_cluster(found)} == {(Level.WARN, "cluster")}


async def test_a_cluster_that_cannot_be_asked_is_one_finding(tmp_path: Path) -> None:
    [finding] = await examine(tmp_path / "none", "shop")
    assert (finding.level, finding.check) == (Level.FAIL, "cluster")
    assert finding.hint


def test_the_command_looks_at_the_cluster_that_is_named(tmp_path: Path) -> None:
    terminal = a_terminal(interactive=False, environ={"KUBECONFIG": str(tmp_path / "none")})
    assert main(["doctor"], terminal) == 1
    connection, cluster = out(terminal).splitlines()
    assert connection.startswith("fail connection: ")
    assert cluster.startswith("fail cluster: ")


def test_a_command_without_the_operators_package_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CHECKUPS", "galley.none")
    terminal = a_terminal(interactive=False)
    assert main(["doctor", "--kubeconfig", str(tmp_path)], terminal) == 1
    assert "warn cluster: not looked at" in out(terminal)
    assert "galley-tasks[operator]" in out(terminal)
