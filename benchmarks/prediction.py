"""Play shortened traces to real workers, processes under the autoscaler, and print the prediction beside.

`python -m benchmarks.prediction`, about six minutes. Tasks sleep for as long as the trace says, so that
the machine's cores are not measured. The simulation gets the time that workers were seen to take to start.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from galley.broker.connection import Broker
from galley.broker.doorbell import Doorbell
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.signals import SignalReader
from galley.calls import call
from galley.client import AsyncClient
from galley.lanes import Lane
from galley.resources import TaskQueue
from galley_local.nats_server import NatsServer
from galley_local.process_fleet import ProcessFleet
from galley_local.simulation.report import percentile
from galley_local.simulation.scalers import Galley
from galley_local.simulation.trace import Arrival, Trace, built_in
from galley_local.simulation.world import World
from galley_local.warm_start import WarmStarter
from galley_local.worker_process import WorkerPlace
from galley_operator.autoscaler.scaler import Scaler
from galley_operator.autoscaler.signals import ScalingPolicy
from tests.support.eventually import eventually

SLOTS, MOST, IDLE_SECONDS = 4, 6, 10
LOOK_SECONDS = 0.25

WINDOWS = {
    "steady": (0, 60),
    "burst": (590, 650),
    "two_priorities": (290, 350),
    "bad_estimates": (1180, 1240),
}
"""Seconds of each trace that are played."""

HANDLERS = """
import asyncio, os, time
from galley import task

_notes = os.open("notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@task(queue="played")
async def hold(word: str, seconds: float) -> None:
    os.write(_notes, f"{word} {time.time()}\\n".encode())
    await asyncio.sleep(seconds)
"""


@dataclass(frozen=True)
class Figures:
    """What came of a trace."""

    p50: float
    p95: float
    worker_seconds: float
    most: int


def shortened(trace: Trace, window: tuple[int, int]) -> Trace:
    """Return a part of a trace, with as many workers as a laptop has room for."""
    begin, end = window
    arrivals = tuple(replace(each, at=each.at - begin) for each in trace.arrivals if begin <= each.at < end)
    return replace(trace, arrivals=arrivals, duration=end - begin, slots=SLOTS, max_workers=MOST)


def predicted(trace: Trace) -> Figures:
    """Return what the simulation makes of it."""
    outcome = World(trace, Galley(_policy())).run()
    most = max(number for _, number in outcome.counts)
    return _figures(outcome.waits, outcome.worker_seconds, most)


async def measured(trace: Trace, server: str, folder: Path) -> tuple[Figures, float]:
    """Play a trace; return what came of it, and how long workers took to start."""
    async with _workers(server, trace.name, folder) as (client, fleet, scaler):
        meter = Meter(fleet)
        metering = asyncio.create_task(meter.run())
        submitted = await _play(trace, client)
        began = await _began(folder / "notes", len(submitted))

        async def gone() -> bool:
            return not (await fleet.observe()).workers

        await eventually(gone, within=120)
        metering.cancel()
        start = scaler.last.memory.learned.expected_start if scaler.last is not None else 0.0
    waits = [max(0.0, began[word] - at) for word, at in submitted.items()]
    return _figures(waits, meter.worker_seconds, meter.most), start


@dataclass
class Meter:
    """What workers cost."""

    fleet: ProcessFleet
    worker_seconds: float = 0.0
    most: int = 0

    async def run(self) -> None:
        """Count until it is cancelled."""
        before = time.monotonic()
        while True:
            workers = len((await self.fleet.observe()).workers)
            now = time.monotonic()
            self.worker_seconds += workers * (now - before)
            self.most, before = max(self.most, workers), now
            await asyncio.sleep(LOOK_SECONDS)


def _policy() -> ScalingPolicy:
    return ScalingPolicy(0, MOST, SLOTS, IDLE_SECONDS)


def _figures(waits: Sequence[float], worker_seconds: float, most: int) -> Figures:
    return Figures(percentile(waits, 0.5), percentile(waits, 0.95), worker_seconds, most)


@asynccontextmanager
async def _workers(
    server: str, name: str, folder: Path
) -> AsyncIterator[tuple[AsyncClient, ProcessFleet, Scaler]]:
    """Have a queue with workers that its autoscaler starts and ends."""
    (folder / "played.py").write_text(HANDLERS)
    namespace = name.replace("_", "-")
    queue = TaskQueue.model_validate(
        {
            "metadata": {"name": "played", "namespace": namespace},
            "spec": {
                "lanes": ["critical", "normal"],
                "worker": {"modules": ["played"], "concurrency": SLOTS},
            },
        }
    )
    manifest, logs = folder / "queue.json", folder / "logs"
    async with AsyncExitStack() as parts:
        starter = parts.enter_context(WarmStarter())
        place = WorkerPlace(folder, (folder,), manifest, logs, server, namespace, starter)
        broker = await parts.enter_async_context(Broker(server, name="benchmark"))
        await ensure(broker, layout_of(queue, "benchmarks"))
        fleet = await parts.enter_async_context(ProcessFleet(broker, queue, place))
        bell = await parts.enter_async_context(Doorbell(broker, namespace, "played"))
        scaler = Scaler(SignalReader(broker), bell, fleet, _policy(), queue=(namespace, "played"))
        parts.callback(asyncio.create_task(scaler.run()).cancel)
        yield AsyncClient.over(broker, namespace), fleet, scaler


async def _play(trace: Trace, client: AsyncClient) -> dict[str, float]:
    """Submit each task at its time; return when each was submitted."""
    began, submitted = time.time(), {}
    for number, task in enumerate(trace.arrivals):
        await asyncio.sleep(max(0.0, began + task.at - time.time()))
        word = f"t{number}"
        submitted[word] = time.time()
        handed = call("played", "hold", word=word, seconds=task.seconds)
        await client.submit(handed.options(lane=_lane(task)))
    return submitted


def _lane(task: Arrival) -> Lane:
    return Lane.CRITICAL if task.urgent else Lane.NORMAL


async def _began(notes: Path, count: int) -> dict[str, float]:
    """Return when each handler began, as soon as all have."""

    def lines() -> list[str]:
        return notes.read_text().splitlines() if notes.exists() else []

    await eventually(lambda: len(lines()) >= count, within=300)
    return {word: float(at) for word, at in (line.split() for line in lines())}


async def _compared(names: Sequence[str]) -> Table:
    table = Table("trace", "tasks", "start", "p50", "p95", "worker-seconds", "most")
    with tempfile.TemporaryDirectory(prefix="galley-bench-") as folder:
        async with NatsServer(Path(folder) / "nats") as server:
            for name in names:
                trace = shortened(built_in(name), WINDOWS[name])
                own = Path(folder) / name
                own.mkdir()
                real, start = await measured(trace, server.url, own)
                told = predicted(replace(trace, start_seconds=start))
                table.add_row(
                    name, str(len(trace.arrivals)), f"{start:.1f} s",
                    *(f"{ahead:.2f} / {found:.2f}" for ahead, found in _pairs(told, real)),
                )  # fmt: skip
    return table


def _pairs(told: Figures, real: Figures) -> list[tuple[float, float]]:
    names = ("p50", "p95", "worker_seconds", "most")
    return [(getattr(told, name), getattr(real, name)) for name in names]


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prediction", description=__doc__)
    parser.add_argument("traces", nargs="*", choices=[[], *WINDOWS], default=[])
    options = parser.parse_args()
    table = asyncio.run(_compared(options.traces or list(WINDOWS)))
    Console(width=110).print("predicted / measured", table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
