from typing import Any

import pytest

from galley_operator.cluster.resource import CLAIMS, SECRETS, SERVICEACCOUNTS, Resource
from galley_operator.errors import (
    AccountNotAllowed,
    InitContainersNotAllowed,
    OperatorError,
    ReferenceNotAllowed,
)
from galley_operator.fleet.names import USABLE_LABEL
from galley_operator.queues.consent import check_consent
from tests.support.memory_cluster import MemoryCluster
from tests.support.workers import a_task_queue

ALLOWED = {USABLE_LABEL: "allowed"}
PARTS: dict[Resource, dict[str, Any]] = {
    SERVICEACCOUNTS: {"serviceAccountName": "thing"},
    SECRETS: {"envFrom": [{"secretRef": {"name": "thing"}}]},
    CLAIMS: {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "thing"}}]},
}


async def check(template: dict[str, Any], resource: Resource, labels: dict[str, str] | None) -> set[str]:
    """Check a queue in a namespace where `thing` has those labels; with None, it is not there."""
    cluster = MemoryCluster()
    if labels is not None:
        cluster.put(resource, {"metadata": {"name": "thing", "namespace": "shop", "labels": labels}})
    queue = a_task_queue("shop", worker={"template": template})
    return await check_consent(cluster, queue, init_containers=False)


@pytest.mark.parametrize("resource", PARTS, ids=lambda each: each.plural)
async def test_what_its_owner_labelled_may_be_used(resource: Resource) -> None:
    await check(PARTS[resource], resource, ALLOWED)


@pytest.mark.parametrize("labels", [{}, {USABLE_LABEL: "denied"}, {USABLE_LABEL: ""}, None])
@pytest.mark.parametrize(
    ("resource", "error"),
    [
        (SERVICEACCOUNTS, AccountNotAllowed),
        (SECRETS, ReferenceNotAllowed),
        (CLAIMS, ReferenceNotAllowed),
    ],
    ids=lambda each: getattr(each, "plural", ""),
)
async def test_all_else_may_not(
    resource: Resource, error: type[OperatorError], labels: dict[str, str] | None
) -> None:
    with pytest.raises(error, match="thing"):
        await check(PARTS[resource], resource, labels)


async def test_a_secret_that_may_be_missing_still_needs_the_label_where_it_is_not() -> None:
    optional = {"envFrom": [{"secretRef": {"name": "thing", "optional": True}}]}
    assert await check(optional, SECRETS, None) == {"thing"}
    assert await check(optional, SECRETS, ALLOWED) == set()
    with pytest.raises(ReferenceNotAllowed):
        await check(optional, SECRETS, {})


@pytest.mark.parametrize("labels", [{}, None])
async def test_an_image_is_pulled_with_no_secret_whose_owner_did_not_consent(
    labels: dict[str, str] | None,
) -> None:
    pulls = {"imagePullSecrets": [{"name": "thing"}]}
    assert await check(pulls, SECRETS, ALLOWED) == set()
    with pytest.raises(ReferenceNotAllowed, match="thing"):
        await check(pulls, SECRETS, labels)


async def test_init_containers_need_the_consent_of_the_installation() -> None:
    template = {"initContainers": [{"name": "first", "image": "busybox"}]}
    queue = a_task_queue("shop", worker={"template": template})
    with pytest.raises(InitContainersNotAllowed):
        await check_consent(MemoryCluster(), queue, init_containers=False)
    await check_consent(MemoryCluster(), queue, init_containers=True)


@pytest.mark.parametrize(
    "spec",
    [
        {"encryption": {"secretName": "thing"}},
        {"handlers": {"http": [{"name": "a", "url": "https://x/", "secretName": "thing"}]}},
    ],
    ids=["encryption", "signatures"],
)
async def test_a_secret_with_keys_needs_the_label_too(spec: dict[str, Any]) -> None:
    queue, cluster = a_task_queue("shop", **spec), MemoryCluster()
    unlabelled: tuple[dict[str, str] | None, ...] = (None, {})
    for labels in unlabelled:
        if labels is not None:
            cluster.put(SECRETS, {"metadata": {"name": "thing", "namespace": "shop", "labels": labels}})
        with pytest.raises(ReferenceNotAllowed, match="thing"):
            await check_consent(cluster, queue, init_containers=False)
    cluster.put(SECRETS, {"metadata": {"name": "thing", "namespace": "shop", "labels": ALLOWED}})
    await check_consent(cluster, queue, init_containers=False)
