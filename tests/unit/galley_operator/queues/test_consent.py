from typing import Any

import pytest

from galley_operator.cluster.ownership import USABLE_LABEL
from galley_operator.cluster.resource import CLAIMS, SECRETS, SERVICEACCOUNTS, Resource
from galley_operator.errors import (
    AccountNotAllowed,
    InitContainersNotAllowed,
    OperatorError,
    ReferenceNotAllowed,
)
from galley_operator.queues.consent import check_consent, check_pods
from galley_operator.queues.pod import pod_template
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


EVERY: dict[str, Any] = {
    "serviceAccountName": "account",
    "imagePullSecrets": [{"name": "registry"}],
    "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "variable", "key": "k"}}}],
    "envFrom": [{"secretRef": {"name": "all"}}],
    "volumes": [
        {"name": "a", "secret": {"secretName": "files"}},
        {"name": "b", "persistentVolumeClaim": {"claimName": "claim"}},
    ],
    "initContainers": [
        {"name": "i", "env": [{"name": "B", "valueFrom": {"secretKeyRef": {"name": "first", "key": "k"}}}]}
    ],
}


async def test_all_that_pods_name_needs_consent_for_as_long_as_they_are_started() -> None:
    cluster = MemoryCluster()
    spec: dict[str, Any] = {
        "encryption": {"secretName": "keys"},
        "handlers": {"http": [{"name": "h", "url": "https://a.example/h", "secretName": "signing"}]},
    }
    queue = a_task_queue("shop", worker={"template": EVERY}, **spec)
    names = {
        SERVICEACCOUNTS: ["account"],
        SECRETS: ["registry", "variable", "all", "files", "first", "keys", "signing"],
        CLAIMS: ["claim"],
    }
    for resource, each in names.items():
        for name in each:
            cluster.put(resource, {"metadata": {"name": name, "namespace": "shop", "labels": dict(ALLOWED)}})
    await check_consent(cluster, queue, init_containers=True)
    pod = pod_template(
        queue, server="nats://n", image="i", manifest_digest="", code_digest="", credentials=True
    )["spec"]
    name = queue.metadata.name
    await check_pods(cluster, "shop", name, pod)
    for resource, each in names.items():
        for thing in each:
            labels = cluster.objects[resource.plural, "shop", thing]["metadata"]["labels"]
            labels[USABLE_LABEL] = "no"
            with pytest.raises((ReferenceNotAllowed, AccountNotAllowed), match=thing):
                await check_pods(cluster, "shop", name, pod)
            labels[USABLE_LABEL] = "allowed"


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
