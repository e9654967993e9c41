"""Measure how long a worker takes from its start to its first task: `python -m benchmarks.start`.

A task waits; then `python -m galley_worker` is started, and the handler returns when it was called. With
`--beside FOLDER`, another checkout of this repository is measured in turns. Compile both before, if Python is
told to write no bytecode. `--imports` is the processor time in seconds that importing the queue's module
takes.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import psutil

from galley import AsyncClient, call, connect
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley_local.nats_server import NatsServer
from tests.support.workers import a_task_queue

_NAMESPACE: Final = "bench"
_PATHS: Final = ("sdk", "worker-image")
_MODULE: Final = """
import time
from galley import task

until = time.process_time() + {seconds}
while time.process_time() < until:
    pass

@task(queue="start")
def when() -> float:
    return time.time()
"""


class Start(NamedTuple):
    """One start of a worker."""

    seconds: float
    """Until the handler was called."""
    processor: float
    """Processor time until the result was there, of all its processes."""


def _started(tree: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join(str(tree / each) for each in _PATHS)
    return subprocess.Popen(
        [sys.executable, "-m", "galley_worker"],
        env={**os.environ, **environment, "PYTHONPATH": paths}, stdout=subprocess.DEVNULL,
    )  # fmt: skip


async def start(client: AsyncClient, tree: Path, environment: dict[str, str]) -> Start:
    """Start a worker of a checkout and run one task."""
    handle = await client.submit(call("start", "when"))
    began = time.time()
    process = _started(tree, environment)
    try:
        called = await handle.result(60)
        worker = psutil.Process(process.pid)
        times = [each.cpu_times() for each in (worker, *worker.children(recursive=True))]
        return Start(called - began, sum(each.user + each.system for each in times))
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait)


async def measure(trees: list[Path], turns: int, imports: float) -> dict[Path, list[Start]]:
    """Start a worker of each checkout in turns; the first of each is not counted."""
    found: dict[Path, list[Start]] = {tree: [] for tree in trees}
    with tempfile.TemporaryDirectory(prefix="galley-bench-") as name:
        folder = Path(name)
        queue = a_task_queue(_NAMESPACE, "start", worker={"modules": ["start_module"]})
        (folder / "queue.json").write_text(json.dumps(queue.model_dump(mode="json", by_alias=True)))
        (folder / "start_module.py").write_text(_MODULE.format(seconds=imports))
        async with NatsServer(folder / "nats") as server, connect(server.url, _NAMESPACE) as client:
            await ensure(client.broker, layout_of(queue, "benchmarks"))
            environment = {
                "GALLEY_SERVER": server.url,
                "GALLEY_QUEUE_MANIFEST": str(folder / "queue.json"),
                "GALLEY_IMPORT_PATHS": str(folder),
                "GALLEY_CACHE": str(folder / "cache"),
            }
            for turn in range(turns + 1):
                for tree in trees:
                    one = await start(client, tree, environment | {"GALLEY_WORKER": f"w{turn}"})
                    if turn:
                        found[tree].append(one)
    return found


def shown(name: str, starts: list[Start]) -> str:
    """Return the line of one checkout."""
    seconds = sorted(one.seconds for one in starts)
    processor = median(one.processor for one in starts)
    return (
        f"{name}: first task after {median(seconds):.2f} s ({seconds[0]:.2f} to {seconds[-1]:.2f}), "
        f"processor time {processor:.2f} s"
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--beside", type=Path, help="another checkout, measured in turns")
    parser.add_argument("--imports", type=float, default=0.0, help="seconds the queue's module imports")
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    trees = [Path(__file__).parents[1], *([options.beside.resolve()] if options.beside else [])]
    found = asyncio.run(measure(trees, options.turns, options.imports))
    print(f"Load average {os.getloadavg()[0]:.1f}; the queue's module takes {options.imports:g} s to import.")
    for name, tree in zip(("this checkout", "the other one"), trees, strict=False):
        print(shown(name, found[tree]))
    if options.beside:
        ratios = [
            mine.seconds / other.seconds for mine, other in zip(found[trees[0]], found[trees[1]], strict=True)
        ]
        print(f"ratio {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
