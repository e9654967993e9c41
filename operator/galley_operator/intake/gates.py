"""Tasks that wait for their queue: for its TaskQueue to be made or mended, or for room in it.

A queue without room is not asked by each of its tasks again and again: a few are let through now and then,
more each time, until one is refused. So a thousand waiting tasks cost as much as one.
"""

from typing import Final

from galley.lanes import HIGHEST_FIRST, Lane
from galley_operator.intake.admission import Until
from galley_operator.tasks.active_tasks import ActiveTask, QueueKey

_MOST_LET_THROUGH: Final = 1024


class _Gate:
    """The tasks that wait for one queue."""

    def __init__(self) -> None:
        self.shut = False
        self.refused = False
        self.allowance = 1
        self.waiting: dict[Lane, dict[str, None]] = {lane: {} for lane in HIGHEST_FIRST}
        self.let_through: set[str] = set()

    def take(self, most: int) -> list[str]:
        """Take so many of those waiting, of the highest lanes first, the oldest of each."""
        taken: list[str] = []
        for waiting in self.waiting.values():
            while waiting and len(taken) < most:
                taken.append(uid := next(iter(waiting)))
                del waiting[uid]
        return taken

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self.waiting.values())


class Gates:
    """The gates of all queues; most are open, and those are not here."""

    def __init__(self) -> None:
        self._gates: dict[QueueKey, _Gate] = {}

    def park(self, task: ActiveTask, until: Until) -> None:
        """Have a task wait; the first that finds no room shuts the gate behind it."""
        gate = self._gates.setdefault((task.namespace, task.queue), _Gate())
        gate.waiting[task.lane][task.uid] = None
        if until is Until.ROOM:
            gate.shut = gate.refused = True
        gate.let_through.discard(task.uid)

    def wait_at(self, task: ActiveTask) -> bool:
        """Park a task if its queue's gate is shut and did not let it through; returns whether it waits."""
        gate = self._gates.get((task.namespace, task.queue))
        if gate is None or not gate.shut or task.uid in gate.let_through:
            return False
        gate.waiting[task.lane][task.uid] = None
        return True

    def leave(self, task: ActiveTask) -> None:
        """Forget a task that was let in, or is no more."""
        gate = self._gates.get((task.namespace, task.queue))
        if gate is not None:
            gate.waiting[task.lane].pop(task.uid, None)
            gate.let_through.discard(task.uid)

    def open(self, queue: QueueKey) -> list[str]:
        """Return all that wait for a queue, since it changed."""
        gate = self._gates.pop(queue, None)
        return [] if gate is None else gate.take(len(gate))

    def let_through(self) -> list[str]:
        """Return those whose turn it is to try whether there is room by now; call it at a steady pace."""
        ready: list[str] = []
        for queue, gate in list(self._gates.items()):
            if not gate.shut or gate.let_through:
                continue
            gate.allowance = 1 if gate.refused else min(gate.allowance * 4, _MOST_LET_THROUGH)
            gate.refused = False
            taken = gate.take(gate.allowance)
            gate.let_through.update(taken)
            ready += taken
            if not taken:
                del self._gates[queue]
        return ready

    def __len__(self) -> int:
        return sum(len(gate) for gate in self._gates.values())
