"""Real worker processes for tests."""

import json
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.resources import Metadata, TaskQueue, TaskQueueSpec, Worker
from tests.support.warm_start import WarmStart

HANDLERS: Final = Path(__file__).parent / "handlers"
"""Folder of the module `drills`, whose handlers misbehave on demand."""


def a_task_queue(namespace: str, name: str = "drills", **spec: Any) -> TaskQueue:
    """Return a TaskQueue that runs the drills; `worker`, `retry` and so on as manifests spell them."""
    worker = {"modules": ["drills"], **spec.pop("worker", {})}
    return TaskQueue(
        metadata=Metadata(name=name, namespace=namespace),
        spec=TaskQueueSpec.model_validate({"worker": Worker.model_validate(worker), **spec}),
    )


async def ensure_with_leases(broker: Broker, queue: TaskQueue, seconds: float) -> None:
    """Make a queue's streams with leases so short that a lost worker is noticed within a test."""
    await ensure(broker, replace(layout_of(queue, "tests"), lease_seconds=seconds))


class WorkerProcess:
    """One `python -m galley_worker`, with its log."""

    program: tuple[str, ...] = ("galley_worker",)
    """Module that is run, and its arguments."""

    def __init__(self, server: str, queue: TaskQueue, folder: Path, name: str, **environment: str) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        manifest = folder / f"{name}.json"
        manifest.write_text(json.dumps(queue.model_dump(mode="json", by_alias=True)))
        self._environment = {
            **os.environ,
            "GALLEY_SERVER": server,
            "GALLEY_QUEUE_MANIFEST": str(manifest),
            "GALLEY_WORKER": name,
            "GALLEY_IMPORT_PATHS": str(HANDLERS),
            "DRILLS_LOG": str(folder / "drills.log"),
            **environment,
        }
        self.process = self._start()

    def _start(self) -> WarmStart:
        with self.log_file.open("ab") as log:
            self._log_before = log.tell()
            return WarmStart(self.program, self._environment, log)

    def log(self) -> list[dict[str, Any]]:
        """Return what it has logged so far."""
        lines = []
        for line in self.log_file.read_text(errors="replace").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                lines.append({"event": "not JSON", "line": line})
        return lines

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        return [line for line in self.log() if line["event"] == event]

    @property
    def ready(self) -> bool:
        """Whether it takes tasks since its last start."""
        return self.said("worker ready")

    def said(self, event: str) -> bool:
        """Return whether it has logged an event since its last start."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_before)
            return f'"{event}"'.encode() in log.read()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def restart(self) -> None:
        """Start it again after its end."""
        self.process.wait(30)
        self.process = self._start()

    def end(self, within: float = 60) -> int:
        """Have it drain and return its exit code."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        return self.process.wait(within)

    def kill(self) -> None:
        """End it without a word."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)


@contextmanager
def workers(
    server: str, queue: TaskQueue, folder: Path, names: Iterable[str] = ("w1",), **environment: str
) -> Iterator[list[WorkerProcess]]:
    """Run workers for as long as the block; what is left of them is killed."""
    running = [WorkerProcess(server, queue, folder, name, **environment) for name in names]
    try:
        yield running
    finally:
        for worker in running:
            worker.kill()
