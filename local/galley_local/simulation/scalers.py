"""Who decides in a simulation: Galley's own policy, and models of others.

The models are favourable to the others: KEDA's metric is always fresh, its target is exactly a worker's
slots, starting workers count as replicas, and workers that are stopped finish what they run for 30 seconds.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from galley.backlog import LaneBacklog, QueueBacklog
from galley.lanes import Lane
from galley_local.simulation.trace import Trace
from galley_local.simulation.world import SWEEP_SECONDS, Outcome, Worker, World
from galley_operator.autoscaler.decide import DRAIN_SECONDS, Decision, decide
from galley_operator.autoscaler.signals import Memory, ScalingPolicy, Signals
from galley_operator.fleet.fleet import WorkerPhase, WorkerView, Workforce, removable

_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)

_GRACE_SECONDS: Final = 30.0
"""Kubernetes' own `terminationGracePeriodSeconds`."""


class Galley:
    """The policy of the operator and of `galley dev`, by the same function."""

    def __init__(self, policy: ScalingPolicy) -> None:
        self._policy = policy
        self.memory: Memory | None = None
        self.last: Decision | None = None
        self._again = -1.0

    def look(self, world: World) -> None:
        """Decide, and do what was decided, as `Scaler.sweep` does."""
        views = {worker.name: _view(worker, world) for worker in world.workers.values()}
        urgent, other = (LaneBacklog(lane, *world.of_lane(lane)) for lane in (Lane.CRITICAL, Lane.NORMAL))
        backlog = QueueBacklog((urgent, other))
        decision = decide(
            Signals(backlog, Workforce(tuple(views.values()))),
            self._policy, self.memory, _BEGIN + timedelta(seconds=world.now),
        )  # fmt: skip
        self.memory, self.last = decision.memory, decision
        for name in decision.undrain:
            world.drain(world.workers[name], 0)
        if decision.scale_to is not None:
            self._scale(world, views, decision.scale_to)
        for name in decision.drain:
            if (worker := world.workers.get(name)) is not None:
                world.drain(worker, DRAIN_SECONDS)
        if decision.look_in < SWEEP_SECONDS and self._again <= world.now:
            self._again = world.now + decision.look_in
            world.look_again(decision.look_in)

    @staticmethod
    def _scale(world: World, views: dict[str, WorkerView], number: int) -> None:
        present = world.present
        world.start(max(0, number - len(present)))
        surplus = len(present) - number
        free = sorted((w for w in present if removable(views[w.name])), key=lambda w: -w.since)
        for worker in free[: max(0, surplus)]:
            world.stop(worker, _GRACE_SECONDS)


def _view(worker: Worker, world: World) -> WorkerView:
    worker.count(world.now)
    if worker.stopping:
        phase = WorkerPhase.STOPPING
    elif world.now < worker.ready_at:
        phase = WorkerPhase.STARTING
    else:
        phase = WorkerPhase.DRAINING if world.now < worker.drained_until else WorkerPhase.READY
    since = _BEGIN + timedelta(seconds=worker.since)
    return WorkerView(
        worker.name, phase, len(worker.running), world.trace.slots, since, worker.done, worker.busy_seconds
    )


class Keda:
    """KEDA with a HorizontalPodAutoscaler, by their documented defaults.

    KEDA looks every 30 s while there are no replicas, starts the first, and takes the last away after 300 s
    without work. The autoscaler looks every 15 s: one worker for each `slots` tasks that wait or run, 10 %
    of tolerance, at most twice as many or 4 more in 15 s, and down to the highest number that was wanted in
    300 s. Neither knows when a load begins, so when in their 30 and 15 s they look is drawn. Whom a
    ReplicaSet removes does not depend on what they run: here they are drawn, too.
    """

    POLLING, COOLDOWN, SYNC, STABLE, TOLERANCE = 30.0, 300.0, 15.0, 300.0, 0.1

    def __init__(self, *, first_poll: int | None = None) -> None:
        """Args: first_poll: seconds after the start of a trace; random if None."""
        self._first_poll = first_poll
        self._first_sync: int | None = None
        self._active_at = -self.COOLDOWN
        self._wanted: deque[tuple[float, int]] = deque()

    def look(self, world: World) -> None:
        """Do what is due at this second."""
        if world.now % 1.0:
            return
        if self._first_poll is None:
            self._first_poll = world.chance.randrange(int(self.POLLING))
        if self._first_sync is None:
            self._first_sync = world.chance.randrange(int(self.SYNC))
        lag, present = world.waiting + world.running, len(world.present)
        if (world.now - self._first_poll) % self.POLLING == 0:
            if lag:
                self._active_at = world.now
            if lag and not present:
                world.start(1)
                return
            if not lag and present and world.now - self._active_at >= self.COOLDOWN:
                self._to(world, 0)
                self._wanted.clear()
                return
        if present and (world.now - self._first_sync) % self.SYNC == 0:
            self._sync(world, lag, present)

    def _sync(self, world: World, lag: int, present: int) -> None:
        trace = world.trace
        ratio = lag / (trace.slots * present)
        wanted = present if abs(ratio - 1) <= self.TOLERANCE else math.ceil(lag / trace.slots)
        wanted = max(1, min(trace.max_workers, wanted))
        self._wanted.append((world.now, wanted))
        while self._wanted[0][0] < world.now - self.STABLE:
            self._wanted.popleft()
        stable = max(each for _, each in self._wanted)
        self._to(
            world, min(wanted, max(2 * present, present + 4)) if wanted > present else min(present, stable)
        )

    @staticmethod
    def _to(world: World, number: int) -> None:
        present = world.present
        world.start(max(0, number - len(present)))
        for worker in world.chance.sample(present, max(0, len(present) - number)):
            world.stop(worker, _GRACE_SECONDS)


