"""What a worker's pod tells: where the worker stands in its life, and why it does not come up."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct, field

from galley.broker.control import Heartbeat
from galley_operator.fleet.fleet import WorkerPhase, WorkerView

DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
LEAVING_COST: Final = -1000
"""Deletion cost of those chosen to go; others have 0, unless their owner says otherwise."""

CONTAINER: Final = "worker"
"""Name of the container that is the worker; others may be put beside it by a mesh."""

_PULLING: Final = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
}
_CONFIGURATION: Final = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_OUT_OF_MEMORY: Final = "OOMKilled"
_CANNOT_START: Final = 3
"""Exit code of a worker that knows why it cannot work, and has said so."""

_LONGEST: Final = 600
_LONGEST_EXPLANATION: Final = 3000


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


class PodSpec(Struct, frozen=True, rename="camel"):
    """Where it was placed."""

    node_name: str = ""


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


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why workers do not come up."""

    reason: str
    """As one word in CamelCase."""
    message: str
    """As a sentence that says what to do."""


def trouble_of(pod: Pod) -> Trouble | None:
    """Return what keeps a pod's worker from working; None if nothing is known of that kind."""
    container = pod.container
    if (waiting := container.state.waiting) is not None and waiting.reason in _PULLING:
        return Trouble(
            "ImagePullFailed",
            f"the image of {pod.name} cannot be pulled: {_clipped(waiting.message or waiting.reason)}; "
            "check spec.worker.image, and spec.worker.template.imagePullSecrets if it is private",
        )
    if waiting is not None and waiting.reason in _CONFIGURATION:
        return Trouble(
            "ContainerNotCreated",
            f"worker {pod.name} cannot be started: {_clipped(waiting.message or waiting.reason)}; "
            "check what spec.worker.template and spec.worker.code refer to",
        )
    if (end := end_of(pod)) is not None:
        return end
    for condition in pod.status.conditions:
        if condition.type == "PodScheduled" and condition.status == "False":
            return Trouble(
                "Unschedulable",
                f"worker {pod.name} finds no node: {_clipped(condition.message)}; add nodes, or lower "
                "spec.worker.template.resources.requests",
            )
    return None


def end_of(pod: Pod) -> Trouble | None:
    """Return how a pod's worker ended the last time; None if it never did, as far as is known."""
    container = pod.container
    ended = container.state.terminated or container.last_state.terminated
    if ended is not None and ended.reason == _OUT_OF_MEMORY:
        return _of_end(pod, ended)
    if not pod.active and (evicted := _eviction_of(pod)) is not None:
        return evicted
    if ended is not None and (container.restart_count or container.state.running is None):
        return _of_end(pod, ended)
    return None


def _eviction_of(pod: Pod) -> Trouble | None:
    """Return why the cluster took a pod away; None if it did not."""
    name, status = pod.name, pod.status
    if status.reason == "Evicted":
        why = _clipped(status.message) or "no reason was given"
        return Trouble(
            "Evicted",
            f"worker {name} was evicted by its node: {why}; raise "
            "spec.worker.template.resources.requests, or write less to the pod's disk",
        )
    for condition in status.conditions:
        if condition.type == "DisruptionTarget" and condition.status == "True":
            said = f" ({_clipped(condition.message)})" if condition.message else ""
            return Trouble(
                "Evicted",
                f"worker {name} was evicted: {condition.reason}{said}; if it had too little time, raise "
                "spec.worker.gracePeriodSeconds",
            )
    return None


def _of_end(pod: Pod, ended: Terminated) -> Trouble:
    name = pod.name
    if ended.reason == _OUT_OF_MEMORY:
        return Trouble(
            "OutOfMemory",
            f"worker {name} was killed for want of memory (OOMKilled); raise "
            "spec.worker.template.resources.limits.memory, or lower spec.worker.concurrency",
        )
    if ended.exit_code == _CANNOT_START and (said := _explanation(ended.message)):
        return Trouble("WorkerCannotStart", f"worker {name} cannot start: {said}")
    said = _last_words(ended.message)
    words = f"; its last words: {said}" if said else ""
    return Trouble(
        "WorkerCrashed",
        f"worker {name} ended with exit code {ended.exit_code}{words}; "
        f"kubectl logs {name} --namespace {pod.metadata.namespace} --previous tells more",
    )


def _explanation(message: str) -> str:
    """Return what a worker wrote of why it cannot start: a sentence, and perhaps the end of a traceback.

    Where it could not write that, Kubernetes took the end of its log instead.
    """
    if message.rstrip().endswith("}"):
        return _last_words(message)
    text = message.strip()
    return text if len(text) <= _LONGEST_EXPLANATION else f"{text[: _LONGEST_EXPLANATION - 1]}…"


def _last_words(message: str) -> str:
    """Return the last line of what a container left, and of a log line as JSON its error."""
    lines = [line for line in message.splitlines() if line.strip()]
    if not lines:
        return ""
    try:
        line = msgspec.json.decode(lines[-1])
        said = str(line.get("error") or line.get("event"))
    except (msgspec.DecodeError, AttributeError):
        said = lines[-1]
    return _clipped(said)


def phase_of(pod: Pod, beat: Heartbeat | None, *, stuck: bool) -> WorkerPhase:
    """Return where a pod's worker stands, whether or not it was chosen to go.

    Args:
        pod: as it was seen last.
        beat: the last heartbeat of the life its container is in; None if there was none.
        stuck: whether it has been coming up for longer than any should.
    """
    if not pod.active:
        return WorkerPhase.STOPPING
    up = pod.container.state.running is not None
    if up and beat is not None and (beat.draining or beat.ready):
        return WorkerPhase.DRAINING if beat.draining else WorkerPhase.READY
    if up and beat is None and pod.ready:
        return WorkerPhase.READY
    failed = stuck or pod.container.restart_count > 0 or trouble_of(pod) is not None
    return WorkerPhase.FAILED if failed else WorkerPhase.STARTING


def view_of(
    pod: Pod,
    phase: WorkerPhase,
    beat: Heartbeat | None,
    *,
    fresh: bool,
    slots: int,
    now: datetime,
    heard: datetime | None = None,
) -> WorkerView:
    """Return a pod's worker as the autoscaler sees it.

    Args:
        pod: as it was seen last.
        phase: where it stands.
        beat: its last heartbeat.
        fresh: whether that was lately.
        slots: what the queue gives each worker.
        now: what stands for its start where that is not known.
        heard: when its last heartbeat was heard.
    """
    known = beat is not None and fresh
    return WorkerView(
        pod.name,
        phase,
        beat.busy if beat is not None and known else None,
        beat.slots if beat is not None else slots,
        pod.since or now,
        beat.done if beat is not None else 0,
        beat.busy_seconds if beat is not None else 0.0,
        beat is not None and beat.circuit_open,
        heard,
    )


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


def _clipped(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
