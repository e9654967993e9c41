"""How many slots a queue needs: so that tasks start in time, now and when new workers have started. Pure.

Three numbers, of which the highest counts:

- as many as run now: a task that runs keeps its slot;
- enough to start all that wait, and come meanwhile, within the target once new workers are there. In `t`
  seconds a slot that is free starts `1 + t / m` tasks of `m` seconds, one that is busy `t / m`;
- enough for the tasks that come until then, with the room by the square-root rule that lets 95 of 100 start
  in time. Of quick tasks these are as many as run on average; of long ones few come, and most of those that
  run still run.

Tasks for later count among those that wait as soon as a worker that is started then is ready a little before
they fall due.

Where it is not known how long a task takes, each task gets a slot.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from galley.lanes import Lane
from galley_operator.autoscaler.learned import Learned

LATE_SHARE: Final = 0.05
"""Tasks that may start later than the target under a steady load."""

SHORTEST_TARGET: Final = 1.0
"""Seconds in which a backlog is worked off at the soonest where no target is set: a look takes as long."""

LONGEST_TARGET: Final = 5.0
"""The same at the latest: a task that waited a minute for a start is not to wait half a minute more."""

LONG_SHARE: Final = 1 / 3
"""The same, as a part of a start that takes long: workers that start for a minute to be needed for seconds
cost more than all that they run, and who waited for that minute waits little longer without them."""

OWN_SHARE: Final = 0.1
"""Part of its own time that a task may wait in any case: a minute does not hurt a task of an hour."""

START_SHARE: Final = 2 / 3
"""Part of a worker's start in which a backlog is worked off where no target is set. Less costs more starts,
more lets those wait on that waited for the start."""

KEPT_NOISE: Final = 2.0
"""Standard deviations of the estimated load by which slots may be too many before any is let go."""

STEADY_NOISE: Final = 0.5
"""As `KEPT_NOISE`, of a load that was steady for long."""

STEADY_WAIT: Final = 1.0
"""Times its own time in which a backlog of a steady load is worked off without new workers. By the room for
chance one task in 20 waits longer than `OWN_SHARE`; what waits beyond this is no chance."""

AHEAD_SHARE: Final = 1.25
"""Part of a worker's start for which tasks that fall due are seen ahead: some starts take longer."""

AHEAD_SECONDS: Final = 2.0
"""Seconds beyond that: two looks."""

Due = Sequence[tuple[float, int]]
"""Seconds from now, and tasks that fall due then, the first ones first."""

Starting = Sequence[tuple[float, int]]
"""Seconds from now, and slots of workers that are expected to be ready then, the first ones first."""


def ahead_seconds(learned: Learned) -> float:
    """Return how long before tasks fall due their workers are started."""
    return learned.expected_start * AHEAD_SHARE + AHEAD_SECONDS


@dataclass(frozen=True, slots=True)
class Need:
    """How many slots are needed, and for what."""

    slots: float
    backlog: float
    """For those waiting and running."""
    arrivals: float
    """For those that come."""
    within: float | None
    """Seconds in which a backlog is to be started; None if the time of a task is not known."""
    due: int = 0
    """Tasks for later that it includes."""
    kept: float = 0.0
    """What stays if it is there: for the tasks that come on average, and the error of that estimate."""
    steady: bool = False
    """Whether the load is known so well that what differs from it is chance."""
    lane: Lane | None = None
    """Whose target decides, where lanes have targets of their own."""
    limited: float | None = None
    """What it would be without the limits of the queue, if those keep it lower."""

    def within_limits(self, most: float | None) -> "Need":
        """Return the need where the limits of the queue let it use so many slots."""
        if most is None or self.slots <= most:
            return self
        return replace(
            self, slots=most, backlog=min(most, self.backlog), arrivals=min(most, self.arrivals),
            kept=min(most, self.kept), limited=self.slots,
        )  # fmt: skip


