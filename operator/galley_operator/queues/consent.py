"""Whether a queue may use objects of its namespace that it did not make.

Who may create a TaskQueue may not necessarily read every Secret of its namespace, so their owners consent
by a label. It is checked before the queue's objects are applied, and before its Deployment starts more pods.
When a label is removed, no worker starts, and those there finish their tasks.
"""

from collections.abc import Collection, Iterator
from typing import Any, Final

from galley.broker.permissions import Role
from galley.resources import TaskQueue
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ObjectNotFound
from galley_operator.cluster.ownership import NO_LABEL, allows_use
from galley_operator.cluster.resource import CLAIMS, SECRETS, SERVICEACCOUNTS, Resource
from galley_operator.credentials.queue_secrets import secret_name
from galley_operator.errors import (
    AccountNotAllowed,
    InitContainersNotAllowed,
    ReferenceNotAllowed,
    UrlNotAllowed,
)
from galley_operator.fleet.names import child_name
from galley_operator.queues.url_rule import allows

_NOT_THERE: Final = "it does not exist"


async def check_consent(
    cluster: Cluster, queue: TaskQueue, *, init_containers: bool, urls: Collection[str] = ()
) -> set[str]:
    """Return the Secrets that may be missing and are; raise the first thing used without consent.

    Pods must not name what is missing: the kubelet would give it to them once it is there, with or without
    the label.

    Args:
        cluster: the API server.
        queue: the queue.
        init_containers: whether this installation allows them.
        urls: beginnings of URLs that HTTP handlers may have; any if empty.

    Raises:
        AccountNotAllowed: its ServiceAccount is not labelled for workers.
        ReferenceNotAllowed: a Secret or PersistentVolumeClaim is not.
        InitContainersNotAllowed: the installation does not allow init containers.
        UrlNotAllowed: the installation does not allow the URL of a handler.
        ClusterError: if that cannot be read.
    """
    template, namespace = queue.spec.worker.template, queue.metadata.namespace
    if template.init_containers and not init_containers:
        raise InitContainersNotAllowed(queue.metadata.name)
    for handler in queue.spec.handlers.http:
        if not allows(urls, handler.url):
            raise UrlNotAllowed(queue.metadata.name, handler.name, handler.url, ", ".join(urls))
    account = template.service_account_name
    if account is not None and (problem := await _problem(cluster, SERVICEACCOUNTS, namespace, account)):
        raise AccountNotAllowed(account, namespace, problem)
    secrets = set(template.secrets())
    if queue.spec.encryption is not None:
        secrets.add((queue.spec.encryption.secret_name, False))
    secrets |= {(handler.secret_name, False) for handler in queue.spec.handlers.http}
    # Handlers do not read these, but are in the image: who names it reads all that its registry keeps.
    secrets |= {(each.name, False) for each in template.image_pull_secrets}
    missing: set[str] = set()
    for resource, names in ((SECRETS, secrets), (CLAIMS, template.claims())):
        for name, optional in sorted(names):
            problem = await _problem(cluster, resource, namespace, name)
            if optional and problem == _NOT_THERE:
                missing.add(name)
            elif problem:
                raise ReferenceNotAllowed(resource.kind, name, namespace, problem)
    return missing


async def check_pods(cluster: Cluster, namespace: str, queue: str, pod: dict[str, Any]) -> None:
    """Return if pods of a queue that is there may still use what they name.

    Args:
        cluster: the API server.
        namespace: of the queue.
        queue: its name.
        pod: the spec of its pods, as they were allowed once.

    Raises:
        AccountNotAllowed, ReferenceNotAllowed: as `check_consent`.
        ClusterError: if that cannot be read.
    """
    own = {(SERVICEACCOUNTS, child_name(queue)), (SECRETS, secret_name(Role.WORKER, queue))}
    for resource, name in sorted(set(_used_by(pod)) - own, key=lambda each: (each[0].kind, each[1])):
        if problem := await _problem(cluster, resource, namespace, name):
            if resource is SERVICEACCOUNTS:
                raise AccountNotAllowed(name, namespace, problem)
            raise ReferenceNotAllowed(resource.kind, name, namespace, problem)


def _used_by(pod: dict[str, Any]) -> Iterator[tuple[Resource, str]]:
    """Yield the objects that pods name and that need consent."""
    if account := pod.get("serviceAccountName"):
        yield SERVICEACCOUNTS, account
    for each in pod.get("imagePullSecrets") or ():
        yield SECRETS, each["name"]
    for each in pod.get("volumes") or ():
        if secret := each.get("secret"):
            yield SECRETS, secret["secretName"]
        if claim := each.get("persistentVolumeClaim"):
            yield CLAIMS, claim["claimName"]
    for container in (*(pod.get("initContainers") or ()), *(pod.get("containers") or ())):
        named = [(each.get("valueFrom") or {}).get("secretKeyRef") for each in container.get("env") or ()]
        named += [each.get("secretRef") for each in container.get("envFrom") or ()]
        for reference in filter(None, named):
            yield SECRETS, reference["name"]


async def _problem(cluster: Cluster, resource: Resource, namespace: str, name: str) -> str:
    try:
        found = await cluster.get(resource, namespace, name)
    except ObjectNotFound:
        return _NOT_THERE
    return "" if allows_use(found) else NO_LABEL