class Fixed:
    """As many workers as are allowed, from the beginning to the end."""

    def look(self, world: World) -> None:
        """Start them all at the first look, and stop them at the end of the trace."""
        if not world.now:
            world.start(world.trace.max_workers - len(world.present))
        elif world.now >= world.trace.duration and not world.waiting and not world.running:
            for worker in world.present:
                world.stop(worker, _GRACE_SECONDS)


@dataclass(slots=True)
class _Level:
    """The k-th worker of a plan: from when it is needed, and until when."""

    begin: float
    end: float


def clairvoyant(trace: Trace) -> Outcome:
    """Return what would come of knowing each task before it comes: a bound, not a scaler one could have.

    Workers are ready when the first task comes that needs them, go the moment none needs them, and are kept
    where a new start would cost more. Tasks wait only where `max_workers` makes them. Tasks
    are packed as if they could move between workers, so that its cost is below what is possible.
    """
    unbounded = World(trace, _Ready(), 0)
    outcome = unbounded.run()
    busy: list[tuple[float, int]] = []
    for wait, task in zip(_by_number(unbounded), trace.arrivals, strict=True):
        busy += [(task.at + wait, 1), (task.at + wait + task.seconds, -1)]
    cost, counts = _planned(sorted(busy), trace)
    return Outcome(outcome.waits, outcome.urgent_waits, cost, 0, counts, outcome.backlog)


def _by_number(world: World) -> Iterator[float]:
    return (world.waits[number] for number in range(len(world.trace.arrivals)))


def _planned(busy: list[tuple[float, int]], trace: Trace) -> tuple[float, tuple[tuple[float, int], ...]]:
    """Return the cost of the workers that so many busy slots need, and how many there are when."""
    levels: dict[int, list[_Level]] = {}
    running, needed = 0, 0
    for at, change in busy:
        running += change
        now = math.ceil(running / trace.slots)
        for level in range(needed, now):
            spans = levels.setdefault(level, [])
            if spans and at - spans[-1].end <= trace.start_seconds:
                spans[-1].end = math.inf
            else:
                spans.append(_Level(at, math.inf))
        for level in range(now, needed):
            levels[level][-1].end = at
        needed = now
    spans = [span for each in levels.values() for span in each]
    cost = sum(span.end - span.begin + trace.start_seconds for span in spans)
    steps = sorted(
        [(max(0.0, s.begin - trace.start_seconds), 1) for s in spans] + [(s.end, -1) for s in spans]
    )
    counts, number = [(0.0, 0)], 0
    for at, change in steps:
        number += change
        counts.append((at, number))
    return cost, tuple(counts)


def planned(trace: Trace, seed: int = 0) -> Outcome:
    """Return what comes of carrying out the clairvoyant's plan, with tasks that stay where they began.

    What a scaler costs that looks once a second and ends no busy worker, if it knows each task. The trace
    begins a start later, so that workers are ready for its first tasks.
    """
    later = trace.start_seconds + 2 * SWEEP_SECONDS
    arrivals = tuple(replace(task, at=task.at + later) for task in trace.arrivals)
    moved = replace(trace, arrivals=arrivals, duration=trace.duration + later)
    return World(moved, _Planned(clairvoyant(moved).counts), seed).run()


class _Planned:
    """Has as many workers as a plan says, and drains those that run least before they go."""

    def __init__(self, plan: tuple[tuple[float, int], ...]) -> None:
        self._plan, self._index = plan, 0

    def look(self, world: World) -> None:
        """Start, drain and stop by what the plan says until the next look."""
        soon = world.now + SWEEP_SECONDS
        numbers = [self._plan[self._index][1]]
        while self._index + 1 < len(self._plan) and self._plan[self._index + 1][0] <= soon:
            self._index += 1
            numbers.append(self._plan[self._index][1])
        present = world.present
        staying = [worker for worker in present if worker.drained_until <= world.now]
        leaving = sorted((w for w in present if w not in staying), key=lambda w: -len(w.running))
        wanted = max(*numbers, min(1, world.waiting)) - len(staying)
        for worker in leaving[: max(0, wanted)]:
            world.drain(worker, 0)
        world.start(max(0, wanted - len(leaving)))
        going = sorted(staying, key=lambda w: (w.ready_at > world.now, len(w.running)))[: max(0, -wanted)]
        for worker in going:
            world.drain(worker, world.trace.duration)
        for worker in (*leaving[max(0, wanted) :], *going):
            if not worker.running:
                world.stop(worker, _GRACE_SECONDS)


class _Ready:
    """All workers, ready before the first task."""

    def look(self, world: World) -> None:
        if not world.now and not world.workers:
            world.start(world.trace.max_workers)
            for worker in world.present:
                worker.ready_at = 0.0
                world.drain(worker, 0)
        elif world.now >= world.trace.duration and not world.waiting and not world.running:
            for worker in world.present:
                world.stop(worker, 0)
