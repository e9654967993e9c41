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
from types import TracebackType
from typing import Final, Protocol, Self

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

    async def renew(self) -> None:
        """Put a new worker in the place of the present one, if that makes a difference."""

    async def settle(self) -> None:
        """Return when the worker has nothing more to do with what it was told to take."""

    def worker_roles(self) -> Roles:
        """Return the worker's processes."""


class GalleySide:
    """`galley.AsyncClient` and `python -m galley_worker`."""

    queue = GALLEY_QUEUE

    def __init__(self, producer: Station, worker: "GalleyWorker") -> None:
        self.producer = producer
        self._worker = worker

    async def expect(self, count: int) -> None:
        """Do nothing: it is always ready for all there are."""

    async def renew(self) -> None:
        """End the worker and start another one."""
        await self._worker.end()
        self._worker.start()

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

    async def renew(self) -> None:
        """Do nothing: it treats all tasks alike."""

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
        galley_worker = await parts.enter_async_context(GalleyWorker(stage, plan, folder, worker))
        raw = stage.url, NAMESPACE, RAW_QUEUE
        raw_producer = await parts.enter_async_context(Station("benchmarks.raw_producer", *raw))
        raw_worker = await parts.enter_async_context(Station("benchmarks.raw_worker", *raw))
        yield GalleySide(producer, galley_worker), RawSide(raw_producer, raw_worker)


class GalleyWorker:
    """The process of `python -m galley_worker`. Use it as `async with`."""

    def __init__(
        self,
        stage: Stage,
        plan: Plan,
        folder: Path,
        command: Sequence[str] = GALLEY_WORKER,
        end_seconds: float = 10.0,
    ) -> None:
        """Args: command: what is started; end_seconds: how long it may take to end in order."""
        self._end_seconds = end_seconds
        manifest = folder / "queue.json"
        queue = queue_of(GALLEY_QUEUE, plan)
        manifest.write_text(json.dumps(queue.model_dump(mode="json", by_alias=True)))
        self._command, self._log = command, folder / "worker.log"
        self._told = {
            "GALLEY_SERVER": stage.url,
            "GALLEY_QUEUE_MANIFEST": str(manifest),
            "GALLEY_WORKER": _WORKER,
            "GALLEY_IMPORT_PATHS": str(_HANDLERS),
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; it comes when it comes."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env={**os.environ, **self._told},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    async def end(self) -> None:
        """End it in order, or kill it if that takes too long."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, self._end_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
