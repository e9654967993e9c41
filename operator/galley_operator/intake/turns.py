"""Whose turn it is: the order in which Tasks are looked at, and what those wait for that are not admitted.

A queue without room is not asked by each of its tasks again and again: a few are let through every half
second, more each time, until one is refused. So a thousand waiting tasks cost as much as one.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from galley.lanes import HIGHEST_FIRST, Lane
from galley_operator.cluster.reflector import Key
from galley_operator.key_queue import Backoff, KeyQueue
from galley_operator.tasks.active_tasks import ActiveTask, ActiveTasks, QueueKey
from galley_operator.tasks.report import Pending, Report, Unclear, Until

GATE_SECONDS: Final = 0.5
"""How often a queue without room is asked whether it has some."""

_LATER_SECONDS: Final = 5.0

_MOST_LET_THROUGH: Final = 1024


class _Gate:
    """The tasks that wait for one queue."""

    def __init__(self) -> None:
        self.refusal: Pending | None = None
        """What the last task that found no room was told; the gate is shut while there is one."""
        self.refused = False
        self.allowance = 1
        self.waiting: dict[Lane, dict[Key, None]] = {lane: {} for lane in HIGHEST_FIRST}
        self.let_through: set[Key] = set()

    def take(self, most: int) -> list[Key]:
        """Take so many of those waiting, of the highest lanes first, the oldest of each."""
        taken: list[Key] = []
        for waiting in self.waiting.values():
            while waiting and len(taken) < most:
                taken.append(key := next(iter(waiting)))
                del waiting[key]
        return taken

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self.waiting.values())


class Gates:
    """The gates of all queues; most are open, and those are not here."""

    def __init__(self) -> None:
        self._gates: dict[QueueKey, _Gate] = {}
        self.shut = asyncio.Event()
        """Set while there is a gate that is, or may be, shut: `park` sets it, `let_through` takes it away."""

    def park(self, task: ActiveTask, report: Pending) -> None:
        """Have a task wait; the first that finds no room shuts the gate behind it."""
        gate = self._gates.setdefault((task.namespace, task.queue), _Gate())
        self.shut.set()
        gate.waiting[task.lane][task.key] = None
        if report.until is Until.ROOM:
            gate.refusal, gate.refused = report, True
        gate.let_through.discard(task.key)

    def wait_at(self, task: ActiveTask) -> Pending | None:
        """Park a task if its queue's gate is shut and did not let it through; returns why it waits."""
        gate = self._gates.get((task.namespace, task.queue))
        if gate is None or gate.refusal is None or task.key in gate.let_through:
            return None
        gate.waiting[task.lane][task.key] = None
        return gate.refusal

    def leave(self, task: ActiveTask) -> None:
        """Forget a task that was admitted, or is gone."""
        gate = self._gates.get((task.namespace, task.queue))
        if gate is not None:
            gate.waiting[task.lane].pop(task.key, None)
            gate.let_through.discard(task.key)

    def open(self, queue: QueueKey) -> list[Key]:
        """Return all that wait for a queue, since it changed."""
        gate = self._gates.pop(queue, None)
        return [] if gate is None else gate.take(len(gate))

    def let_through(self) -> list[Key]:
        """Return those whose turn it is to try whether there is room by now; call it at a steady pace."""
        ready: list[Key] = []
        for queue, gate in list(self._gates.items()):
            if gate.refusal is None or gate.let_through:
                continue
            gate.allowance = 1 if gate.refused else min(gate.allowance * 4, _MOST_LET_THROUGH)
            gate.refused = False
            taken = gate.take(gate.allowance)
            gate.let_through.update(taken)
            ready += taken
            if not taken:
                del self._gates[queue]
        if not self._gates:
            self.shut.clear()
        return ready

    def __len__(self) -> int:
        return sum(len(gate) for gate in self._gates.values())


class Turns:
    """Names of Tasks, each looked at by one at a time."""

    def __init__(self, tasks: ActiveTasks, parked: Callable[[ActiveTask, Pending], object]) -> None:
        """Args: parked: called with a Task that waits behind others, and what those were told."""
        self.gates = Gates()
        self._tasks, self._parked = tasks, parked
        self._keys: KeyQueue[Key] = KeyQueue(asyncio.get_running_loop().time)
        self._backoff: Backoff[Key] = Backoff(random.random)

    def add(self, key: Key, *, patient: bool = False) -> None:
        """Have a name looked at; after all others if `patient`."""
        self._keys.add(key, patient=patient)

    async def next(self) -> Key:
        """Return the next name, which does not come again until `done`. For one caller at a time."""
        while True:
            key = await self._keys.get()
            task = self._tasks.get(key)
            refusal = None if task is None or task.unsure else self.gates.wait_at(task)
            if task is None or refusal is None:
                return key
            self._keys.done(key)
            self._parked(task, refusal)

    def done(self, key: Key, report: Report | None) -> None:
        """Take in what a look came to; None if nothing was to be done."""
        self._keys.done(key)
        pending = report if isinstance(report, Pending) else None
        until = pending.until if pending is not None else None
        task = self._tasks.get(key)
        if until is Until.PAUSE:
            self._keys.add_later(key, self._backoff.after_failure(key))
            return
        self._backoff.forget(key)
        if until is Until.LATER:
            self._keys.add_later(key, _LATER_SECONDS)
        elif pending is not None and task is not None:
            self.gates.park(task, pending)
        elif isinstance(report, Unclear):
            self._keys.add(key)
        elif task is not None:
            self.gates.leave(task)

    def queue_changed(self, queue: QueueKey) -> None:
        """Have all looked at that wait for a queue."""
        for key in self.gates.open(queue):
            self._keys.add(key)

    async def open_gates(self) -> None:
        """Let a few through that wait for room, now and then, until cancelled."""
        while True:
            await self.gates.shut.wait()
            await asyncio.sleep(GATE_SECONDS)
            for key in self.gates.let_through():
                self._keys.add(key)

    def __len__(self) -> int:
        return len(self._keys) + len(self.gates)
