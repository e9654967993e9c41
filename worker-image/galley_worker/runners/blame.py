"""Blame: which of the works that were in a child when it died caused that, and what becomes of the others.

A plain function runs alone, so the one begun last did it. Of async handlers it is the one whose code ran in
the event loop. If that is not known, each is run again alone, one at a time, in a new child, and its log says
so: the one that dies alone did it. Whatever had begun and is not to blame is handed back, which its history
shows; what had not begun goes to another child.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from galley_worker.ending import Crashed, CutOff
from galley_worker.runners.execution import Execution
from galley_worker.runners.process import HandlerProcess
from galley_worker.runners.starter import Starter


def blame(
    begun: Sequence[Execution], culprit: Execution | None, detail: str, *, ours: bool
) -> list[Execution]:
    """End the works a dead child had begun, and return those of which it is not known who caused it.

    Args:
        begun: the works without an answer whose handlers had begun.
        culprit: the one whose code ran, if known.
        detail: how the child died, in words.
        ours: whether it was killed by the worker, for the sake of the works that carry a reason to stop.
    """
    if len(begun) == 1 and not ours:
        culprit = begun[0]
    stopped = next((execution for execution in begun if execution.because is not None), None)
    other = stopped or culprit
    unknown = []
    for execution in begun:
        if execution.because is not None:
            execution.end(execution.because)
        elif execution is culprit and not ours:
            execution.end(Crashed(detail))
        elif other is not None or ours:
            why = f"it shared a process with {_named(other)}" if other else "it shared a process"
            execution.end(CutOff(f"{why}, which {'was killed' if ours else 'died'}: {detail}"))
        else:
            unknown.append(execution)
    return unknown


def _named(execution: Execution) -> str:
    return f"task {execution.work.task_id} (handler {execution.work.handler})"


class Quarantine:
    """Runs suspects one after the other."""

    def __init__(self, starter: Starter, send: Callable[[HandlerProcess, Execution], None]) -> None:
        self.waiting: deque[Execution] = deque()
        self.child: HandlerProcess | None = None
        """The child that runs a suspect; it gets no other work, and is killed afterwards."""
        self._starter = starter
        self._send = send
        self._expecting = False

    def admit(self, suspects: Iterable[Execution]) -> None:
        """Take in suspects, and begin with the first."""
        self.waiting.extend(suspects)
        self.proceed()

    def proceed(self) -> None:
        """Run the next suspect, if none is being run and children are being made."""
        if self.waiting and not (self._expecting or self.child or self._starter.paused):
            self._expecting = self._starter.begin(self._take_in)

    def left(self, process: HandlerProcess) -> None:
        """Note that a child is gone."""
        if self.child is process:
            self.child = None

    def cut_off(self, why: str) -> None:
        """End the works that wait here."""
        for execution in self.waiting:
            execution.end(CutOff(why))
        self.waiting.clear()

    def _take_in(self, process: HandlerProcess | None) -> None:
        self._expecting = False
        if process is None:
            return
        if self.waiting:
            self.child = process
            self._send(process, self.waiting.popleft())
        else:
            process.kill()
