"""What a decision about workers is made from: work and workers, the owner's policy, and earlier decisions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, Self

from galley.backlog import QueueBacklog, Unknown
from galley.key import Rate
from galley.lanes import Lane
from galley.resources.task_queue import Minimum, TaskQueue
from galley_operator.autoscaler.learned import Learned
from galley_operator.fleet.fleet import Workforce

IDLE_SECONDS: Final = 30.0
"""`idle_seconds` where none is set."""

FIRST_WORTH: Final = 0.25
"""What keeping workers through pauses is taken to save before one was seen: a long one contradicts it."""

_KEPT_STARTS: Final = 2.0
"""Times a worker's start for which keeping it through a pause pays: the start itself, and as much again,
since the first tasks after the pause wait for it."""

_KEPT_LEAST: Final = 10.0
"""Seconds for which it pays at least: a pod more is work for the cluster, too, however quick it starts."""

_PAUSE_WEIGHT: Final = 0.3
"""Of the last pause beside those before."""

_NO_TARGETS: Final[Mapping[Lane, float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Signals:
    """A queue's work and its workers. Either may be unknown, which is never the same as none."""

    backlog: QueueBacklog | Unknown
    workforce: Workforce | Unknown

    @property
    def missing(self) -> tuple[str, Unknown] | None:
        """What is not known, as words for a sentence, and why; None if all is."""
        if isinstance(self.backlog, Unknown):
            return "the backlog", self.backlog
        if self.backlog.stale is not None:
            lanes = ", ".join(lane.lane for lane in self.backlog.lanes if lane.stale is not None)
            return f"the backlog of lane {lanes}", self.backlog.stale
        if isinstance(self.workforce, Unknown):
            return "the state of the workers", self.workforce
        return None


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """Bounds and patience of one queue's scaling."""

    min_workers: int
    max_workers: int
    slots: int
    """Attempts one worker runs at the same time."""
    idle_seconds: float
    """For how long fewer workers must have sufficed before any is let go."""
    learns_pauses: bool = False
    """Whether workers of a queue at rest go sooner where keeping them through the last pauses was a loss."""
    minimums: tuple[Minimum, ...] = ()
    """Hours at which more workers are kept."""
    by_hours: bool = False
    """Whether `min_workers` is that of such hours."""
    priority: int = 0
    """Beside other queues that share a budget."""
    weight: int = 1
    """Share beside queues of the same priority."""
    allowed: int | None = None
    """Workers the budget of all queues allows now; None if there is none."""
    target_seconds: float | None = None
    """How long a task should wait at most; None for as short as workers that start can make it."""
    most_tasks: int | None = None
    """Tasks that `spec.limits.concurrency` lets run at once; None for no such limit."""
    rate: Rate | None = None
    """How many `spec.limits.rate` lets start in a time; None for no such limit."""
    lane_targets: Mapping[Lane, float] = field(default_factory=lambda: _NO_TARGETS)
    """The target of the tasks of lanes that have one of their own."""

    @classmethod
    def of(cls, queue: TaskQueue) -> Self:
        """Return the policy a TaskQueue asks for."""
        scaling = queue.spec.scaled
        idle = scaling.idle_seconds
        return cls(
            min_workers=scaling.fewest,
            max_workers=scaling.most,
            slots=queue.spec.worker.concurrency,
            # Who says a number means it now; patience is for a number that follows the work.
            idle_seconds=0 if scaling.workers is not None else IDLE_SECONDS if idle is None else idle,
            learns_pauses=idle is None and scaling.workers is None,
            minimums=scaling.minimums if scaling.workers is None else (),
            priority=scaling.priority,
            weight=scaling.weight,
            target_seconds=scaling.target_wait_seconds,
            most_tasks=queue.spec.limits.concurrency,
            rate=None if queue.spec.limits.rate is None else queue.spec.limits.rate.rate,
            lane_targets={lane.name: lane.target_wait_seconds for lane in scaling.lanes} or _NO_TARGETS,
        )

    def most_slots(self, task_seconds: float | None) -> float | None:
        """Return how many slots the limits of the queue let it use; None if they do not limit that.

        Args:
            task_seconds: what a task takes on average, if that is known.
        """
        most = math.inf if self.most_tasks is None else float(self.most_tasks)
        if self.rate is not None:
            # What starts at once after a pause, and what runs on average where tasks start all the time.
            running = 0.0 if task_seconds is None else self.rate.tasks / self.rate.seconds * task_seconds
            most = min(most, self.rate.burst + running)
        return None if math.isinf(most) else most

    def target_of(self, lane: Lane) -> float | None:
        """Return how long a task of a lane should wait at most."""
        return self.lane_targets.get(lane, self.target_seconds)

    def at(self, now: datetime) -> Self:
        """Return the policy with the minimum that holds at a time."""
        least = max((each.min_workers for each in self.minimums if each.holds(now)), default=0)
        fewest = min(self.max_workers, max(self.min_workers, least))
        return replace(self, min_workers=fewest, minimums=(), by_hours=fewest > self.min_workers)

    def beside_start(self, seconds: float) -> Self:
        """Return the policy where a worker takes so long to start.

        Where nothing says what a start is worth, it is worth what it costs at least: the time it takes.
        """
        return replace(self, idle_seconds=max(self.idle_seconds, seconds)) if self.learns_pauses else self

    def paying_pause(self, start: float) -> float:
        """Return the seconds of a pause through which keeping a worker pays that takes so long to start."""
        return min(self.idle_seconds, max(_KEPT_LEAST, _KEPT_STARTS * start))

    def workers_for(self, slots: float) -> int:
        """Return how many workers have so many slots, whatever the bounds."""
        return math.ceil(round(slots / self.slots, 6))

    def within(self, workers: int) -> int:
        """Return the nearest number of workers that the bounds and the budget allow."""
        return self.bounded(workers) if self.allowed is None else min(self.bounded(workers), self.allowed)

    def bounded(self, workers: int) -> int:
        """Return the nearest number of workers that the queue's own bounds allow."""
        return max(self.min_workers, min(workers, self.max_workers))


