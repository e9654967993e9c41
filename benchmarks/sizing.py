# ruff: noqa: E501 - a page is text
"""What a queue costs as it grows: `python -m benchmarks.sizing` (five minutes), writes `docs/sizing.md`.

One nats-server and workers on this machine. Tasks do nothing and have a small argument, so that what is
measured is the queue's share.
"""

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.plan import Plan
from benchmarks.processor_time import load_in_words, worker_roles
from benchmarks.sides import GalleyWorker
from benchmarks.stage import GALLEY_QUEUE, NAMESPACE, NotDone, Stage, staged
from benchmarks.station import Station
from galley.broker.ensure import stream_info
from galley.broker.topology import records_stream, work_stream

PAGE: Final = Path(__file__).parents[1] / "docs" / "sizing.md"

WAITING: Final = (20_000, 100_000, 1_000_000)
WORKERS: Final = (1, 2, 4, 8)
_DRAINED: Final = 20_000
"""Tasks after whose end a drain is measured, however many wait behind them."""
_AT_ONCE: Final = 20_000
"""Tasks of one `submit_many`."""
_LOOK_SECONDS: Final = 0.02
_PATIENCE_SECONDS: Final = 120.0
_MIB: Final = 1024 * 1024
_CHILDREN: Final = 4


@dataclass(frozen=True)
class Backlog:
    """What was measured with so many tasks waiting."""

    waiting: int
    first_seconds: float
    """From the start of a worker's process to its first result."""
    rate: float
    server_bytes: int
    """Resident memory of nats-server."""
    disk_bytes: int
    """Of the tasks that wait."""


@dataclass(frozen=True)
class Fleet:
    """What so many workers did together."""

    workers: int
    rate: float


@dataclass(frozen=True)
class Memory:
    """Proportional set size of the processes of one worker with four children, in bytes."""

    supervisor: int
    fork_server: int
    children: int


def resident(pid: int, kind: str = "Pss") -> int:
    """Return the bytes of memory of a process; what several share counts as a part for each if `Pss`."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == kind:
            return int(rest.split()[0]) * 1024
    raise NotDone(f"the kernel does not say how much memory process {pid} has")


class Sizing:
    """Measures on one stage."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self._stage, self._folder = stage, folder

    async def backlog(self, waiting: int) -> Backlog:
        """Have so many tasks wait, start a worker, and measure its first result and its rate."""
        await self._stage.clear()
        await self._submit(waiting)
        work = await stream_info(self._stage.broker, work_stream(NAMESPACE, GALLEY_QUEUE))
        assert work is not None
        began = time.time()
        async with self._workers(1):
            first, rate = await self._rate(_DRAINED)
            server = resident(self._server, "Rss")
        return Backlog(waiting, first - began, rate, server, int(work["state"]["bytes"]))

    async def fleet(self, workers: int) -> Fleet:
        """Have workers that are ready drain together."""
        await self._stage.clear()
        async with self._workers(workers):
            await self._stage.hold(GALLEY_QUEUE)
            await self._submit(_DRAINED * 2)
            await self._stage.wait_for_pull(GALLEY_QUEUE)
            await self._stage.release(GALLEY_QUEUE)
            _, rate = await self._rate(_DRAINED)
        return Fleet(workers, rate)

    async def memory(self) -> Memory:
        """Return what a worker takes that has run tasks in four children."""
        await self._stage.clear()
        async with GalleyWorker(self._stage, Plan(concurrency=_CHILDREN), self._folder) as worker:
            # Tasks that take a while, so that each slot gets its child.
            await self._submit(_CHILDREN * 4, "pause")
            await self._stage.wait_until_done(GALLEY_QUEUE, _CHILDREN * 4)
            roles = worker_roles(worker.pid)
            if len(roles["children"]) != _CHILDREN:
                raise NotDone(f"the worker has {len(roles['children'])} children, not {_CHILDREN}")
            sizes = {role: sum(map(resident, pids)) for role, pids in roles.items()}
        return Memory(sizes["supervisor"], sizes["forkserver"], sizes["children"])

    @property
    def _server(self) -> int:
        pid = self._stage.server.pid
        assert pid is not None, "nats-server has ended"
        return pid

    @asynccontextmanager
    async def _workers(self, count: int) -> AsyncIterator[None]:
        async with AsyncExitStack() as running:
            for _ in range(count):
                await running.enter_async_context(GalleyWorker(self._stage, Plan(), self._folder))
            yield

    async def _submit(self, count: int, handler: str = "noop") -> None:
        async with Station("benchmarks.galley_producer", self._stage.url, NAMESPACE) as producer:
            for sent in range(0, count, _AT_ONCE):
                await producer.ask("submit", count=min(_AT_ONCE, count - sent), handler=handler)

    async def _rate(self, count: int) -> tuple[float, float]:
        """Return when the first result was stored, and the results a second until there were `count`."""
        stream = records_stream(NAMESPACE, GALLEY_QUEUE)
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < give_up:
            info = await stream_info(self._stage.broker, stream)
            assert info is not None
            state = info["state"]
            if state["messages"] >= count:
                first, last = (
                    datetime.fromisoformat(state[key]).timestamp() for key in ("first_ts", "last_ts")
                )
                return first, (state["messages"] - 1) / (last - first)
            await asyncio.sleep(_LOOK_SECONDS)
        raise NotDone(f"fewer than {count} tasks were done in {_PATIENCE_SECONDS:g} s")


