"""Measure what queues at rest cost the operator: `python -m benchmarks.idle`, about three minutes.

The whole operator as a process, on a real API server and a real nats-server; its processor
time is measured. Needs the programs that `make e2e/build` makes.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console

from benchmarks.cluster import Stage, staged
from e2e.api.operator_process import operator
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue

AIM = 0.01


async def share(stage: Stage, queues: int, seconds: float) -> float:
    """Return the share of a core that the operator takes with so many queues at rest."""
    scene = stage.scene()
    wanted = (a_task_queue(scene.namespace, f"q{number}") for number in range(queues))
    with operator(
        stage.api.kubeconfig, stage.server, scene.folder,
        namespaces=scene.namespace, install=scene.namespace, lease_namespace=scene.namespace,
    ) as running:  # fmt: skip
        scene.apply(*(queue.model_dump(mode="json", by_alias=True, exclude_none=True) for queue in wanted))

        def ready() -> bool:
            _, figures = running.page("metrics")
            return f"galley_operator_queues_ready {queues}.0" in figures

        await eventually(ready, within=300, why=f"{queues} queues ready")
        await asyncio.sleep(30)  # what their making left to do is none of their rest
        process = psutil.Process(running.process.pid)
        before, began = process.cpu_times(), time.monotonic()
        await asyncio.sleep(seconds)
        after, took = process.cpu_times(), time.monotonic() - began
        return (after.user + after.system - before.user - before.system) / took


async def measure(queues: int, seconds: float) -> float:
    """Measure once, on a stage of its own."""
    with tempfile.TemporaryDirectory(prefix="galley-bench-") as folder:
        async with staged(Path(folder)) as stage:
            return await share(stage, queues, seconds)


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__)
    parser.add_argument("--queues", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=120, help="measured time; two reconciles by default")
    options = parser.parse_args()
    found = asyncio.run(measure(options.queues, options.seconds))
    met = "" if found < AIM else " MISSED"
    Console().print(f"{options.queues} queues at rest: {found:.2%} of a core, aim below {AIM:.0%}{met}")
    return 0 if found < AIM else 1


if __name__ == "__main__":
    sys.exit(main())
