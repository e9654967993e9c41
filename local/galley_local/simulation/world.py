"""Workers and tasks in simulated time: what a scaler sees, and what its orders do. No clock but its own."""

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Final, Protocol

from galley.lanes import Lane
from galley_local.simulation.trace import Arrival, Trace

SWEEP_SECONDS: Final = 1.0

TAIL_SECONDS: Final = 1200.0
"""Time after the end of a trace in which workers still cost, until they are gone."""


@dataclass(slots=True, eq=False)
class Worker:
    """One simulated worker."""

    name: str
    since: float
    ready_at: float
    running: dict[int, Arrival] = field(default_factory=dict)
    done: int = 0
    busy_seconds: float = 0.0
    counted_at: float = 0.0
    drained_until: float = 0.0
    stopping: bool = False

    def count(self, now: float) -> None:
        """Bring the seconds its slots were busy up to date."""
        self.busy_seconds += len(self.running) * (now - self.counted_at)
        self.counted_at = now


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trace."""

    waits: tuple[float, ...]
    """Seconds each task waited until its last start."""
    urgent_waits: tuple[float, ...]
    worker_seconds: float
    killed: int
    """Tasks that ran and were ended by the removal of their worker."""
    counts: tuple[tuple[float, int], ...]
    """Times, and workers from then on."""
    backlog: tuple[tuple[float, int], ...]
    """Times, and tasks that waited."""


class Scaler(Protocol):
    """Decides in the simulated world."""

    def look(self, world: "World") -> None:
        """See what there is, and give orders; called once a second, and when the first task comes."""
        ...


class World:
    """One queue and its workers under one trace and one scaler."""

    def __init__(self, trace: Trace, scaler: Scaler, seed: int = 0) -> None:
        self.trace, self.now = trace, 0.0
        self.workers: dict[str, Worker] = {}
        self.chance = random.Random(seed)  # noqa: S311 - a load, no secret
        self._scaler = scaler
        self._waiting: tuple[deque[tuple[int, Arrival]], deque[tuple[int, Arrival]]] = (deque(), deque())
        self._free: dict[str, Worker] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order, self._names = count(), count(1)
        self.waits: dict[int, float] = {}
        """Seconds each task waited until its last start, by its number."""
        self._killed, self._cost, self._left = 0, 0.0, len(trace.arrivals)
        self._counts: list[tuple[float, int]] = [(0.0, 0)]
        self._backlog: list[tuple[float, int]] = []

    @property
    def waiting(self) -> int:
        """Tasks that wait for a slot."""
        return len(self._waiting[0]) + len(self._waiting[1])

    @property
    def running(self) -> int:
        """Tasks that run."""
        return sum(len(worker.running) for worker in self.workers.values())

    def of_lane(self, lane: Lane) -> tuple[int, int]:
        """Return how many tasks of a lane wait and run; those that are not urgent are `normal`."""
        urgent = lane is Lane.CRITICAL
        running = sum(
            task.urgent == urgent for worker in self.workers.values() for task in worker.running.values()
        )
        return len(self._waiting[not urgent]), running

    @property
    def present(self) -> list[Worker]:
        """Workers that were not told to end."""
        return [worker for worker in self.workers.values() if not worker.stopping]

    def run(self) -> Outcome:
        """Run to the end."""
        self._next_arrival(0)
        self._at(0.0, self._sweep)
        while self._events and (self._left or self.workers or self.now < self.trace.duration):
            at = self._events[0][0]
            if self._left == 0 and at > self.trace.duration + TAIL_SECONDS:
                break
            at, _, event = heapq.heappop(self._events)
            self.now = at
            event()
        for worker in list(self.workers.values()):
            self._gone(worker)
        arrivals = self.trace.arrivals
        return Outcome(
            tuple(self.waits.values()),
            tuple(wait for number, wait in self.waits.items() if arrivals[number].urgent),
            self._cost, self._killed, tuple(self._counts), tuple(self._backlog),
        )  # fmt: skip

    # Orders.

    def start(self, workers: int) -> None:
        """Start so many workers."""
        for _ in range(workers):
            worker = Worker(f"w{next(self._names)}", self.now, self.now + self.trace.start_seconds)
            self.workers[worker.name] = worker
            self._at(worker.ready_at, partial(self._ready, worker))
        self._note()

    def drain(self, worker: Worker, seconds: float) -> None:
        """Have a worker take no tasks for so long; 0 ends that."""
        worker.drained_until = self.now + seconds
        if seconds:
            self._free.pop(worker.name, None)
            self._at(worker.drained_until, lambda: self._resume(worker))
        else:
            self._resume(worker)

    def stop(self, worker: Worker, grace: float) -> None:
        """Have a worker end: what it runs may end within the grace period, then it is killed."""
        worker.stopping = True
        self._free.pop(worker.name, None)
        self._note()
        if not worker.running:
            self._gone(worker)
        else:
            self._at(self.now + grace, lambda: self._kill(worker))

    # Events.

    def _at(self, at: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._order), event))

    def look_again(self, seconds: float) -> None:
        """Have the scaler look once more after so many seconds, beside its looks once a second."""
        self._at(self.now + seconds, partial(self._scaler.look, self))

    def _next_arrival(self, number: int) -> None:
        if number < len(self.trace.arrivals):
            self._at(self.trace.arrivals[number].at, lambda: self._arrive(number))

    def _arrive(self, number: int) -> None:
        task = self.trace.arrivals[number]
        idle = not self.workers and not self.waiting
        self._waiting[not task.urgent].append((number, task))
        self._next_arrival(number + 1)
        self._assign()
        if idle:
            self._scaler.look(self)

    def _sweep(self) -> None:
        self._scaler.look(self)
        self._backlog.append((self.now, self.waiting))
        self._at(self.now + SWEEP_SECONDS, self._sweep)

    def _ready(self, worker: Worker) -> None:
        worker.counted_at = self.now
        self._resume(worker)

    def _resume(self, worker: Worker) -> None:
        if self._takes(worker):
            self._free[worker.name] = worker
            self._assign()

    def _takes(self, worker: Worker) -> bool:
        return (
            worker.name in self.workers
            and not worker.stopping
            and self.now >= worker.ready_at
            and self.now >= worker.drained_until
            and len(worker.running) < self.trace.slots
        )

    def _assign(self) -> None:
        """Give tasks to free slots, one worker after the other."""
        while self._free and (lane := self._waiting[0] or self._waiting[1]):
            name = next(iter(self._free))
            worker = self._free.pop(name)
            number, task = lane.popleft()
            worker.count(self.now)
            worker.running[number] = task
            self.waits[number] = self.now - task.at
            self._at(self.now + task.seconds, partial(self._end, worker, number))
            if self._takes(worker):
                self._free[name] = worker

    def _end(self, worker: Worker, number: int) -> None:
        if worker.name not in self.workers or number not in worker.running:
            return
        worker.count(self.now)
        del worker.running[number]
        worker.done += 1
        self._left -= 1
        if worker.stopping and not worker.running:
            self._gone(worker)
        self._resume(worker)

    def _kill(self, worker: Worker) -> None:
        if worker.name not in self.workers:
            return
        self._killed += len(worker.running)
        for number, task in worker.running.items():
            self._waiting[not task.urgent].appendleft((number, task))
        worker.running = {}
        self._gone(worker)
        self._assign()

    def _gone(self, worker: Worker) -> None:
        self._cost += self.now - worker.since
        del self.workers[worker.name]

    def _note(self) -> None:
        self._counts.append((self.now, len(self.present)))
