"""Measure Galley: `python -m benchmarks` (about five minutes; `--quick` only shows that it runs)."""

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path
from statistics import median

from rich.console import Console

from benchmarks.latency import Latency
from benchmarks.plan import FULL, QUICK, Plan
from benchmarks.report import Aim, Report
from benchmarks.sides import both_sides
from benchmarks.stage import NotDone, staged
from benchmarks.station import StationLost
from benchmarks.throughput import Throughput

RESULTS = Path(__file__).parent / "results.json"


async def measure(plan: Plan, folder: Path, console: Console) -> Report:
    """Measure all there is; the tasks and the worker's log are in `folder`."""
    report = Report(plan)
    # Processes that are measured must not outlive a benchmark that is told to end.
    present = asyncio.current_task()
    assert present is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, present.cancel)
    async with staged(folder / "nats", plan) as stage, both_sides(stage, plan, folder) as (galley, raw):
        throughput, latency = Throughput(stage, plan), Latency(stage, plan)
        console.print("warming up", style="dim")
        await throughput.warm_up((galley, raw))
        console.print("submitting", style="dim")
        report.add("submit", await throughput.submit(galley, raw), Aim("ratio", 0.8))
        console.print("draining", style="dim")
        for name, comparison in (await throughput.drain(galley, raw, older=True)).items():
            report.add(name, comparison, Aim("ratio", 0.8))
        drains = await throughput.drain(galley, raw, older=False)
        for name, comparison in drains.items():
            report.add(name, comparison)
        console.print(f"submitting {plan.calm_rate:g}/s", style="dim")
        half, late = await latency.at_rate(galley, raw, plan.calm_rate, plan.calm_tasks)
        report.add("calm_p50", half, Aim("galley", 2.0))
        report.add("calm_p99", late, Aim("galley", 5.0))
        full = median(run.value for run in drains["noop"].galley)
        console.print(f"submitting {full:.0f}/s, or as many as are taken", style="dim")
        flow = await throughput.flow(galley, raw, full)
        report.add("flow", flow)
        rate = median(run.value for run in flow.galley) / 2
        console.print(f"submitting {rate:.0f}/s", style="dim")
        half, late = await latency.at_rate(galley, raw, rate, int(rate * plan.half_load_seconds))
        report.add("half_load_p50", half)
        report.add("half_load_p99", late, Aim("galley", 20.0))
    return report


def main() -> int:
    """Measure, print the tables, write the JSON; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds, for a look whether it runs")
    parser.add_argument("--output", type=Path, help="the JSON file (default: benchmarks/results.json; no file"
                        " if --quick)")  # fmt: skip
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    output = options.output or (None if options.quick else RESULTS)
    with tempfile.TemporaryDirectory(prefix="galley-bench-") as folder:
        try:
            report = asyncio.run(measure(QUICK if options.quick else FULL, Path(folder), console))
        except asyncio.CancelledError:
            print("error: told to end", file=sys.stderr)
            return 1
        except (NotDone, StationLost) as error:
            log = Path(folder, "worker.log")
            lines = log.read_text().splitlines()[-5:] if log.exists() else []
            print(f"error: {error}", *lines, sep="\n", file=sys.stderr)
            return 1
    report.show(console)
    if output:
        report.write(output)
        console.print(f"All runs: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
