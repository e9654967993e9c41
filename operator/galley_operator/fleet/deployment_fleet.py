"""The workers of one queue as pods of a Deployment.

What is seen is the pods, joined with the heartbeats of the workers in them. Workers go in four steps: they
drain over NATS (an expiring lease, as everywhere), their deletion cost is lowered, and a second later
`spec.replicas` is, by exactly that many and only if nothing changed meanwhile. A ReplicaSet takes pods that
are pending or not ready before any deletion cost counts; so where it would take others than those
chosen, nothing is done. Should it take a wrong one all the same, that one drains by SIGTERM and hands back.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Protocol, Self

import msgspec

from galley.broker.connection import Broker
from galley.broker.control import Heartbeat, Request, Verb, ask_workers, hearing
from galley.failpoint import failpoint
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ObjectConflict, ObjectInvalid, ObjectNotFound
from galley_operator.cluster.resource import DEPLOYMENTS, PODS
from galley_operator.errors import FleetRefused, FleetUnknown
from galley_operator.fleet.deployment import Deployment, newer
from galley_operator.fleet.fleet import WorkerPhase, WorkerView, Workforce, removable
from galley_operator.fleet.pods import DELETION_COST, LEAVING_COST, Pod, removal_order, would_go_first
from galley_operator.fleet.trouble import Trouble, trouble_of
from galley_operator.fleet.view import phase_of, view_of

log = logging.getLogger(__name__)

AUTOSCALER: Final = "galley-autoscaler"
"""Who owns `spec.replicas` of a queue's Deployment, and nothing else of it."""

SILENT_SECONDS: Final = 3.5
"""Three heartbeats that did not come: what was said before is no longer known."""

STUCK_SECONDS: Final = 120.0
"""Who has been coming up for longer is taken for one that will not; a large image takes a minute."""

SETTLE_SECONDS: Final = 1.0
"""Between deletion cost and replicas, since they travel to the ReplicaSet's controller by different ways."""


class Sight(Protocol):
    """What is known of the Deployment and the pods of a queue."""

    def deployment(self) -> Deployment | None:
        """Return the Deployment; None if there is none.

        Raises:
            FleetUnknown: if that is not known.
        """
        ...

    def pods(self) -> Sequence[Pod]:
        """Return all pods of the queue.

        Raises:
            FleetUnknown: if they are not known.
        """
        ...


@dataclass(slots=True)
class _Beat:
    """The last heartbeat of a worker, and in which life of its container it was heard."""

    beat: Heartbeat
    at: float
    life: tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Look:
    """All there is at one moment."""

    deployment: Deployment
    present: tuple[tuple[Pod, WorkerView], ...]
    """Pods that count, and their workers."""
    stopping: tuple[WorkerView, ...]
    missing: tuple[WorkerView, ...]
    """Workers that were asked for and have no pod yet."""
    trouble: Trouble | None

    @property
    def views(self) -> list[WorkerView]:
        return [*(view for _, view in self.present), *self.missing]

    @property
    def workforce(self) -> Workforce:
        problem = self.trouble.message if self.trouble is not None else ""
        return Workforce((*self.views, *self.stopping), problem, self.deployment.rolling)


