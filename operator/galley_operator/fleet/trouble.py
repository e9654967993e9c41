"""Why a worker's pod does not come up, or how it ended, as its pod tells."""

from dataclasses import dataclass
from typing import Final

import msgspec

from galley.unreadable import UNREADABLE
from galley_operator.fleet.pods import Pod, Terminated

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
        why = _clipped(status.message).removesuffix(".") or "no reason was given"
        volume = "emptydir" in why.lower()
        more = "the sizeLimit of that volume" if volume else "spec.worker.template.resources.requests"
        return Trouble(
            "Evicted",
            f"worker {name} was evicted by its node: {why}; raise {more}, or write less to the pod's disk",
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
    except (*UNREADABLE, AttributeError):
        said = lines[-1]
    return _clipped(said)


def _clipped(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
