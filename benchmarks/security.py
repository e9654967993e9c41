"""What accounts and TLS cost: `python -m benchmarks.security` prints it.

The same tasks are submitted and drained, in turns, on three servers that differ in nothing else.
"""

import asyncio
import socket
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import psutil

from benchmarks.handlers import benchmark_handlers
from benchmarks.handlers.benchmark_handlers import noop
from galley import Tls, connect
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.permissions import Role
from galley.broker.topology import records_stream, work_stream
from tests.support.eventually import eventually
from tests.support.guarded_nats import GuardedNats
from tests.support.tls_nats import Authority, serving
from tests.support.workers import WorkerProcess, a_task_queue

TASKS: Final = 5_000
ROUNDS: Final = 5
QUEUE: Final = benchmark_handlers.QUEUE
_MODULE: Final = "benchmark_handlers"


class _Plain(GuardedNats):
    """A server without accounts."""

    def _configure(self) -> None:
        super()._configure()
        file = self.folder / "nats.conf"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))


class _Encrypted(GuardedNats):
    """A server with accounts and TLS; only what is not measured may come without."""

    def _configure(self) -> None:
        super()._configure()
        self.authority_file = Authority(self.folder)
        tls = serving(*self.authority_file.issue(self.folder, "server"))
        with (self.folder / "nats.conf").open("a") as file:
            file.write(f"{tls}\nallow_non_tls: true\n")


class Figures(NamedTuple):
    """What one turn took: tasks a second, and microseconds of processor time a task."""

    submit: float
    drain: float
    server_us: float
    worker_us: float


class Site:
    """A server, and how its clients connect."""

    def __init__(self, kind: type[GuardedNats], folder: Path) -> None:
        folder.mkdir()
        self.folder, self.server = folder, kind(folder)
        self._guarded = kind is not _Plain
        self.tls: Tls | None = None
        if isinstance(self.server, _Encrypted):
            self.tls = Tls(self.server.authority_file.file)

    def answers(self) -> bool:
        """Whether the server is there."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.server.port)):
            return True
        return False

    def operator(self) -> Broker:
        """Return a connection that may do everything."""
        return (
            self.server.operator()
            if self._guarded
            else Broker(self.server.url, name="operator", connect_seconds=10)
        )

    def creds(self, role: Role, namespace: str) -> Path | None:
        """Return the credentials of a role, if the server wants any."""
        return self.server.write_creds(role, namespace, QUEUE) if self._guarded else None

    def environment(self, namespace: str) -> dict[str, str]:
        """Return what a worker is told."""
        told = {"GALLEY_IMPORT_PATHS": str(Path(benchmark_handlers.__file__).parent)}
        if creds := self.creds(Role.WORKER, namespace):
            told["GALLEY_CREDENTIALS"] = str(creds)
        if self.tls is not None:
            told["GALLEY_TLS_CA"] = str(self.tls.ca)
        return told

    async def turn(self, number: int) -> Figures:
        """Submit all tasks, and then drain them with a worker that starts afterwards."""
        namespace = f"turn{number}"
        queue = a_task_queue(namespace, QUEUE, worker={"modules": [_MODULE]}, limits={"backlog": 10 * TASKS})
        async with self.operator() as operator:
            await ensure(operator, layout_of(queue, "bench"))
            creds = self.creds(Role.PRODUCER, namespace)
            async with connect(self.server.url, namespace, credentials=creds, tls=self.tls) as client:
                began = time.perf_counter()
                await client.submit_many(noop.call(n=n) for n in range(TASKS))
                submit = TASKS / (time.perf_counter() - began)
            before = _seconds(self.server.pid)
            worker = WorkerProcess(
                self.server.url, queue, self.folder, namespace, **self.environment(namespace)
            )
            try:
                await eventually(lambda: worker.ready, within=120)
                ready = _seconds(worker.process.pid)
                await _drained(operator, namespace)
                server = _seconds(self.server.pid) - before
                used = _seconds(worker.process.pid) - ready
                state = await _state(operator, records_stream(namespace, QUEUE))
            finally:
                worker.kill()
        took = datetime.fromisoformat(state["last_ts"]) - datetime.fromisoformat(state["first_ts"])
        return Figures(submit, TASKS / took.total_seconds(), server / TASKS * 1e6, used / TASKS * 1e6)


async def _drained(broker: Broker, namespace: str) -> None:
    async with asyncio.timeout(300):
        while True:
            done = await _state(broker, records_stream(namespace, QUEUE))
            left = await _state(broker, work_stream(namespace, QUEUE))
            if done["messages"] >= TASKS and not left["messages"]:
                return
            await asyncio.sleep(0.05)


async def _state(broker: Broker, stream: str) -> dict[str, Any]:
    state: dict[str, Any] = (await broker.api(f"look at {stream}", f"STREAM.INFO.{stream}"))["state"]
    return state


def _seconds(pid: int) -> float:
    root = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:2]) for each in (root, *root.children(recursive=True)))


async def main(folder: Path) -> None:
    """Measure in turns, and print medians and ratios to the server with neither."""
    kinds = {"neither": _Plain, "accounts": GuardedNats, "accounts and TLS": _Encrypted}
    with ExitStack() as stack:
        sites = {}
        for name, kind in kinds.items():
            sites[name] = site = Site(kind, folder / kind.__name__)
            stack.callback(site.server.kill)
            await eventually(site.answers, within=30)
        turns: dict[str, list[Figures]] = {name: [] for name in sites}
        for number in range(ROUNDS + 1):
            for name, site in sites.items():
                found = await site.turn(number)
                if number:  # the first one warms up
                    turns[name].append(found)
    for name, measured in turns.items():
        sys.stdout.write(f"{name:17}")
        for at, field in enumerate(Figures._fields):
            pairs = [(turn[at], plain[at]) for turn, plain in zip(measured, turns["neither"], strict=True)]
            ratios = sorted(mine / theirs for mine, theirs in pairs)
            middle = median(mine for mine, _ in pairs)
            spread = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            sys.stdout.write(f" | {field} {middle:.0f}, {spread}")
        sys.stdout.write("\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="galley-bench-") as temporary:
        asyncio.run(main(Path(temporary)))