Needs = tuple[tuple[datetime, int], ...]
"""Times and numbers of workers needed then, latest last: only those no later need has reached, so it is
never longer than there are different numbers."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What one sweep leaves to the next. Empty after a start, which errs towards keeping workers."""

    needs: Needs = ()
    """Workers needed for what comes steadily, or for tasks whose time is not known."""
    peaks: Needs = ()
    """Workers needed for all that waited and ran, while the time of a task is known."""
    kept_until: datetime | None = None
    """Until when the most that were needed are kept."""
    asked: Mapping[str, datetime] = field(default_factory=lambda: MappingProxyType({}))
    """Workers asked to drain, and when last."""
    lane_load: Mapping[Lane, float] = field(default_factory=lambda: _NO_TARGETS)
    """Tasks of each lane that run on average, where lanes have targets of their own."""
    learned: Learned = field(default_factory=Learned)
    """Of the queue's tasks and workers."""
    timed: bool = False
    """Whether the needs were found with a known time of a task."""
    step: tuple[datetime, int] | None = None
    """When the present step up began, and how many workers there were then."""
    returns: int = 0
    """How often workers that were let go were needed again soon: each doubles the idle time under load."""
    let_go_at: datetime | None = None
    """When workers were let go last."""
    resting_since: datetime | None = None
    """Since when nothing waits or runs; None while something does, or that is not known."""
    pause_worth: float = FIRST_WORTH
    """What keeping workers through the last pauses saved, in parts of the longest pause that pays: 1 where
    tasks came back at once, -1 where each pause was longer."""

    def needing(self, workers: int, now: datetime, seconds: float) -> Self:
        """Return the memory with one more need, and without those older than so many seconds."""
        return replace(self, needs=_with(self.needs, workers, now, seconds))

    def peaking(self, workers: int, now: datetime, seconds: float) -> Self:
        """Return the memory with one more need of a backlog, and without those older than so many seconds."""
        return replace(self, peaks=_with(self.peaks, workers, now, seconds))

    def paused(self, resting: bool | None, now: datetime, paying: float) -> Self:
        """Return the memory after one more look; at the end of a pause, with what keeping workers saved.

        A pause that is shorter than pays saves what is left of that time, and a longer one costs all of it.

        Args:
            resting: whether nothing waits or runs; None if that says nothing of the load.
            now: the time of the look.
            paying: seconds of the longest pause through which keeping workers pays.
        """
        if resting is None:
            return replace(self, resting_since=None)
        if resting:
            return self if self.resting_since is not None else replace(self, resting_since=now)
        if self.resting_since is None:
            return self
        pause = max(0.0, (now - self.resting_since).total_seconds())
        saved = 1 - pause / paying if pause < paying else -1.0
        worth = self.pause_worth + _PAUSE_WEIGHT * (saved - self.pause_worth)
        return replace(self, resting_since=None, pause_worth=worth)

    @property
    def most_needed(self) -> int:
        """Return the most workers that were needed within the window."""
        return max((each[0][1] for each in (self.needs, self.peaks) if each), default=0)


def _with(needs: Needs, workers: int, now: datetime, seconds: float) -> Needs:
    horizon = now - timedelta(seconds=seconds)
    # A clock that was set back must not keep a need for as long as it was wrong.
    earlier = ((min(at, now), need) for at, need in needs)
    return (*((at, need) for at, need in earlier if need > workers and at > horizon), (now, workers))
