"""Reconciles a queue's streams and objects; safe to repeat at any time."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.errors import GalleyError
from galley.resources import TaskQueue
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ClusterError, ObjectNotFound
from galley_operator.cluster.ownership import NO_LABEL, check_owner
from galley_operator.cluster.resource import CONFIGMAPS, DEPLOYMENTS, PODS, Resource
from galley_operator.credentials.client_tls import ClientTls
from galley_operator.credentials.queue_secrets import QueueSecrets
from galley_operator.errors import AccountNotAllowed, CodeNotFound, NamespaceReserved, ReferenceNotAllowed
from galley_operator.fleet.deployment_fleet import AUTOSCALER
from galley_operator.fleet.names import OPERATOR, child_name, selector_of
from galley_operator.fleet.pods import Pod
from galley_operator.queues.children import Making, children_of, digest, metadata_of
from galley_operator.queues.consent import check_consent, check_pods
from galley_operator.queues.pod import with_resources, without_secrets
from galley_operator.queues.quota import Reservations
from galley_operator.settings import OperatorSettings
from galley_operator.tasks.known_queues import QueueObject

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """How far a queue is reconciled."""

    streams: GalleyError | None = None
    children: GalleyError | None = None
    restored: str = ""
    """What had happened to the Deployment, as a verb, and was undone; empty if nothing had."""
    withdrawn: GalleyError | None = None
    """What the pods that its Deployment starts may not use any more."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.streams is None and self.children is None


