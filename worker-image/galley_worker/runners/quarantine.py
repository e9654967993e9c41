"""Quarantine: works that were in a child when it died, any of which may have killed it.

Each is run again alone, one at a time, in a fresh child. The one that dies alone did it.
"""

from collections import deque
from collections.abc import Callable, Iterable

from galley_worker.ending import CutOff
from galley_worker.runners.births import Births
from galley_worker.runners.execution import Execution
from galley_worker.runners.process import HandlerProcess


class Quarantine:
    """Runs suspects one after the other."""

    def __init__(self, births: Births, send: Callable[[HandlerProcess, Execution], None]) -> None:
        self.waiting: deque[Execution] = deque()
        self.inmate: HandlerProcess | None = None
        """The child that runs a suspect; it gets no other work, and is killed afterwards."""
        self._births = births
        self._send = send
        self._expecting = False

    def admit(self, suspects: Iterable[Execution]) -> None:
        """Take in suspects, and begin with the first."""
        self.waiting.extend(suspects)
        self.proceed()

    def proceed(self) -> None:
        """Run the next suspect, if none is being run and children are being made."""
        if self.waiting and not (self._expecting or self.inmate or self._births.paused):
            self._expecting = self._births.begin(self._take_in)

    def left(self, process: HandlerProcess) -> None:
        """Note that a child is gone."""
        if self.inmate is process:
            self.inmate = None

    def cut_off(self, why: str) -> None:
        """End whoever waits here."""
        for execution in self.waiting:
            execution.end(CutOff(why))
        self.waiting.clear()

    def _take_in(self, process: HandlerProcess | None) -> None:
        self._expecting = False
        if process is None:
            return
        if self.waiting:
            self.inmate = process
            self._send(process, self.waiting.popleft())
        else:
            process.kill()
