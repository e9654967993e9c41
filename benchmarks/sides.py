"""The two that are compared, as the comparisons see them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

from benchmarks.plan import Plan
from benchmarks.processor_time import Roles, worker_roles
from benchmarks.stage import GALLEY_QUEUE, NAMESPACE, RAW_QUEUE, NotDone, Stage, now, queue_of
from benchmarks.station import Station
from galley.broker.control import Request, Verb, ask_workers

_HANDLERS: Final = Path(__file__).parent / "handlers"
_WORKER: Final = "bench"
_PAUSE_SECONDS: Final = 600.0
_START_SECONDS: Final = 30.0


class Side(Protocol):
    """A producer and a worker, each a process of its own, that stay from run to run."""

    queue: str
    producer: Station

    async def pause(self) -> None:
        """Have the worker take nothing from now on."""

    async def resume(self, count: int) -> float:
        """Have the worker take the next `count` tasks; returns when it was told."""

    async def settle(self) -> None:
        """Return when the worker has nothing more to do with what it was told to take."""

    def worker_roles(self) -> Roles:
        """Return the worker's processes."""


class GalleySide:
    """`galley.Client` and `python -m galley_worker`."""

    queue = GALLEY_QUEUE

    def __init__(self, stage: Stage, producer: Station, worker: subprocess.Popen[bytes]) -> None:
        self.producer = producer
        self._stage = stage
        self._worker = worker

    async def pause(self) -> None:
        """Have the worker drain, as before it is scaled in."""
        await self._ask(Request(workers=(_WORKER,), seconds=_PAUSE_SECONDS))

    async def resume(self, count: int) -> float:  # noqa: ARG002 - it takes all there are
        """End the drain."""
        began = now()
        await self._ask(Request(workers=(_WORKER,), seconds=0.0))
        return began

    async def settle(self) -> None:
        """Return at once: records and streams have told already."""

    def worker_roles(self) -> Roles:
        """Return the processes of supervisor, children and fork server."""
        return worker_roles(self._worker.pid)

    async def _ask(self, request: Request) -> None:
        async with asyncio.timeout(_START_SECONDS):
            while await self._not_asked(request):
                if self._worker.poll() is not None:
                    raise NotDone(f"the worker ended with exit code {self._worker.returncode}")

    async def _not_asked(self, request: Request) -> bool:
        answer = await ask_workers(self._stage.broker, NAMESPACE, self.queue, Verb.DRAIN, request)
        return answer is None


class RawSide:
    """The two raw loops."""

    queue = RAW_QUEUE

    def __init__(self, producer: Station, worker: Station) -> None:
        self.producer = producer
        self._worker = worker
        self._work: asyncio.Task[object] | None = None

    async def pause(self) -> None:
        """Do nothing: it takes what it is told to and no more."""

    async def resume(self, count: int) -> float:
        """Tell it how many to take."""
        began = now()
        self._work = asyncio.create_task(self._worker.ask("work", count=count))
        return began

    async def settle(self) -> None:
        """Wait for its word."""
        assert self._work is not None
        await self._work

    def worker_roles(self) -> Roles:
        """Return its one process."""
        return {"worker": (self._worker.pid,)}


@asynccontextmanager
async def both_sides(stage: Stage, plan: Plan, folder: Path) -> AsyncIterator[tuple[GalleySide, RawSide]]:
    """Run all processes of both sides."""
    async with AsyncExitStack() as parts:
        producer = await parts.enter_async_context(
            Station("benchmarks.galley_producer", stage.url, NAMESPACE)
        )
        worker = await parts.enter_async_context(_galley_worker(stage, plan, folder))
        raw = stage.url, NAMESPACE, RAW_QUEUE
        raw_producer = await parts.enter_async_context(Station("benchmarks.raw_producer", *raw))
        raw_worker = await parts.enter_async_context(Station("benchmarks.raw_worker", *raw))
        yield GalleySide(stage, producer, worker), RawSide(raw_producer, raw_worker)


@asynccontextmanager
async def _galley_worker(stage: Stage, plan: Plan, folder: Path) -> AsyncIterator[subprocess.Popen[bytes]]:
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
            [sys.executable, "-m", "galley_worker"],
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