class DeploymentFleet:
    """A `galley_operator.fleet.fleet.Fleet` of pods. Use it as `async with`; leaving it ends no worker."""

    def __init__(
        self,
        broker: Broker,
        cluster: Cluster,
        sight: Sight,
        queue: tuple[str, str],
        *,
        deployment: str,
        slots: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Args: queue: its namespace and its name; deployment: the name of the Deployment."""
        self._broker, self._cluster, self._sight, self._clock = broker, cluster, sight, clock
        self._namespace, self._queue = queue
        self._name = deployment
        self.slots = slots
        """Attempts one worker runs; may be changed at any time."""
        self._beats: dict[str, _Beat] = {}
        self._applied: Deployment | None = None
        self._leaving: frozenset[str] = frozenset()
        self.overridden: tuple[int, int, float] | None = None
        """The replicas that another client set last, those set before, and when it was seen, by the loop's
        clock."""
        self._first_seen: dict[str, float] = {}
        self._missing_since: float | None = None
        self._scaled_at: datetime | None = None
        self._writing = asyncio.Lock()
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Begin to listen to the workers.

        Raises:
            BrokerUnreachable: if the connection is closed.
        """
        await self._open.enter_async_context(hearing(self._broker, self._namespace, self._queue, self._hear))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.__aexit__(kind, error, trace)

    @property
    def trouble(self) -> Trouble | None:
        """Why workers do not come up, if they do not.

        Raises:
            FleetUnknown: if that is not known.
        """
        return self._look().trouble

    async def observe(self) -> Workforce:
        """Return the workers as they are now.

        Raises:
            FleetUnknown: if the API server did not tell lately, or there is no Deployment.
        """
        return self._look().workforce

    async def scale(self, workers: int) -> None:
        """Have so many workers.

        Raises:
            FleetRefused: if too few can go, or others would.
            FleetUnknown: if it is not known what there is, or it changed just now.
            ClusterError: if the API server does not do it.
        """
        async with self._writing:
            look = self._look()
            present = len(look.views)
            if workers == present == look.deployment.spec.replicas:
                return
            if workers >= present:
                await self._set_replicas(look.deployment, workers, precondition=False)
            else:
                await self._remove(look, workers)

    async def drain(self, names: Collection[str], seconds: float) -> None:
        """Ask workers to take no new tasks for so long; 0 ends that.

        Raises:
            BrokerUnreachable: if the connection is closed.
        """
        if names:
            request = Request(workers=tuple(names), seconds=seconds)
            await ask_workers(self._broker, self._namespace, self._queue, Verb.DRAIN, request)

    async def _remove(self, look: _Look, workers: int) -> None:
        surplus = len(look.views) - workers
        going = _going(look, surplus)
        if not look.deployment.settled or len(going) < surplus:
            raise FleetRefused(self._queue, len(look.views), workers, len(going))
        failpoint("scale_in.before_cost")
        if workers:  # else all go, and no cost says which
            await self._lower_cost(look, going)
            await asyncio.sleep(SETTLE_SECONDS)
        look = self._look()
        pods = {pod.name: pod for pod, view in look.present if removable(view)}
        chosen = [pods[name] for name in going if name in pods]
        staying = [pod for pod, _ in look.present if pod.name not in going]
        missing = {view.name for view in look.missing}
        complete = all(name in pods or name in missing for name in going)
        if not complete or not look.deployment.settled or not would_go_first(chosen, staying, self._leaving):
            raise FleetRefused(self._queue, len(look.views), workers, 0)
        failpoint("scale_in.before_replicas")
        await self._set_replicas(look.deployment, workers, precondition=True)

    async def _lower_cost(self, look: _Look, going: Collection[str]) -> None:
        """Say which pods are to go, and take it back of those that were and are not any more."""
        for pod, _ in look.present:
            if pod.name in going and pod.cost != LEAVING_COST:
                await self._annotate(pod, str(LEAVING_COST))
            elif pod.name not in going and pod.cost == LEAVING_COST:
                await self._annotate(pod, None)
        self._leaving = frozenset(pod.metadata.uid for pod, _ in look.present if pod.name in going)

    async def _annotate(self, pod: Pod, cost: str | None) -> None:
        body = {"metadata": {"uid": pod.metadata.uid, "annotations": {DELETION_COST: cost}}}
        try:
            await self._cluster.merge_patch(PODS, self._namespace, pod.name, body, manager=AUTOSCALER)
        except (ObjectNotFound, ObjectConflict):
            log.info("worker is gone before it was to go", extra={"worker": pod.name})

    async def _set_replicas(self, deployment: Deployment, replicas: int, *, precondition: bool) -> None:
        metadata: dict[str, Any] = {
            "namespace": self._namespace,
            "name": self._name,
            "uid": deployment.metadata.uid,
        }
        if precondition:
            metadata["resourceVersion"] = deployment.metadata.resource_version
        body = {"metadata": metadata, "spec": {"replicas": replicas}}
        try:
            applied = await self._cluster.apply(DEPLOYMENTS, body, manager=AUTOSCALER)
        except ObjectConflict as error:
            raise FleetUnknown(self._queue, "the Deployment changed at the same moment") from error
        except (ObjectNotFound, ObjectInvalid) as error:
            raise FleetUnknown(self._queue, f"Deployment {self._name} cannot be scaled: {error}") from error
        self._applied = msgspec.convert(applied, Deployment)
        self._scaled_at = self._clock()
        self._missing_since = None

    def _look(self) -> _Look:
        deployment = newer(self._sight.deployment(), self._applied)
        if deployment is None:
            raise FleetUnknown(self._queue, f"there is no Deployment {self._name} yet")
        now, moment = asyncio.get_running_loop().time(), self._clock()
        self._see_who_scales(deployment, now)
        pods = [pod for pod in self._sight.pods() if pod.active or pod.metadata.deletion_timestamp]
        self._forget_all_but(pods)
        seen = [(pod, self._view(pod, now, moment)) for pod in pods]
        active = removal_order((pod for pod in pods if pod.active), self._leaving)
        surplus = 0 if deployment.rolling else len(active) - deployment.spec.replicas
        leaving = {pod.name for pod in active[: max(0, surplus)]}
        present = tuple((pod, view) for pod, view in seen if pod.active and pod.name not in leaving)
        failing = deployment.trouble
        missing = self._missing(max(0, deployment.spec.replicas - len(active)), failing, now, moment)
        troubled = (
            trouble_of(pod) or _stuck(view, self._namespace)
            for pod, view in present
            if view.phase is WorkerPhase.FAILED
        )
        return _Look(
            deployment,
            present,
            tuple(
                replace(view, phase=WorkerPhase.STOPPING)
                for pod, view in seen
                if not pod.active or pod.name in leaving
            ),
            missing,
            failing or next(troubled, None),
        )

    def _see_who_scales(self, deployment: Deployment, now: float) -> None:
        """Note a number of replicas that is not ours, and count from it: it is told once."""
        before = self._applied or deployment
        if before.uid == deployment.uid and before.spec.replicas != deployment.spec.replicas:
            self.overridden = deployment.spec.replicas, before.spec.replicas, now
        self._applied = deployment

    def _view(self, pod: Pod, now: float, moment: datetime) -> WorkerView:
        heard = self._beats.get(pod.name)
        life = (pod.metadata.uid, pod.container.restart_count)
        beat = heard.beat if heard is not None and heard.life == life else None
        fresh = heard is not None and now - heard.at <= SILENT_SECONDS
        stuck = now - self._first_seen.setdefault(pod.metadata.uid, now) > STUCK_SECONDS
        phase = phase_of(pod, beat, stuck=stuck)
        at = moment - timedelta(seconds=now - heard.at) if heard is not None else None
        return view_of(pod, phase, beat, fresh=fresh, slots=self.slots, now=moment, heard=at)

    def _missing(
        self, number: int, trouble: Trouble | None, now: float, moment: datetime
    ) -> tuple[WorkerView, ...]:
        """Return workers that were requested and have no pods yet."""
        if number == 0:
            self._missing_since = None
            return ()
        if self._missing_since is None:
            self._missing_since = now
        failed = trouble is not None or now - self._missing_since > STUCK_SECONDS
        phase = WorkerPhase.FAILED if failed else WorkerPhase.STARTING
        since = self._scaled_at or moment
        return tuple(
            WorkerView(f"{self._name}-not-there-{each + 1}", phase, None, self.slots, since)
            for each in range(number)
        )

    def _forget_all_but(self, pods: Sequence[Pod]) -> None:
        names = {pod.name for pod in pods}
        uids = {pod.metadata.uid for pod in pods}
        self._beats = {name: beat for name, beat in self._beats.items() if name in names}
        self._first_seen = {uid: at for uid, at in self._first_seen.items() if uid in uids}

    def _hear(self, beat: Heartbeat) -> None:
        try:
            pod = next((each for each in self._sight.pods() if each.name == beat.worker), None)
        except FleetUnknown:
            return
        if pod is not None:
            now = asyncio.get_running_loop().time()
            self._beats[beat.worker] = _Beat(beat, now, (pod.metadata.uid, pod.container.restart_count))


def _going(look: _Look, surplus: int) -> list[str]:
    """Return who goes: the failed first, then the drained, the youngest first."""
    candidates = [view for view in look.views if removable(view)]
    candidates.sort(key=lambda view: (view.phase is not WorkerPhase.FAILED, -view.since.timestamp()))
    return [view.name for view in candidates[:surplus]]


def _stuck(view: WorkerView, namespace: str) -> Trouble:
    """Return what is said of a worker that does not come up for no reason the cluster tells."""
    return Trouble(
        "WorkerNotReady",
        f"worker {view.name} does not come up; "
        f"kubectl describe pod {view.name} --namespace {namespace} tells more",
    )
