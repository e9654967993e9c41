"""A worker that starts as in a pod: by `python -m galley_worker`, with nothing imported before."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

from galley import AsyncClient
from galley.resources import TaskQueue
from galley_local.nats_server import NatsServer
from galley_worker.runners.child.kernel import running_name
from tests.support.eventually import eventually
from tests.support.handlers import artifacts
from tests.support.workers import WorkerProcess


class ColdWorker(WorkerProcess):
    """A worker that no warm process forks."""

    def _start(self) -> subprocess.Popen[bytes]:  # type: ignore[override]
        self._log_before = 0
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "galley_worker"], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={**self._environment, "PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip


async def test_its_first_child_is_of_a_fork_of_it_and_stores_large_results(
    client: AsyncClient, nats_server: NatsServer, drills: TaskQueue, tmp_path: Path
) -> None:
    spec = drills.spec.worker.model_copy(update={"modules": ("artifacts",)})
    queue = drills.model_copy(update={"spec": drills.spec.model_copy(update={"worker": spec})})
    handle = await client.submit(artifacts.reverse.call("ab" * 300_000))
    worker = ColdWorker(nats_server.url, queue, tmp_path, "w1", GALLEY_CACHE=str(tmp_path / "cache"))
    try:
        assert await handle.result(within=60) == "ba" * 300_000
        process = psutil.Process(worker.process.pid)
        below = process.children(recursive=True)
        # Its fork server and the child.
        assert len([one for one in below if one.cmdline() == process.cmdline()]) == 2
        worker.kill()
        await eventually(lambda: not any(running_name(one.pid) for one in below), within=60, why="all gone")
    finally:
        worker.kill()
