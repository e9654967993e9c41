"""The main job on a cluster: `make demo-cluster`, or `python -m e2e.demo`.

Creates a cluster, loads the images, installs the chart, applies two queues and 19 tasks, and waits until the
tasks have ended and the workers are gone. With KEEP=1 the cluster stays, and the demo prints commands to try.
"""

import json
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from e2e.release import NAME, NAMESPACE, Release
from testcluster import choice, wait
from testcluster.cluster import Cluster
from testcluster.errors import ClusterError
from testcluster.images.build import archives
from testcluster.images.image import ROOT
from tests.support.kubectl import Kubectl

PLACE: Final = "demo"
EXAMPLES: Final = (
    ("-k", "examples/words"),
    ("-f", "examples/thumbnails/queue.yaml", "-f", "examples/thumbnails/tasks.yaml"),
)
_ENDED: Final = {"Succeeded", "Failed", "Cancelled"}
_ALL_DONE_SECONDS: Final = 180.0
_ALL_GONE_SECONDS: Final = 120.0


class DidNotHappen(ClusterError):
    """Something the demo waits for did not come; the message says how far it was."""


@dataclass(frozen=True)
class State:
    """What is there at one moment."""

    phases: Counter[str] = field(default_factory=Counter)
    """How many tasks are in each phase."""

    workers: dict[str, list[bool]] = field(default_factory=dict)
    """The pods of each queue, and whether each is ready."""

    def ended(self) -> bool:
        """Whether all tasks have."""
        return bool(self.phases) and set(self.phases) <= _ENDED

    def gone(self) -> bool:
        """Whether there are no workers."""
        return not any(self.workers.values())

    @property
    def words(self) -> str:
        """All of it in a line."""
        phases = ", ".join(f"{count} {phase}" for phase, count in sorted(self.phases.items()))
        workers = ", ".join(
            f"{queue} {len(ready)} ({sum(ready)} ready)" if ready else f"{queue} 0"
            for queue, ready in sorted(self.workers.items())
        )
        return f"workers: {workers:<44} tasks: {phases}"


def observed(kubectl: Kubectl) -> State:
    """Look once."""
    state = State()
    for thing in kubectl.get("taskqueues,tasks,pods", "--namespace", PLACE)["items"]:
        match thing["kind"]:
            case "TaskQueue":
                state.workers.setdefault(thing["metadata"]["name"], [])
            case "Task":
                state.phases[thing.get("status", {}).get("phase", "New")] += 1
            case "Pod" if queue := thing["metadata"]["labels"].get("galley.dev/queue"):
                state.workers.setdefault(queue, []).append(_ready(thing))
    return state


def _scaled(kubectl: Kubectl) -> list[str]:
    """Return what the operator told people of its decisions, oldest first."""
    events = kubectl.get("events", "--namespace", PLACE, "--field-selector", "reason=Scaled")["items"]
    events.sort(key=lambda event: event.get("eventTime") or event["metadata"]["creationTimestamp"])
    return [f"{event['involvedObject']['name']:<11} {event['message']}" for event in events]


def _ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


class Demo:
    """One run, told line by line, each with its time."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._began = time.monotonic()
        self._shown = ""

    def run(self) -> None:
        """Do all of it but the end of the cluster.

        Raises:
            ClusterError: if a step fails.
        """
        images = self._step("images", archives)
        self._step("cluster up", self._cluster.up)
        kubectl = Kubectl(self._cluster)
        for name, archive in images.items():
            self._step(f"image {name} to the node", partial(self._cluster.load_image, archive))
        self._step(
            f"helm install {NAME} charts/galley --namespace {NAMESPACE}", Release(self._cluster).install
        )
        kubectl("create", "namespace", PLACE)
        for words in EXAMPLES:
            command = ("apply", "--namespace", PLACE, *words)
            self._step(f"kubectl {' '.join(command)}", partial(self._apply, kubectl, command))
        self._watch(kubectl)
        self._print(kubectl("get", "taskqueues,tasks", "--namespace", PLACE))
        self._tell_of(kubectl, "goethe", "result")
        self._tell_of(kubectl, "thumbnail-of-a-poem", "error")
        self._print("\nwhy there were so many workers:")
        self._print("".join(f"  {line}\n" for line in _scaled(kubectl)))

    def _tell_of(self, kubectl: Kubectl, task: str, part: str) -> None:
        status = kubectl.get("task", task, "--namespace", PLACE)["status"]
        self._print(f"{task}, its {part}: {json.dumps(status.get(part), ensure_ascii=False)}")

    def _apply(self, kubectl: Kubectl, command: tuple[str, ...]) -> str:
        """Apply files of the repository."""
        return kubectl(*(str(ROOT / word) if word.startswith("examples/") else word for word in command))

    def _watch(self, kubectl: Kubectl) -> None:
        """Tell what changes until all tasks have ended, and until all workers are gone."""
        for what, done, seconds in (
            ("not all tasks ended", State.ended, _ALL_DONE_SECONDS),
            ("workers were not gone", State.gone, _ALL_GONE_SECONDS),
        ):
            state = State()

            def look(done: Callable[[State], bool] = done) -> bool:
                nonlocal state
                state = observed(kubectl)
                self._tell(state.words)
                return done(state)

            if not wait.until(look, seconds):
                raise DidNotHappen(f"{what} within {seconds:.0f} s: {state.words}", _HINT)

    def _tell(self, words: str) -> None:
        if words != self._shown:
            self._shown = words
            self._print(f"{self._time()}  {words}")

    def _step(self, what: str, do: Callable[[], Any]) -> Any:
        began = time.monotonic()
        answer = do()
        self._print(f"{self._time()}  {what}  ({time.monotonic() - began:.1f} s)")
        return answer

    def _time(self) -> str:
        return f"{time.monotonic() - self._began:6.1f} s"

    def _print(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


_HINT: Final = (
    "run it with KEEP=1 and look: kubectl describe taskqueues --namespace demo, "
    "kubectl logs --namespace galley-system deployment/galley-operator"
)


def main(state: Path) -> int:
    """Run the demo, remove the cluster or print what to try on it, and return the exit code."""
    keep = os.environ.get("KEEP", "") not in {"", "0"}
    code, began = 1, time.monotonic()
    try:
        cluster = choice.cluster(choice.wanted(), state, outlives_us=keep)
        try:
            Demo(cluster).run()
            code = 0
        finally:
            if not keep:
                cluster.down()
            elif cluster.kubeconfig.exists():
                sys.stdout.write(_next_steps(cluster, state))
    except ClusterError as error:
        sys.stderr.write(f"error: {error}\n")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the cluster was removed\n")
        return 130
    if not keep:
        sys.stdout.write(f"{time.monotonic() - began:6.1f} s  cluster down\n")
    return code


def _next_steps(cluster: Cluster, state: Path) -> str:
    """Return commands to try, which need nothing but this shell in this folder."""
    variables = {**cluster.environment, "PATH": f"{cluster.tool('kubectl').parent}:"}
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f"""\
The cluster is still running. To use it from this shell:

  export {exports}$PATH
  kubectl get taskqueues,tasks,pods --namespace demo
  kubectl describe taskqueue thumbnails --namespace demo
  kubectl delete task goethe --namespace demo && kubectl apply --namespace demo -k examples/words
  helm test galley --namespace galley-system
  {shlex.quote(str(Path(sys.prefix) / "bin" / "testcluster"))} down --state {shlex.quote(str(state))}
"""


if __name__ == "__main__":
    os.umask(0o022)  # containers read some of what is written
    sys.exit(main(choice.state_folder("demo")))
