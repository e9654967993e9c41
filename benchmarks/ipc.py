"""CPU per no-op task between the supervisor and its handler processes, without a broker.

    python -m benchmarks.ipc [--tasks 60000] [--runs 5]

Each row keeps so many works in flight; `parent` is this process, `children` are all handler processes.
The parent's figure holds all it does for a work: making it, starting it, and taking its ending.
"""

import argparse
import asyncio
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import psutil
from msgspec import Raw

from galley.handler import task
from galley_worker.runners.runners import Runners
from galley_worker.runners.settings import RunnerSettings
from galley_worker.work import Work

INPUT = Raw(b'{"text":"' + b"x" * 280 + b'"}')


@task(queue="bench")
def plain(text: str) -> int:
    return len(text)


@task(queue="bench")
async def concurrent(text: str) -> int:
    return len(text)


class Figures(NamedTuple):
    """What one run took."""

    rate: float
    parent: float
    children: float


def children_cpu() -> float:
    spent = 0.0
    for child in psutil.Process().children(recursive=True):
        times = child.cpu_times()
        spent += times.user + times.system
    return spent


async def drain(runners: Runners, handler: str, tasks: int, in_flight: int) -> None:
    """Run `tasks` works with `in_flight` of them started at any time."""
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    left, unstarted = tasks, tasks

    def start() -> None:
        nonlocal unstarted
        unstarted -= 1
        work = Work("id", "bench", "normal", handler, 1, INPUT, 60.0, datetime.now(UTC))
        runners.start(work).ending.add_done_callback(ended)

    def ended(_ending: object) -> None:
        nonlocal left
        left -= 1
        if unstarted:
            start()
        elif not left:
            finished.set_result(None)

    for _ in range(min(in_flight, tasks)):
        start()
    await finished


async def measure(handler: str, tasks: int, concurrency: int, in_flight: int) -> Figures:
    settings = RunnerSettings(
        "bench", ("benchmarks.ipc",), (str(Path(__file__).parent.parent),), concurrency=concurrency
    )
    async with Runners(settings) as runners:
        await drain(runners, handler, 3000, in_flight)
        before, cpu, began = children_cpu(), time.process_time(), time.perf_counter()
        await drain(runners, handler, tasks, in_flight)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        children = children_cpu() - before
    return Figures(tasks / seconds, cpu / tasks * 1e6, children / tasks * 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=int, default=60_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print("handler      slots  in flight    tasks/s  parent us  children us  (median; min-max)")
    for handler, concurrency, in_flight in (
        ("plain", 1, 1), ("plain", 2, 18), ("plain", 12, 100), ("concurrent", 100, 100),
    ):  # fmt: skip
        tasks = options.tasks if in_flight > 1 else options.tasks // 10
        runs = [asyncio.run(measure(handler, tasks, concurrency, in_flight)) for _ in range(options.runs)]
        rate, parent, children = (statistics.median(column) for column in zip(*runs, strict=True))
        spread = f"({min(run.parent for run in runs):.1f}-{max(run.parent for run in runs):.1f} / "
        spread += f"{min(run.children for run in runs):.1f}-{max(run.children for run in runs):.1f})"
        row = f"{handler:12} {concurrency:5} {in_flight:10} {rate:10.0f} {parent:10.1f} {children:12.1f}"
        print(f"{row}  {spread}")


if __name__ == "__main__":
    main()
