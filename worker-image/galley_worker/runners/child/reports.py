"""Reports of handlers, on their way to the supervisor: at once, and not more than ten a second of an attempt.

Any thread of the handler may report. The supervisor writes less often still; but it has to read all that is
sent to it.
"""

import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final

from galley_worker.runners import frames
from galley_worker.runners.child.wire import Wire
from galley_worker.runners.frames import Progressed, Saved

PAUSE_SECONDS: Final = 0.1
"""Time between two reports of progress of one attempt."""


class Reports:
    """The reports of one process."""

    def __init__(self, wire: Wire, runs: Callable[[int], bool]) -> None:
        """Args: runs: whether an order is running."""
        self._wire = wire
        self._runs = runs
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._sent: dict[int, float] = {}
        self._waiting: dict[int, Progressed] = {}
        self._timer: threading.Timer | None = None

    def progress(self, order: int, fraction: float | None, text: str) -> bool:
        """Pass on how far an attempt is; return False if it does not run here."""
        if not self._here(order):
            return False
        report, now = Progressed(order, fraction, text), monotonic()
        with self._lock:
            if now - self._sent.get(order, 0.0) < PAUSE_SECONDS:
                self._waiting[order] = report
                self._wake_later()
                return True
            self._sent[order] = now
        self._wire.send(frames.encode([report]))
        return True

    def checkpoint(self, order: int, body: bytes) -> bool:
        """Pass on a checkpoint; return False if its attempt does not run here."""
        if not self._here(order):
            return False
        self._wire.send(frames.encode([Saved(order, body)]))
        return True

    def end(self, order: int) -> None:
        """Pass on what an attempt reported last, before its answer."""
        if order in self._sent:
            with self._lock:
                del self._sent[order]
                report = self._waiting.pop(order, None)
            if report is not None:
                self._wire.send(frames.encode([report]))

    def end_batch(self, order: frames.RunBatch) -> None:
        """Pass on what the members of a batch reported last, before its answer."""
        for place in range(len(order.members) if self._sent else 0):
            self.end(frames.member_id(order.id, place))

    def _here(self, order: int) -> bool:
        # A process that the handler forked has a copy of all this, and must not write to our socket.
        return os.getpid() == self._pid and self._runs(order)

    def _wake_later(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(PAUSE_SECONDS, self._send_waiting)
            self._timer.daemon = True
            self._timer.start()

    def _send_waiting(self) -> None:
        with self._lock:
            self._timer = None
            waiting, self._waiting = list(self._waiting.values()), {}
            now = monotonic()
            self._sent.update((report.id, now) for report in waiting)
        if waiting:
            self._wire.send(frames.encode(waiting))
