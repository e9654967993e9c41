"""The two that are compared, as the comparisons see them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

from benchmarks.plan import Plan
from benchmarks.processor_time import Roles, worker_roles
from benchmarks.stage import GALLEY_QUEUE, NAMESPACE, RAW_QUEUE, Stage, queue_of
from benchmarks.station import Station

_HANDLERS: Final = Path(__file__).parent / "handlers"
_WORKER: Final = "bench"

GALLEY_WORKER: Final = (sys.executable, "-m", "galley_worker")
"""The worker as it is started in production."""


class Side(Protocol):
    """A producer and a worker, each a process of its own, that stay from run to run."""

    queue: str
    producer: Station

    async def expect(self, count: int) -> None:
        """Have the worker ready for the next `count` tasks."""

    async def settle(self) -> None:
        """Return when the worker has nothing more to do with what it was told to take."""

    def worker_roles(self) -> Roles:
        """Return the worker's processes."""


class GalleySide:
    """`galley.AsyncClient` and `python -m galley_worker`."""

    queue = GALLEY_QUEUE

    def __init__(self, producer: Station, worker: subprocess.Popen[bytes]) -> None:
        self.producer = producer
        self._worker = worker

    async def expect(self, count: int) -> None:
        """Do nothing: it is always ready for all there are."""

    async def settle(self) -> None:
        """Return at once: records and streams have told already."""

    def worker_roles(self) -> Roles:
        """Return the processes of supervisor, children and fork server."""
        return worker_roles(self._worker.pid)


class RawSide:
    """The two raw loops."""

    queue = RAW_QUEUE

    def __init__(self, producer: Station, worker: Station) -> None:
        self.producer = producer
        self._worker = worker
        self._work: asyncio.Task[object] | None = None

    async def expect(self, count: int) -> None:
        """Tell it how many to take."""
        self._work = asyncio.create_task(self._worker.ask("work", count=count))

    async def settle(self) -> None:
        """Wait for its word."""
        assert self._work is not None
        await self._work

    def worker_roles(self) -> Roles:
        """Return its one process."""
        return {"worker": (self._worker.pid,)}


@asynccontextmanager
async def both_sides(
    stage: Stage, plan: Plan, folder: Path, worker: Sequence[str] = GALLEY_WORKER
) -> AsyncIterator[tuple[GalleySide, RawSide]]:
    """Run all processes of both sides; `worker` is the command that is Galley's worker."""
    async with AsyncExitStack() as parts:
        producer = await parts.enter_async_context(
            Station("benchmarks.galley_producer", stage.url, NAMESPACE)
        )
        process = await parts.enter_async_context(_galley_worker(stage, plan, folder, worker))
        raw = stage.url, NAMESPACE, RAW_QUEUE
        raw_producer = await parts.enter_async_context(Station("benchmarks.raw_producer", *raw))
        raw_worker = await parts.enter_async_context(Station("benchmarks.raw_worker", *raw))
        yield GalleySide(producer, process), RawSide(raw_producer, raw_worker)


@asynccontextmanager
async def _galley_worker(
    stage: Stage, plan: Plan, folder: Path, command: Sequence[str]
) -> AsyncIterator[subprocess.Popen[bytes]]:
    manifest = folder / "queue.json"
    queue = queue_of(GALLEY_QUEUE, plan)
    manifest.write_text(json.dumps(queue.model_dump(mode="json", by_alias=True)))
    told = {
        "GALLEY_SERVER": stage.url,
        "GALLEY_QUEUE_MANIFEST": str(manifest),
        "GALLEY_WORKER": _WORKER,
        "GALLEY_IMPORT_PATHS": str(_HANDLERS),
    }
    with (folder / "worker.log").open("ab") as log:
        worker = subprocess.Popen(  # noqa: ASYNC220 - a start, once, before anything is measured
            command,
            env={**told, **os.environ, **told},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield worker
    finally:
        worker.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(worker.wait, 10)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
