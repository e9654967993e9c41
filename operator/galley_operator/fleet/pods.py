"""Pods of workers as the API server shows them, and in which order a ReplicaSet removes them."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct, field

DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
LEAVING_COST: Final = -1000
"""Deletion cost of those chosen to go; others have 0, unless their owner says otherwise."""

CONTAINER: Final = "worker"
"""Name of the container that is the worker; others may be put beside it by a mesh."""


class Owner(Struct, frozen=True):
    """What an object belongs to."""

    uid: str = ""


class Metadata(Struct, frozen=True, rename="camel"):
    """Of a pod or a Deployment."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: list[Owner] = []


class Waiting(Struct, frozen=True):
    """A container that does not run, yet or again."""

    reason: str = ""
    message: str = ""


class Running(Struct, frozen=True, rename="camel"):
    """A container that runs."""

    started_at: datetime | None = None


class Terminated(Struct, frozen=True, rename="camel"):
    """A container that ended."""

    exit_code: int = 0
    finished_at: datetime | None = None
    reason: str = ""
    message: str = ""


class ContainerState(Struct, frozen=True):
    """One of the three."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Struct, frozen=True, rename="camel"):
    """One container of a pod."""

    name: str
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodCondition(Struct, frozen=True):
    """Something that is true of a pod or a Deployment, or not."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class PodStatus(Struct, frozen=True, rename="camel"):
    """What the kubelet and the scheduler say."""

    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    conditions: list[PodCondition] = []
    container_statuses: list[ContainerStatus] = []


class Resources(Struct, frozen=True):
    """What a container requests of its node, and its upper bounds."""

    requests: dict[str, str] = {}
    limits: dict[str, str] = {}


class Container(Struct, frozen=True):
    """One container of a pod."""

    resources: Resources = Resources()


class PodSpec(Struct, frozen=True, rename="camel"):
    """Where it was placed, and what it requests there."""

    node_name: str = ""
    containers: list[Container] = []


class Pod(Struct, frozen=True):
    """A pod, of which only what is needed here is read."""

    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = field(default_factory=PodStatus)

    @property
    def name(self) -> str:
        """Its name, which is the worker's."""
        return self.metadata.name

    @property
    def uid(self) -> str:
        """Its identity."""
        return self.metadata.uid

    @property
    def active(self) -> bool:
        """Whether its ReplicaSet counts it."""
        ended = self.status.phase in ("Succeeded", "Failed")
        return not ended and self.metadata.deletion_timestamp is None

    @property
    def placed(self) -> bool:
        """Whether it takes room on a node, be it that it is about to end."""
        return bool(self.spec.node_name) and self.status.phase not in ("Succeeded", "Failed")

    @property
    def ready(self) -> bool:
        """Whether the kubelet calls it ready."""
        return _true(self.status.conditions, "Ready")

    @property
    def container(self) -> ContainerStatus:
        """The worker's container, as far as it is known."""
        found = (each for each in self.status.container_statuses if each.name == CONTAINER)
        return next(found, ContainerStatus(CONTAINER))

    @property
    def cost(self) -> int:
        """Its deletion cost."""
        try:
            return int(self.metadata.annotations.get(DELETION_COST, "0"))
        except ValueError:
            return 0

    @property
    def since(self) -> datetime | None:
        """When the worker in it was started."""
        running = self.container.state.running
        if self.container.restart_count and running is not None:
            return running.started_at
        return self.metadata.creation_timestamp


def removal_order(pods: Iterable[Pod], leaving: Iterable[str] = ()) -> list[Pod]:
    """Return pods in the order in which a ReplicaSet takes them away, as far as that is promised.

    Unassigned ones first, then those pending, then those not ready, then by deletion cost
    (kubernetes: pkg/controller/controller_utils.go, ActivePodsWithRanks).

    Args:
        pods: active ones.
        leaving: uids of those whose deletion cost was lowered, if the pods do not show it yet.
    """
    chosen = frozenset(leaving)
    return sorted(pods, key=lambda pod: removal_rank(pod, chosen))


def removal_rank(pod: Pod, leaving: frozenset[str] = frozenset()) -> tuple[bool, int, bool, int]:
    """Return the sort key of `removal_order`; among equals nothing is promised."""
    cost = LEAVING_COST if pod.metadata.uid in leaving else pod.cost
    pending = {"Pending": 0, "Unknown": 1}.get(pod.status.phase, 2)
    return bool(pod.spec.node_name), pending, pod.ready, cost


def would_go_first(chosen: Sequence[Pod], others: Sequence[Pod], leaving: frozenset[str]) -> bool:
    """Return whether a ReplicaSet that removes as many pods as are chosen removes exactly those."""
    if not chosen or not others:
        return True
    last = max(removal_rank(pod, leaving) for pod in chosen)
    return last < min(removal_rank(pod, leaving) for pod in others)


def _true(conditions: Iterable[PodCondition], kind: str) -> bool:
    return any(each.type == kind and each.status == "True" for each in conditions)
