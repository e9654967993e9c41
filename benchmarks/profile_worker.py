"""Where a worker's CPU time goes: `python -m benchmarks.profile_worker` drains no-ops and samples the stack.

Samples are taken by CPU time in the worker itself, so the profile costs little and does not favour long
functions over many short ones, as a tracing profiler does. Options of the worker are given as usual, by
environment: `GALLEY_LOG_LEVEL=WARNING python -m benchmarks.profile_worker`.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Final

from benchmarks.plan import Plan
from benchmarks.sides import both_sides
from benchmarks.stage import staged
from benchmarks.throughput import Throughput

_SECONDS: Final = 0.001
_SHOWN: Final = 40
_ROOTS: Final = ("site-packages/", "lib/python3.11/", "worker-image/", "sdk/")


class Samples:
    """Counts what was running, by function: itself, and with all it called."""

    def __init__(self) -> None:
        self._itself: Counter[str] = Counter()
        self._with_callees: Counter[str] = Counter()
        self._lines: Counter[str] = Counter()
        self._process = os.getpid()

    def start(self) -> None:
        """Sample from now on."""
        signal.signal(signal.SIGPROF, self._take)
        signal.setitimer(signal.ITIMER_PROF, _SECONDS, _SECONDS)

    def _take(self, _number: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self._itself[_name(frame)] += 1
        self._lines[f"{_name(frame)}:{frame.f_lineno}"] += 1
        seen = set()
        caller: FrameType | None = frame
        while caller is not None:
            seen.add(_name(caller))
            caller = caller.f_back
        self._with_callees.update(seen)

    def report(self) -> str:
        """Stop, and return the tables."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        total = sum(self._itself.values())
        parts = [f"{total} samples"]
        for title, counts in (
            ("with callees", self._with_callees), ("itself", self._itself), ("by line", self._lines),
        ):  # fmt: skip
            parts.append(f"\n{title}")
            parts += [f"{count / total:6.1%}  {name}" for name, count in counts.most_common(_SHOWN)]
        return "\n".join(parts)


def _name(frame: FrameType) -> str:
    file = frame.f_code.co_filename
    for root in _ROOTS:
        file = file.rpartition(root)[2]
    return f"{file} {frame.f_code.co_qualname}"


def _be_worker(output: Path) -> int:
    from galley_worker.main import main  # noqa: PLC0415 - only the worker needs it
    from galley_worker.runners.socket_folder import socket_folder  # noqa: PLC0415 - as above

    samples = Samples()
    samples.start()
    with socket_folder():
        code = main()
    output.write_text(samples.report() + "\n")
    return code


async def _drain(handler: str, plan: Plan, folder: Path, output: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.profile_worker", "--be-worker", str(output)]
    async with (
        staged(folder / "nats", plan) as stage,
        both_sides(stage, plan, folder, worker=command) as (galley, _),
    ):
        throughput = Throughput(stage, plan)
        await throughput.warm_up((galley,))
        runs = [await throughput.drain_once(galley, plan.tasks, handler) for _ in range(plan.runs)]
    print(f"{handler}: {median(run.value for run in runs):.0f} tasks/s under the profiler")


def main() -> int:
    """Drain and print where the time went."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_worker", description=__doc__)
    parser.add_argument("--handler", choices=("noop", "anoop"), default="noop")
    parser.add_argument("--be-worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be_worker:
        return _be_worker(options.be_worker)
    with tempfile.TemporaryDirectory(prefix="galley-profile-") as folder:
        output = Path(folder, "profile.txt")
        asyncio.run(_drain(options.handler, Plan(), Path(folder), output))
        print(output.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
