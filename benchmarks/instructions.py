"""Instructions per task: `python -m benchmarks.instructions` (minutes; needs valgrind, a Debian package).

Tasks a second depend on the machine and its other work; how many instructions a task takes hardly does. So a
change of a few percent can be seen, also on a machine that is busy. Each figure is the difference of two
runs that differ only in the number of tasks, so that starting the process does not count.

The last figures are kept in `instructions.json`, and the change from them is shown.
"""

import argparse
import asyncio
import compileall
import json
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

import benchmarks
import galley
import galley_worker
from benchmarks.plan import QUICK
from benchmarks.sides import GalleyWorker
from benchmarks.stage import GALLEY_QUEUE, NAMESPACE, NotDone, Stage, staged
from benchmarks.station import Station, StationLost

RESULTS: Final = Path(__file__).parent / "instructions.json"

FEW: Final = 300
MANY: Final = 2300

_SUBMIT: Final = "submit"
_DRAINS: Final = ("noop", "anoop")
_PATIENCE_SECONDS: Final = 600.0
"""Valgrind makes a process some 50 times slower, its start and its end as well."""


class NotCounted(Exception):
    """Valgrind wrote no counts."""


@dataclass(frozen=True)
class Counter:
    """Runs processes under callgrind; each writes its count into a file of `folder` when it ends."""

    folder: Path

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command."""
        return (
            "valgrind", "--tool=callgrind", "--trace-children=yes", "--quiet",
            f"--callgrind-out-file={self.folder}/%p",
        )  # fmt: skip

    def total(self) -> int:
        """Return the instructions of all processes that have ended.

        Raises:
            NotCounted: if there are none.
        """
        counts = [_total(each) for each in self.folder.iterdir()]
        if not counts:
            raise NotCounted("valgrind wrote no counts; was the process killed?")
        return sum(counts)


def _total(dump: Path) -> int:
    for line in dump.read_text().splitlines()[::-1]:
        if line.startswith(("totals:", "summary:")):
            return int(line.split()[1])
    return 0


async def count_submits(stage: Stage, counter: Counter, tasks: int) -> None:
    """Submit tasks from a process that is counted."""
    producer = Station(
        "benchmarks.galley_producer",
        stage.url,
        NAMESPACE,
        before=counter.prefix,
        patience_seconds=_PATIENCE_SECONDS,
    )
    async with producer:
        await producer.ask("submit", count=tasks)
    await stage.clear()


async def count_drain(stage: Stage, counter: Counter, tasks: int, handler: str, folder: Path) -> None:
    """Drain tasks with a worker that is counted, its children as well."""
    await stage.hold(GALLEY_QUEUE)
    async with Station("benchmarks.galley_producer", stage.url, NAMESPACE) as producer:
        await producer.ask("submit", count=tasks, handler=handler)
    command = (*counter.prefix, sys.executable, "-m", "benchmarks.counted_worker")
    async with GalleyWorker(stage, QUICK, folder, command, end_seconds=_PATIENCE_SECONDS):
        await stage.wait_for_pull(GALLEY_QUEUE)
        await stage.release(GALLEY_QUEUE)
        await stage.wait_until_done(GALLEY_QUEUE, tasks)
    await stage.clear()


async def measure(folder: Path, console: Console) -> dict[str, int]:
    """Return the instructions of one task, by figure."""
    # Otherwise the first process compiles what it imports, which is more than all its tasks.
    for package in (galley, galley_worker, benchmarks):
        compileall.compile_dir(package.__path__[0], quiet=1)
    figures = {}
    async with staged(folder / "nats", QUICK, _PATIENCE_SECONDS) as stage:

        async def each(name: str, run: Callable[[Counter, int], Awaitable[None]]) -> None:
            console.print(f"counting {name}", style="dim")
            totals = []
            for tasks in (FEW, MANY):
                counter = Counter(folder / f"{name}-{tasks}")
                counter.folder.mkdir()
                await run(counter, tasks)
                totals.append(counter.total())
            figures[name] = round((totals[1] - totals[0]) / (MANY - FEW))

        await each(_SUBMIT, lambda counter, tasks: count_submits(stage, counter, tasks))
        for handler in _DRAINS:
            await each(
                handler,
                lambda counter, tasks, handler=handler: count_drain(  # type: ignore[misc]
                    stage, counter, tasks, handler, folder
                ),
            )
    return figures


def table(now: dict[str, int], before: dict[str, int]) -> Table:
    """Return what was counted, with the change."""
    shown = Table(title="Instructions per task")
    for title in ("figure", "before", "now", "change"):
        shown.add_column(title, justify="left" if title == "figure" else "right")
    for name, figure in now.items():
        earlier = before.get(name)
        change = f"{(figure / earlier - 1) * 100:+.1f} %" if earlier else ""
        shown.add_row(name, f"{earlier:,}" if earlier else "", f"{figure:,}", change)
    return shown


def main() -> int:
    """Count, print the table, keep the figures; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="write the figures into instructions.json")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("error: valgrind is not installed (Debian: apt-get install valgrind)", file=sys.stderr)
        return 1
    console = Console(width=None if sys.stdout.isatty() else 160)
    with tempfile.TemporaryDirectory(prefix="galley-bench-") as folder:
        try:
            now = asyncio.run(measure(Path(folder), console))
        except (NotCounted, NotDone, StationLost) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    console.print(table(now, before))
    if options.keep:
        RESULTS.write_text(json.dumps(now, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
