"""One run of a worker's process: from its start to its exit code."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from galley_local.warm_start import Forked, WarmStarter
from galley_local.worker_log import WorkerLog
from galley_worker.settings import PREFIX, WorkerSettings

CANNOT_START: Final = 3
"""Exit code of a worker that logged why it cannot start."""

_LAST_WORDS_SECONDS: Final = 0.5
"""How long to wait for output after the exit: a stray grandchild may keep the pipe open."""

UNKNOWN_HANDLER_SECONDS: Final = 5.0
"""As long as it takes to replace the workers after an edit; a wrong name should not wait for a rollout."""


@dataclass(frozen=True)
class WorkerPlace:
    """Paths and settings of the workers of a queue."""

    folder: Path
    """Their working directory."""
    import_paths: tuple[Path, ...]
    """Where the queue's modules are found."""
    manifest: Path
    """File with the TaskQueue as JSON."""
    logs: Path
    """Folder of their logs."""
    server: str
    namespace: str
    starter: WarmStarter
    keys: str = ""
    """Keys of the encrypted queues, as `GALLEY_KEYS` has them."""
    signing_keys: str = ""
    """Keys that sign requests, as `GALLEY_SIGNING_KEYS` has them."""

    def environment(self, worker: str) -> dict[str, str]:
        """Return the environment of a worker: ours, but of Galley's settings only those of this worker.

        What a shell has for commands on a cluster (credentials, a log level) does not reach local workers.
        """
        ours = {
            name: value
            for name, value in os.environ.items()
            if name.removeprefix(PREFIX).lower() not in WorkerSettings.model_fields
        }
        keys = {"GALLEY_KEYS": self.keys, "GALLEY_SIGNING_KEYS": self.signing_keys}
        return (
            ours
            | {name: value for name, value in keys.items() if value}
            | {
                "GALLEY_SERVER": self.server,
                "GALLEY_NAMESPACE": self.namespace,
                "GALLEY_WORKER": worker,
                "GALLEY_CACHE": str(self.logs.parent / "cache"),
                "GALLEY_OBJECTS": os.environ.get("GALLEY_OBJECTS", ""),
                "GALLEY_QUEUE_MANIFEST": str(self.manifest),
                "GALLEY_IMPORT_PATHS": json.dumps([str(path) for path in self.import_paths]),
                "GALLEY_HEALTH_PORT": "0",
                "GALLEY_UNKNOWN_HANDLER_SECONDS": f"{UNKNOWN_HANDLER_SECONDS:g}",
            }
        )


class WorkerProcess:
    """A started process; `running` makes one."""

    def __init__(self, process: Forked) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def wait(self) -> int:
        """Return the exit code, negative for a signal."""
        return await self._process.wait()

    def terminate(self) -> None:
        """Request a drain (SIGTERM). A frozen process is continued, since it handles no signal."""
        self._process.send_signal(signal.SIGTERM)
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it; the processes of its handlers notice and end, too."""
        self._process.send_signal(signal.SIGKILL)


@asynccontextmanager
async def running(place: WorkerPlace, worker: str, log: WorkerLog) -> AsyncIterator[WorkerProcess]:
    """Start a worker and yield its process, which is killed on exit.

    Raises:
        OSError: if no process can be started.
    """
    reading, writing = os.pipe()
    try:
        process = await place.starter.start(place.environment(worker), place.folder, writing)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    copying = asyncio.create_task(_copy(reading, log), name=f"log of {worker}")
    ours = WorkerProcess(process)
    try:
        yield ours
    finally:
        ours.kill()
        await process.wait()
        process.close()
        await asyncio.wait([copying], timeout=_LAST_WORDS_SECONDS)
        copying.cancel()


async def _copy(descriptor: int, log: WorkerLog) -> None:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        while chunk := await reader.read(65_536):
            log.write(chunk)
    finally:
        transport.close()
