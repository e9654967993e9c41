"""One worker of a fleet: restarts its process until the worker is removed."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from galley.broker.control import Heartbeat
from galley_local.worker_log import WorkerLog
from galley_local.worker_process import CANNOT_START, WorkerPlace, WorkerProcess, running
from galley_operator.fleet.fleet import WorkerPhase, WorkerView

SILENT_SECONDS: Final = 3.5
"""After three missing heartbeats the last one no longer counts."""

LONGEST_PAUSE_SECONDS: Final = 30.0

STEADY_SECONDS: Final = 30.0
"""A worker that was ready for this long before it ended is restarted without a pause."""

KILL_MARGIN_SECONDS: Final = 10.0
"""Time after its grace period in which a worker hands back its tasks; after that it is killed."""

_STARTUP_SECONDS: Final = 0.05
"""No worker starts faster: a heartbeat within this time is from the previous process."""


def pause_before_restart(deaths: int) -> float:
    """Return the pause in seconds after this many failures in a row: 0, then 1, 2, 4 up to 30."""
    return 0.0 if deaths <= 1 else min(LONGEST_PAUSE_SECONDS, 2.0 ** min(deaths - 2, 10))


class Seat:
    """A worker by name; its process may change."""

    def __init__(
        self,
        name: str,
        place: WorkerPlace,
        note: Callable[[str], None],
        *,
        slots: int,
        grace_seconds: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.name = name
        self.problem = ""
        """Why the worker does not run; empty while it runs."""
        self._note = note
        self._place, self._slots, self._grace, self._clock = place, slots, grace_seconds, clock
        self._since = clock()
        self._removed = asyncio.Event()
        self._beat: Heartbeat | None = None
        self._heard_at = float("-inf")
        self._heard: datetime | None = None
        self._started_at = float("-inf")
        self._ready_at: float | None = None
        self._deaths = 0

    def hear(self, beat: Heartbeat) -> None:
        """Handle a heartbeat of this worker."""
        now = asyncio.get_running_loop().time()
        if now - self._started_at < _STARTUP_SECONDS:
            return
        self._beat, self._heard_at, self._heard = beat, now, self._clock()
        if beat.ready and self._ready_at is None:
            self._ready_at = now
            self.problem = ""

    @property
    def failures(self) -> int:
        """How often it was started in a row and did not become ready."""
        return self._deaths if self._ready_at is None else 0

    def remove(self) -> None:
        """Drain the worker."""
        self._removed.set()

    @property
    def removed(self) -> bool:
        """Whether the worker was told to drain and end."""
        return self._removed.is_set()

    def view(self) -> WorkerView:
        """Return the current state of the worker."""
        silent = asyncio.get_running_loop().time() - self._heard_at > SILENT_SECONDS
        beat = self._beat
        return WorkerView(
            self.name,
            self._phase(),
            beat.busy if beat is not None and not silent else None,
            self._slots,
            self._since,
            beat.done if beat is not None else 0,
            beat.busy_seconds if beat is not None else 0.0,
            beat is not None and beat.circuit_open,
            self._heard,
        )

    def _phase(self) -> WorkerPhase:
        if self.removed:
            return WorkerPhase.STOPPING
        if self._ready_at is None:
            return WorkerPhase.FAILED if self._deaths else WorkerPhase.STARTING
        return WorkerPhase.DRAINING if self._beat is not None and self._beat.draining else WorkerPhase.READY

    async def run(self) -> None:
        """Keep the worker running until it is removed and has ended."""
        with WorkerLog(self._place.logs / f"{self.name}.log") as log:
            while not self.removed:
                await self._run_once(log)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_before_restart(self._deaths)):
                        await self._removed.wait()

    async def _run_once(self, log: WorkerLog) -> None:
        loop = asyncio.get_running_loop()
        self._started_at = loop.time()
        self._since = self._clock()
        try:
            async with running(self._place, self.name, log) as process:
                code = await self._watch(process)
            problem = self._why(code, log)
        except OSError as error:
            problem = f"worker {self.name} cannot be started: {error.strerror or error}"
        steady = self._ready_at is not None and loop.time() - self._ready_at >= STEADY_SECONDS
        self._deaths = 1 if steady else self._deaths + 1
        self._beat, self._heard_at, self._ready_at = None, float("-inf"), None
        self.problem = problem
        if not self.removed:
            self._note(problem)

    async def _watch(self, process: WorkerProcess) -> int:
        """Return the exit code; a removed worker is drained, then killed."""
        exited = asyncio.ensure_future(process.wait())
        removed = asyncio.ensure_future(self._removed.wait())
        try:
            await asyncio.wait([exited, removed], return_when=asyncio.FIRST_COMPLETED)
            if not exited.done():
                process.terminate()
                await asyncio.wait([exited], timeout=self._grace + KILL_MARGIN_SECONDS)
                process.kill()
            return await exited
        finally:
            exited.cancel()
            removed.cancel()

    def _why(self, code: int, log: WorkerLog) -> str:
        if code == CANNOT_START and (said := log.last_error()) is not None:
            return said[0]
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        words = log.last_line()
        last = f"; its last line: {words}" if words else ""
        return f"worker {self.name} ended {how}{last}"