async def measure(folder: Path, waiting: Sequence[int], workers: Sequence[int]) -> str:
    """Measure all, printing as it goes; returns the page."""
    plan, load = Plan(), os.getloadavg()[0]
    async with staged(folder / "nats", plan) as stage:
        sizing = Sizing(stage, folder)
        memory = await sizing.memory()
        print(memory, flush=True)
        backlogs, fleets = [], []
        for count in waiting:
            backlogs.append(await sizing.backlog(count))
            print(backlogs[-1], flush=True)
        for count in workers:
            fleets.append(await sizing.fleet(count))
            print(fleets[-1], flush=True)
    return page(memory, backlogs, fleets, load)


def page(memory: Memory, backlogs: Sequence[Backlog], fleets: Sequence[Fleet], load: float) -> str:
    """Return the page as Markdown; `load` is the load average before the first measurement."""
    whole = memory.supervisor + memory.fork_server + memory.children
    return _TEXT.format(
        backlogs="\n".join(
            f"| {each.waiting:,} | {each.rate:,.0f} | {each.first_seconds:.2f} s | {each.server_bytes / _MIB:,.0f} MiB |"
            f" {each.disk_bytes / _MIB:,.0f} MiB |"
            for each in backlogs
        ),
        fleets="\n".join(f"| {each.workers} | {each.rate:,.0f} |" for each in fleets),
        whole=f"{whole / _MIB:.0f}", supervisor=f"{memory.supervisor / _MIB:.0f}",
        fork_server=f"{memory.fork_server / _MIB:.0f}", child=f"{memory.children / _CHILDREN / _MIB:.1f}",
        bytes_each=f"{backlogs[-1].disk_bytes / backlogs[-1].waiting:.0f}", cores=os.cpu_count(),
        python=platform.python_version(), load=load_in_words(load),
        date=datetime.now(UTC).strftime("%Y-%m-%d"), drained=f"{_DRAINED:,}",
    )  # fmt: skip


_TEXT = """<!-- Written by `make bench-sizing`. -->
# Sizing

What a queue costs as it grows, and what to do beyond one machine. Measured by `make bench-sizing` on {date} with {cores} cores for nats-server, workers and
producer together, Python {python}, {load} The tasks do nothing and have one small argument: your handlers come on top.

## Tasks that wait

| waiting | drained, tasks/s | start of a worker to its first result | memory of nats-server | disk |
|---|---|---|---|---|
{backlogs}

One worker with 16 slots starts beside a backlog; its rate is that of the first {drained} tasks. A task that waits takes {bytes_each} bytes on disk with its
subject and headers; add the size of its input. It takes no memory of a worker or of the operator.

## Workers on one server

| workers of 16 slots | drained, tasks/s |
|---|---|
{fleets}

All of them share the {cores} cores with nats-server, so more workers only help handlers that wait or compute.

## Memory of a worker

A worker with four processes for handlers and no code of its own takes {whole} MiB (proportional set size): {supervisor} MiB for its supervisor,
{fork_server} MiB for the process that forks, {child} MiB for each process of handlers. So count {child} MiB for each further slot of plain functions, and
what your modules take in each; `async def` handlers share one process. `spec.worker.preload` shares modules between processes.

## Beyond one server

1. **Three servers** (`nats.replicas: 3` in the chart) keep tasks when one is lost. Each write is made three times, so they carry less than one server, not
   more. [Recovery](operations/recovery.md) describes what happens when one is lost.
2. **More queues.** Each queue has streams of its own, and each stream a leader on one of the servers, so that queues spread over three servers.
   Split the tasks of a queue that one server cannot carry by customer or by handler.
3. **More clusters of NATS.** A namespace that needs a cluster for itself gets an installation of Galley for itself; see
   [Install](operations/install.md).

[Benchmarks](benchmarks.md) compares Galley with other task queues.
"""


def main() -> int:
    """Measure and write the page; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizing", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few tasks, one worker, and no page")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    waiting, workers = ((25_000,), (1,)) if options.quick else (WAITING, WORKERS)
    with tempfile.TemporaryDirectory(prefix="galley-bench-") as folder:
        try:
            text = asyncio.run(measure(Path(folder), waiting, workers))
        except (NotDone, subprocess.SubprocessError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    if not options.quick:
        options.page.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