class Reconciler:
    """Reads a queue, and writes what it asks for: first its streams, then what runs its workers."""

    def __init__(  # noqa: PLR0917 - what it is made of
        self,
        cluster: Cluster,
        broker: Broker,
        settings: OperatorSettings,
        secrets: QueueSecrets | None = None,
        tls: Callable[[], ClientTls | None] = lambda: None,
        reservations: Reservations | None = None,
    ) -> None:
        """Describe where queues get from what their workers need.

        Args:
            cluster: where their objects are.
            broker: where their streams are.
            settings: of the operator.
            secrets: where they get their credentials from; None if NATS requires none.
            tls: returns what workers need to encrypt connections; None if they do not.
            reservations: for all who set bytes aside; these queues alone when left out.
        """
        self._cluster, self._broker, self._settings = cluster, broker, settings
        self._secrets, self._tls = secrets, tls
        self._reservations = reservations or Reservations(broker, settings.quotas)
        self._made: dict[str, dict[str, Any]] = {}
        """The Deployment of each queue as it was applied last, by the queue's uid."""

    async def reconcile(self, found: QueueObject) -> Reconciled:
        """Make streams and objects so; what cannot be done is in the outcome, and left as it was.

        Workers follow the streams: a queue whose streams belong to another installation must have none, and
        one that gives up a lane keeps those that serve it until the lane is empty.
        """
        if found.queue is None:
            return Reconciled(children=found.problem)
        if found.queue.metadata.namespace == self._settings.reserved_namespace:
            return Reconciled(children=NamespaceReserved(found.queue.metadata.namespace))
        try:
            layout = layout_of(found.queue, self._settings.install, found.uid)
            async with self._reservations.of_queue(layout):
                await ensure(self._broker, layout, self._settings.stream_replicas)
        except GalleyError as error:
            return Reconciled(streams=error)
        try:
            return Reconciled(restored=await self._make(found.queue, found.uid))
        except GalleyError as error:
            return Reconciled(children=error, withdrawn=await self._withdrawn(found))

    async def check_pods(self, namespace: str, name: str) -> None:
        """Return if the pods that the Deployment of a queue starts may still use what they name.

        Raises:
            AccountNotAllowed, ReferenceNotAllowed: if not.
            ClusterError: if that cannot be read.
        """
        try:
            deployment = await self._cluster.get(DEPLOYMENTS, namespace, child_name(name))
        except ObjectNotFound:
            return
        await check_pods(
            self._cluster, namespace, name, deployment["spec"].get("template", {}).get("spec", {})
        )

    async def _withdrawn(self, found: QueueObject) -> GalleyError | None:
        try:
            await self.check_pods(found.namespace, found.name)
        except (AccountNotAllowed, ReferenceNotAllowed) as error:
            # One that is missing is often made again soon, and until then no pod can read it.
            return error if error.problem == NO_LABEL else None
        except ClusterError:
            return None  # without an answer, no worker is started either
        return None

    def forget(self, uid: str) -> None:
        """Forget a queue that is gone."""
        self._made.pop(uid, None)

    async def _make(self, queue: TaskQueue, uid: str) -> str:
        """Make a queue's objects; returns what others had done to its Deployment since the last time."""
        missing = await check_consent(
            self._cluster, queue, init_containers=self._settings.allow_init_containers,
            urls=self._settings.allowed_handler_urls,
        )  # fmt: skip
        making = Making(
            without_secrets(with_resources(queue, self._settings.worker_resources), missing),
            uid,
            self._settings.worker_server or self._settings.server,
            self._settings.worker_image,
            await self._code_digest(queue),
            self._secrets is not None,
            self._tls(),
        )
        if self._secrets is not None:
            # Before the workers, whose pods wait for it; and in time, however long these take.
            await self._secrets.ensure(queue.metadata.namespace, queue.metadata.name, metadata_of(making))
        children = [
            (resource, body, await self._present(resource, body)) for resource, body in children_of(making)
        ]
        restored = ""
        for resource, body, present in children:
            if resource is not DEPLOYMENTS:
                await self._cluster.apply(resource, body, manager=OPERATOR)
                continue
            generation = await self._make_deployment(queue, body, present)
            if self._made.get(uid) == body:
                edited = present is not None and generation != present["metadata"].get("generation")
                restored = "deleted" if present is None else "changed" if edited else ""
            self._made[uid] = body
        return restored

    async def _present(self, resource: Resource, body: dict[str, Any]) -> dict[str, Any] | None:
        """Return a child as it is, or None if it does not exist.

        Raises:
            NameTaken: if the object of that name is not the queue's.
        """
        metadata = body["metadata"]
        try:
            present = await self._cluster.get(resource, metadata["namespace"], metadata["name"])
        except ObjectNotFound:
            return None
        check_owner(resource, present, metadata)
        return present

    async def _make_deployment(
        self, queue: TaskQueue, body: dict[str, Any], present: dict[str, Any] | None
    ) -> int | None:
        """Apply the Deployment without ever owning, or changing, the number of its replicas.

        Returns its generation.

        A field without an owner is reset to its default: 1. So the autoscaler owns it from the beginning, by
        an apply of its own before ours leaves it out.
        """
        namespace, name = queue.metadata.namespace, child_name(queue.metadata.name)
        if present is None:
            # Of a budget that queues share, only the autoscaler gives out workers, the first ones too.
            number = 0 if self._settings.budget.limited else queue.spec.scaled.fewest
            # Workers that a deleted Deployment left behind are adopted by this one, and may be busy.
            number = max(number, await self._orphans(queue))
            first = {**body, "spec": {**body["spec"], "replicas": number}}
            present = await self._cluster.apply(DEPLOYMENTS, first, manager=OPERATOR)
        if owners_of_replicas(present) <= {OPERATOR}:
            await self._cluster.apply(
                DEPLOYMENTS,
                {
                    "metadata": {"namespace": namespace, "name": name},
                    "spec": {"replicas": present["spec"].get("replicas", 1)},
                },
                manager=AUTOSCALER,
            )
        applied = await self._cluster.apply(DEPLOYMENTS, body, manager=OPERATOR)
        generation: int | None = applied["metadata"].get("generation")
        return generation

    async def _orphans(self, queue: TaskQueue) -> int:
        """Return how many pods of a queue there are; asked where it has no Deployment."""
        namespace, selector = queue.metadata.namespace, selector_of(queue.metadata.name)
        active = 0
        async for pods, _ in self._cluster.pages_of(Pod, PODS, namespace, labels=selector):
            active += sum(pod.active for pod in pods)
        return active

    async def _code_digest(self, queue: TaskQueue) -> str:
        """Return a name for the present state of a queue's code, so that a change of it replaces workers."""
        code = queue.spec.worker.code
        if code is None:
            return ""
        try:
            found = await self._cluster.get(CONFIGMAPS, queue.metadata.namespace, code.config_map_name)
        except ObjectNotFound:
            raise CodeNotFound(code.config_map_name, queue.metadata.namespace) from None
        content = [found.get(part) or {} for part in ("data", "binaryData")]
        return digest(json.dumps(content, sort_keys=True))


_REPLICAS: Final = "f:replicas"


def owners_of_replicas(deployment: dict[str, Any]) -> set[str]:
    """Return who owns the number of replicas of a Deployment."""
    return {
        entry.get("manager", "")
        for entry in deployment["metadata"].get("managedFields") or ()
        if _REPLICAS in (entry.get("fieldsV1") or {}).get("f:spec", {})
    }
