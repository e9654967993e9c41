"""The operator's data path as a process of its own, which tests stop, kill and start again.

It reads what it needs from the environment. The streams of queues are the test's to make.
"""

import asyncio
import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from galley.broker.connection import Broker
from galley.logs import log_as_json
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.cluster.resource import TASKQUEUES
from galley_operator.data_path import DataPath, DataPathSettings, TaskView
from galley_operator.faults import Faults
from galley_operator.handlers import QueueWatch
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.tasks.queue_keys import payloads_of
from tests.support.warm_start import WarmStart

log = logging.getLogger(__name__)


class DataPathProcess:
    """One process; its log tells when it is ready."""

    def __init__(self, kubeconfig: Path, server: str, folder: Path, **settings: Any) -> None:
        self.log_file = folder / "data-path.log"
        self._environment = {
            **os.environ,
            "DATA_PATH_KUBECONFIG": str(kubeconfig),
            "DATA_PATH_SERVER": server,
            "DATA_PATH_SETTINGS": json.dumps(settings),
        }
        self.process = self._start()

    def _start(self) -> WarmStart:
        with self.log_file.open("ab") as log:
            self._log_before = log.tell()
            return WarmStart(["e2e.api.data_path"], self._environment, log, "galley_operator.main")

    def log(self) -> list[dict[str, Any]]:
        """Return what it has logged since its last start."""
        text = self.log_file.read_bytes()[self._log_before :].decode(errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of one event since its last start."""
        return [line for line in self.log() if line["event"] == event]

    @property
    def ready(self) -> bool:
        """Whether it has seen all there was when it started."""
        return bool(self.logged("data path ready"))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it without a word."""
        self.send(signal.SIGKILL)
        self.process.wait(10)

    def restart(self) -> None:
        """Start it again after its end."""
        self.process.wait(10)
        self.process = self._start()

    def cost(self) -> tuple[float, int]:
        """Return the seconds of processor time it took so far, and the bytes it holds."""
        it = psutil.Process(self.process.pid)
        times = it.cpu_times()
        return times.user + times.system, it.memory_info().rss


@contextmanager
def data_path(kubeconfig: Path, server: str, folder: Path, **settings: Any) -> Iterator[DataPathProcess]:
    """Run the data path for as long as the block, with `settings` as in `DataPathSettings`."""
    running = DataPathProcess(kubeconfig, server, folder, **settings)
    try:
        yield running
    finally:
        running.kill()


async def _run() -> None:
    settings = json.loads(os.environ["DATA_PATH_SETTINGS"])
    settings["namespaces"] = tuple(settings.get("namespaces") or (None,))
    config = load_config(Path(os.environ["DATA_PATH_KUBECONFIG"]))
    # Written before anything can go wrong, so that a process that cannot start says so in its log.
    log_as_json("INFO")
    faults, known = Faults(), KnownQueues()
    async with (
        Cluster(config) as cluster,
        Broker(os.environ["DATA_PATH_SERVER"], name="data path") as broker,
        asyncio.TaskGroup() as group,
    ):
        view = TaskView(cluster, settings["namespaces"], faults)
        broker.payloads = payloads_of(cluster, known.found)
        path = DataPath(cluster, broker, view, known, DataPathSettings(**settings), faults)
        running = group.create_task(path.run())
        seeing = group.create_task(view.run())

        def stop() -> None:
            running.cancel()
            seeing.cancel()
            watching.cancel()

        def catch_signals() -> None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)

        served = [namespace for namespace in settings["namespaces"] if namespace]
        watching = group.create_task(QueueWatch(config, served, known, faults, catch_signals).run())
        catch_signals()
        for namespace in settings["namespaces"]:
            known.listed([body async for page in cluster.pages(TASKQUEUES, namespace) for body in page])
        await view.synced.wait()
        log.info("data path ready", extra={"tasks": len(view.tasks)})


if __name__ == "__main__":
    asyncio.run(_run())
