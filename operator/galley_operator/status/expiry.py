"""Deleting Tasks that ended long enough ago; their records remember them, so a re-apply runs none again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from msgspec import Struct, field

from galley.address import Kind, TaskAddress
from galley.broker.errors import BrokerUnreachable
from galley.errors import GalleyError
from galley.lanes import Lane
from galley.task_status import Phase
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import (
    ApiFailing,
    ClusterUnreachable,
    CredentialsRefused,
    ObjectConflict,
    ObjectNotFound,
    TooManyRequests,
)
from galley_operator.cluster.resource import TASKS

log = logging.getLogger(__name__)

EXPIRY_SECONDS: Final = 60.0
"""Time between two looks for Tasks whose time is over."""

DELETES_A_SECOND: Final = 50

_FOR_ALL: Final = ClusterUnreachable, ApiFailing, CredentialsRefused, TooManyRequests, BrokerUnreachable
"""Errors that are not about one Task: the look ends."""

_GITOPS_LABELS: Final = (
    "app.kubernetes.io/instance",  # Argo CD by default until 3.0, and Helm
    "argocd.argoproj.io/instance",
    "kustomize.toolkit.fluxcd.io/name",
    "helm.toolkit.fluxcd.io/name",
)
_GITOPS_ANNOTATIONS: Final = ("argocd.argoproj.io/tracking-id", "meta.helm.sh/release-name")


Remember: TypeAlias = Callable[[TaskAddress, str], Awaitable[None]]
"""Has the record of a task say that its Task object, of that uid, was deleted since its time was over."""


class _Metadata(Struct, frozen=True):
    name: str
    uid: str
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    deleted_at: datetime | None = field(default=None, name="deletionTimestamp")
    """When it was deleted, if it only waits for its finalizers."""


class _Spec(Struct, frozen=True, rename="camel"):
    queue_name: str = ""
    ttl_seconds_after_finished: int | None = None


class _Status(Struct, frozen=True, rename="camel"):
    phase: str = ""
    completion_time: datetime | None = None


class KeptSeconds(Struct, frozen=True):
    """How long Tasks that say nothing about it are kept after their end; None: for good."""

    ended: int | None = None
    """Those that succeeded or were cancelled."""
    failed: int | None = None
    """Those that failed: people look for these."""


class FinishedTask(Struct, frozen=True):
    """What is read of a Task that has ended."""

    metadata: _Metadata
    spec: _Spec = _Spec()
    status: _Status = _Status()


def kept_by_gitops(labels: Mapping[str, str], annotations: Mapping[str, str]) -> bool:
    """Return whether something would make an object again that is deleted, and so run its task again."""
    return any(label in labels for label in _GITOPS_LABELS) or any(
        annotation in annotations for annotation in _GITOPS_ANNOTATIONS
    )


def expires_at(task: FinishedTask, kept: KeptSeconds) -> datetime | None:
    """Return when a Task is to be deleted, or None if it is kept. What its spec says counts before all.

    Args:
        task: as it stands.
        kept: for Tasks that say nothing.
    """
    seconds = task.spec.ttl_seconds_after_finished
    if seconds is None and not kept_by_gitops(task.metadata.labels, task.metadata.annotations):
        seconds = kept.failed if task.status.phase == Phase.FAILED else kept.ended
    ended_at = task.status.completion_time
    return None if seconds is None or ended_at is None else ended_at + timedelta(seconds=seconds)


class Expiry:
    """Looks for finished Tasks whose time is over, for as long as `run` runs; only the leader runs it."""

    def __init__(
        self,
        cluster: Cluster,
        namespaces: tuple[str | None, ...],
        kept: KeptSeconds,
        remember: Remember,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Describe what to delete.

        Args:
            cluster: the API server.
            namespaces: where; None means everywhere.
            kept: how long Tasks that say nothing are kept.
            remember: is called before a Task is deleted, with its address and its uid.
            clock: the present time.
        """
        self.deleted = 0
        self._cluster, self._namespaces, self._kept = cluster, namespaces, kept
        self._remember, self._clock = remember, clock

    async def run(self, seconds: float = EXPIRY_SECONDS) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.once()
            except GalleyError as error:
                log.warning("expiry incomplete", extra={"error": str(error), "hint": error.hint})

    async def once(self) -> None:
        """Delete what is over by now."""
        for namespace in self._namespaces:
            for phase in Phase:
                if phase.ended:
                    pages = self._cluster.pages_of(
                        FinishedTask, TASKS, namespace, fields=f"status.phase={phase}"
                    )
                    async for page, _ in pages:
                        await self._delete(page)

    async def _delete(self, page: list[FinishedTask]) -> None:
        for task in page:
            at = expires_at(task, self._kept)
            if at is None or at > self._clock() or task.metadata.deleted_at is not None:
                continue
            try:
                await self._expire(task)
            except _FOR_ALL:
                raise
            except GalleyError as error:  # it costs this Task alone
                name = f"{task.metadata.namespace}/{task.metadata.name}"
                extra = {"task": name, "error": str(error), "hint": error.hint}
                log.warning("task not expired", extra=extra)

    async def _expire(self, task: FinishedTask) -> None:
        metadata = task.metadata
        address = TaskAddress(
            metadata.namespace, task.spec.queue_name, Lane.NORMAL, Kind.DIRECT, metadata.name
        )
        await self._remember(address, metadata.uid)
        try:
            await self._cluster.delete(TASKS, metadata.namespace, metadata.name, uid=metadata.uid)
        except (ObjectNotFound, ObjectConflict):
            return  # gone already, or made again under its name
        self.deleted += 1
        # A steady trickle, which other users of the API server should not notice.
        await asyncio.sleep(1 / DELETES_A_SECOND)
