"""A namespace on a cluster with Galley: what a test puts there, sees there, and waits for there."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from e2e import waits
from testcluster.errors import ClusterError
from tests.support.kubectl import Kubectl

Object = dict[str, Any]

_ENDED: Final = {"Succeeded", "Failed", "Cancelled"}
_WORKERS: Final = "app.kubernetes.io/name=galley-worker"
_SHOWN: Final = 5
_LOG_LINES: Final = 15


class Place:
    """One namespace."""

    def __init__(self, kubectl: Kubectl, namespace: str, galley: str) -> None:
        """Args: galley: the namespace of the release, whose pods are shown when something fails."""
        self.kubectl, self.namespace, self._galley = kubectl, namespace, galley

    def apply(self, *things: Object) -> None:
        """Apply objects."""
        self.kubectl.apply(*things, namespace=self.namespace)

    def get(self, *words: str) -> Object:
        """Return an object of this namespace, or a list with `items`."""
        return self.kubectl.get("-n", self.namespace, *words)

    def tasks(self) -> list[Object]:
        """Return all Tasks."""
        return list(self.get("tasks")["items"])

    def phases(self) -> Counter[str]:
        """Return how many Tasks are in each phase; `New` are those that were not looked at."""
        return Counter(task.get("status", {}).get("phase", "New") for task in self.tasks())

    def status(self, task: str) -> Object:
        """Return the status of a Task, empty as long as it has none."""
        return dict(self.get("task", task).get("status", {}))

    def queue(self, name: str = "drills") -> Object:
        """Return the status of a TaskQueue, empty as long as it has none."""
        return dict(self.get("taskqueue", name).get("status", {}))

    def workers(self, *, ready: bool = False) -> list[Object]:
        """Return the pods of workers, those about to go among them unless they have to be ready."""
        pods: list[Object] = self.get("pods", "-l", _WORKERS)["items"]
        return [pod for pod in pods if is_ready(pod)] if ready else pods

    def ready_workers(self, count: int) -> list[Object]:
        """Return that many workers as soon as exactly so many are ready."""

        def look() -> list[Object]:
            pods = self.workers(ready=True)
            return pods if len(pods) == count else []

        return self.until(f"{count} ready workers", look, within=waits.WORKER_READY)

    def all_in(self, phase: str, count: int, *, within: float = waits.TASKS_ENDED) -> list[Object]:
        """Return all Tasks as soon as exactly so many are in a phase, and none in another."""

        def look() -> list[Object]:
            tasks = self.tasks()
            phases = Counter(task.get("status", {}).get("phase", "New") for task in tasks)
            assert phases == {phase: count}, dict(phases)
            return tasks

        return self.until(f"{count} tasks {phase}", look, within=within)

    def until(self, what: str, look: Callable[[], waits.Value], *, within: float) -> waits.Value:
        """Wait, and tell in vain what is here.

        Raises:
            NotInTime: with what was last seen: tasks, pods, conditions, logs.
        """
        return waits.until(what, look, within=within, told=self.told)

    def told(self) -> str:
        """Return what one would look at by hand: what is not as it should be, and the last lines of logs."""
        parts = (self._tasks_told, self._queues_told, self._pods_told, self._events_told, self._logs_told)
        return "\n".join(line for part in parts for line in _as_far_as_known(part))

    def _tasks_told(self) -> Iterator[str]:
        tasks = self.tasks()
        yield f"tasks: {dict(self.phases())}"
        for task in [task for task in tasks if task.get("status", {}).get("phase") not in _ENDED][:_SHOWN]:
            yield f"  {task['metadata']['name']}: {task.get('status')}"

    def _queues_told(self) -> Iterator[str]:
        for queue in self.get("taskqueues")["items"]:
            status = queue.get("status", {})
            figures = {key: status.get(key) for key in ("waiting", "inFlight", "later", "workers")}
            yield f"queue {queue['metadata']['name']}: {figures} {status.get('scalingReason', '')!r}"
            for each in status.get("conditions", ()):
                yield f"  {each['type']}={each['status']} {each['reason']}: {each.get('message', '')}"

    def _pods_told(self) -> Iterator[str]:
        for namespace in (self.namespace, self._galley):
            for pod in self.kubectl.get("pods", "-n", namespace)["items"]:
                yield f"pod {namespace}/{pod['metadata']['name']}: {_pod_told(pod)}"

    def _events_told(self) -> Iterator[str]:
        events = self.get("events", "--field-selector", "type=Warning")["items"]
        for event in events[-_SHOWN:]:
            yield f"event {event['involvedObject']['name']}: {event.get('reason')}: {event.get('message')}"

    def _logs_told(self) -> Iterator[str]:
        pods = [(self._galley, pod) for pod in self.kubectl.get("pods", "-n", self._galley)["items"]]
        pods += [(self.namespace, pod) for pod in self.workers()[:2]]
        for namespace, pod in pods:
            name = pod["metadata"]["name"]
            yield f"log of {name}:"
            yield from (f"  {line}" for line in self._log(namespace, name))

    def _log(self, namespace: str, pod: str) -> Sequence[str]:
        try:
            return self.kubectl("logs", "-n", namespace, pod, f"--tail={_LOG_LINES}", within=10).splitlines()
        except ClusterError as error:
            return [f"({error})"]


def is_ready(pod: Object) -> bool:
    """Return whether a pod is ready and not asked to go."""
    conditions = pod.get("status", {}).get("conditions", ())
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def _pod_told(pod: Object) -> str:
    containers = pod["status"].get("containerStatuses", ())
    state = {each["name"]: {**each["state"], "restarts": each["restartCount"]} for each in containers}
    going = " (about to go)" if "deletionTimestamp" in pod["metadata"] else ""
    return f"{pod['status'].get('phase')}{'' if is_ready(pod) else ', not ready'}{going} {state}"


def _as_far_as_known(part: Callable[[], Iterator[str]]) -> Iterator[str]:
    try:
        yield from part()
    except ClusterError as error:
        yield f"({error})"