def need_of(
    waiting: int,
    running: int,
    learned: Learned,
    *,
    target: float | None,
    ready_slots: int,
    starting: Starting = (),
    due: Due = (),
) -> Need:
    """Return the slots a queue needs.

    Args:
        waiting: tasks that wait.
        running: tasks that run.
        learned: of its tasks and workers.
        target: seconds a task should wait at most; None for as soon as starting workers helps.
        ready_slots: slots of workers that take tasks now.
        starting: slots of workers that are on their way; they work before one that is started now.
        due: tasks for later; those beyond `ahead_seconds` do not count.
    """
    horizon = ahead_seconds(learned)
    due = [(at, tasks) for at, tasks in due if at <= horizon]
    later = sum(tasks for _, tasks in due)
    if not waiting and not running and not later and not learned.active:
        # Who comes back soon enough finds the workers that are kept for the idle time.
        return Need(0.0, 0.0, 0.0, None)
    seconds = learned.task_seconds
    if seconds is None:
        tasks = max(waiting + running + later, learned.active)
        return Need(tasks, tasks, 0.0, None, later)
    start = learned.expected_start
    longest = max(LONGEST_TARGET, start * LONG_SHARE)
    within = max(SHORTEST_TARGET, min(longest, start * START_SHARE)) if target is None else target

    def to_start(rate: float, within: float, starting: Starting = ()) -> float:
        # What will wait when workers that are started now have started, and comes then.
        events = [(at, tasks, 0.0) for at, tasks in due]
        events += [(at, 0, slots / seconds) for at, slots in starting]
        left = _left(waiting, rate, ready_slots / seconds, start, events)
        return (left + running + rate * within) / (1 + within / seconds)

    backlog = max(running, min(1, waiting + later + learned.active), to_start(learned.rate, within))
    have = ready_slots + sum(more for _, more in starting)
    if backlog > have > ready_slots:
        # What those on their way do before others come up needs no others, even if the rate is what it was
        # at its highest lately.
        backlog = max(have, min(backlog, to_start(learned.highest_rate, within, starting)))
    load = learned.rate * seconds
    # A task that may wait for longer than a start takes needs no free slot: a worker is started then.
    hurry = max(0.0, 1 - max(target or 0.0, seconds * OWN_SHARE) / (start + 1))
    patience = 0.0 if target is None else target / seconds
    # Until new workers are there, this part of those that run ends, and others come in their place. Where a
    # start hurts, the number follows the average instead, which does not turn by chance.
    turnover = 1 - (1 - hurry) * math.exp(-(start + 1) / seconds)
    spread = turnover * (load + running * (1 - turnover))
    arrivals = running * (1 - turnover) + load * turnover + hurry * _room(spread, patience)
    kept = load + hurry * (_room(load, patience) + KEPT_NOISE * learned.load_noise)
    if learned.steady:
        kept = load + _room(load, max(patience, OWN_SHARE)) + STEADY_NOISE * learned.load_noise
        arrivals = min(arrivals, max(running, kept))
        calm = max(within, STEADY_WAIT * seconds)
        backlog = max(running, min(backlog, to_start(learned.rate, calm)))
    elif not hurry:
        kept = min(kept, learned.recent * seconds)
    return Need(max(backlog, arrivals), backlog, arrivals, within, later, kept, learned.steady)


def _left(
    waiting: int, rate: float, pace: float, start: float, events: Sequence[tuple[float, int, float]]
) -> float:
    """Return what will wait after the time of a start.

    Args:
        waiting: tasks that wait now.
        rate: tasks that come in a second; those that fall due are among them.
        pace: tasks that slots which are ready start in a second.
        start: seconds that a worker takes to start.
        events: seconds from now, tasks that fall due then, and what slots that become ready add to the pace.
    """
    left, at = float(waiting), 0.0
    for when, tasks, more in (*sorted(events), (start, 0, 0.0)):
        passed = max(0.0, min(when, start) - at)
        left = max(max(0.0, left - pace * passed) + tasks, left + (rate - pace) * passed)
        at, pace = at + passed, pace + more
    return left


def _room(load: float, patience: float) -> float:
    """Return the slots beyond the load with which at most `LATE_SHARE` of the tasks wait too long.

    By the approximation of Halfin and Whitt of Erlang's formula for many slots.

    Args:
        load: slots that are busy on average.
        patience: times a task's own time that a task may wait.
    """
    root = math.sqrt(load)
    low, high = 0.0, _ROOM_WITHOUT_PATIENCE
    if patience > 0:
        for _ in range(12):
            middle = (low + high) / 2
            late = _share_waiting(middle) * math.exp(-min(700.0, middle * root * patience))
            low, high = (middle, high) if late > LATE_SHARE else (low, middle)
    return high * root


def _share_waiting(beta: float) -> float:
    """Return the share of tasks that wait at all, with `beta` roots of the load as room."""
    density = math.exp(-beta * beta / 2) / math.sqrt(2 * math.pi)
    below = (1 + math.erf(beta / math.sqrt(2))) / 2
    return 1 / (1 + beta * below / density)


_ROOM_WITHOUT_PATIENCE: Final = 1.74
"""Where `_share_waiting` is `LATE_SHARE`."""
