"""Where the tests of declared tasks play: an API server, a NATS, a namespace, our part, and workers."""

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from e2e.api.data_path import DataPathProcess, data_path
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.resources import TaskQueue
from tests.support.api_server import ApiServer
from tests.support.eventually import eventually
from tests.support.workers import WorkerProcess, a_task_queue, workers

INSTALL = "galley"


def a_task(name: str, handler: str = "echo", queue: str = "drills", **spec: Any) -> dict[str, Any]:
    """Return a Task; `spec` as manifests spell it, `labels` of its metadata apart."""
    labels = spec.pop("labels", {})
    return {
        "apiVersion": "galley.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name, "labels": labels},
        "spec": {"queueName": queue, "handler": handler, **spec},
    }


def a_schedule(name: str, **spec: Any) -> dict[str, Any]:
    """Return a TaskSchedule."""
    return {
        "apiVersion": "galley.dev/v1alpha1",
        "kind": "TaskSchedule",
        "metadata": {"name": name},
        "spec": {"queueName": "drills", "handler": "echo", "cron": "@every 1s", **spec},
    }


def in_seconds(seconds: float) -> str:
    """Return a time as manifests write it."""
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


class Scene:
    """One namespace on one API server, with one NATS."""

    def __init__(self, api: ApiServer, server: str, namespace: str, folder: Path) -> None:
        self.api, self.server, self.namespace, self.folder = api, server, namespace, folder

    def data_path(self, **settings: Any) -> AbstractContextManager[DataPathProcess]:
        """Run our part, for this namespace alone."""
        return data_path(
            self.api.kubeconfig, self.server, self.folder, namespaces=[self.namespace], **settings
        )

    def workers(self, queue: TaskQueue, *names: str) -> AbstractContextManager[list[WorkerProcess]]:
        """Run workers of a queue."""
        return workers(self.server, queue, self.folder, names or ("w1",))

    async def queue(self, name: str = "drills", **spec: Any) -> TaskQueue:
        """Apply a TaskQueue and make its streams, as the operator's control path does."""
        queue = a_task_queue(self.namespace, name, **spec)
        async with Broker(self.server, name="test") as broker:
            await ensure(broker, layout_of(queue, INSTALL))
        self.apply(queue.model_dump(mode="json", by_alias=True, exclude_none=True))
        return queue

    def queue_only(self, name: str, **spec: Any) -> None:
        """Apply a TaskQueue, and leave its streams to the operator."""
        queue = a_task_queue(self.namespace, name, **spec)
        self.apply(queue.model_dump(mode="json", by_alias=True, exclude_none=True))

    def apply(self, *things: dict[str, Any]) -> None:
        """Apply objects, TaskQueues and Tasks alike."""
        self.api.kubectl.apply(*things, namespace=self.namespace)

    def delete(self, *names: str) -> None:
        """Delete Tasks."""
        self.api.kubectl("delete", "tasks", "-n", self.namespace, "--wait=false", *names)

    def task(self, name: str) -> dict[str, Any]:
        """Return a Task."""
        return self.api.kubectl.get("task", name, "-n", self.namespace)

    def tasks(self) -> list[dict[str, Any]]:
        """Return all Tasks."""
        return list(self.api.kubectl.get("tasks", "-n", self.namespace)["items"])

    def phases(self) -> Counter[str]:
        """Return how many Tasks are in which phase."""
        return Counter(task.get("status", {}).get("phase", "none") for task in self.tasks())

    def reasons(self) -> Counter[str]:
        """Return how many Tasks have which reason in their first condition."""
        first = (task.get("status", {}).get("conditions", ({},))[0] for task in self.tasks())
        return Counter(condition.get("reason", "none") for condition in first)

    async def status(self, name: str, *, within: float = 20, **wanted: Any) -> dict[str, Any]:
        """Return the status of a Task once these fields of it, or of its condition, are so."""

        def has() -> dict[str, Any] | None:
            status = self.task(name).get("status", {})
            condition, *_ = status.get("conditions", ({},))
            seen = {
                key: condition.get(key) if key in ("reason", "message") else status.get(key) for key in wanted
            }
            assert seen == wanted, status
            return {**status, "condition": condition}

        found = await eventually(has, within=within, why=f"task {name}")
        assert found is not None
        return found

    async def all_in(self, phase: str, count: int, within: float) -> None:
        """Return once so many Tasks are in a phase."""

        def there() -> bool:
            phases = self.phases()
            assert phases == {phase: count}, phases
            return True

        await eventually(there, within=within, why=f"{count} tasks {phase}")

    async def until(self, condition: Callable[[], bool], *, within: float, why: str) -> None:
        """Return once something is so."""
        await eventually(condition, within=within, why=why)

    def runs(self) -> Counter[str]:
        """Return how often each word was noted by the handlers."""
        log = self.folder / "drills.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return Counter(line.partition(" ")[2] for line in lines)

    def status_writes(self) -> Counter[str]:
        """Return how often the status of each Task was written, by the audit log."""
        written: Counter[str] = Counter()
        for entry in _audited(self.api.cluster.logs / "audit.log"):
            about = entry.get("objectRef", {})
            if (
                entry["stage"] == "ResponseComplete"
                and about.get("subresource") == "status"
                and about.get("namespace") == self.namespace
                and entry["responseStatus"]["code"] == 200
            ):
                written[about["name"]] += 1
        return written


def _audited(file: Path) -> Iterable[dict[str, Any]]:
    with file.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


@contextmanager
def paused(process: DataPathProcess) -> Iterator[None]:
    """Stop our part in its tracks for as long as the block."""
    process.send(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send(signal.SIGCONT)
