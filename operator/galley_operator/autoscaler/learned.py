"""What is learned of a queue from look to look: how many tasks come, how long they and worker starts take.

All of it comes from what is looked at anyway. Tasks that came are those that are there now, less those there
were, and those that ended meanwhile; so retries and delayed tasks count when they are due. A task's time is
the time slots were busy, divided by the tasks that ended: running tasks count before they end, so that
tasks that suddenly take long are noticed while the first of them run.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final, Self

from galley_operator.autoscaler.spans import Span, Spans, agreed_rate, most_task_seconds, with_look
from galley_operator.fleet.fleet import WorkerPhase, Workforce

START_SECONDS: Final = 3.0
"""Time a worker takes to start, until one was seen to."""

_ENOUGH: Final = 5
"""Tasks that have to end before their time counts as known."""

_WEIGHED: Final = 100.0
"""Tasks that the short average of their time goes back to: 10 % of noise, and soon forgotten."""

_LONG_WEIGHED: Final = 1000.0
"""Tasks that the long average goes back to, which holds as long as the short one agrees: 3 % of noise, so
that a steady load does not look like one that changes."""

_AGREES: Final = 2.5
"""Standard deviations by which the short average may differ, of times as unlike as exponential ones."""

_RATE_SECONDS: Final = 60.0
"""Time the short average of the rate goes back to; with long tasks it is theirs, up to `_LONG_RATE`."""

_LONG_RATE: Final = 600.0
"""Time the long average goes back to, which holds as long as the short one agrees."""

_LONG_TIMES: Final = 60.0
"""The same for long tasks, in times of a task, up to `_LONGEST_RATE`."""

_LONGEST_RATE: Final = 7200.0

STEADY_TASKS: Final = 130.0
"""Tasks that have to come, at a rate that holds, before a load counts as steady."""

_LONG_STARTS: Final = 1.5
"""Times a worker's start from which on tasks count as long: a rate that is wrong by chance would make
workers come and go, and few tasks come to say that it is."""

_LONG_AGREES: Final = 3.0
"""As `_AGREES`, of the rate of long tasks."""

_STEADY_AGREES: Final = 3.5
"""The same of a steady load."""

_STEADY_TIMES: Final = 3.0
"""Times a task's own time that the short average of a steady load goes back to."""

_UNSEEN: Final = 0.3
"""Tasks a second that it takes for more than chance if none comes in all of the last spans."""

_STEADY_UNSEEN: Final = 1.0
"""The same of a steady load: in 9 seconds, one time in 8,000."""

_FALL: Final = 1 / 3
"""Part of the rate of long tasks to which it may fall and be noticed before the averages contradict it."""

_SURE: Final = 10.0
"""How sure that is to be: at a rate that holds, chance says so once in some 20,000 tasks, `exp(10)`."""

_LEAST_SEEN: Final = 30.0
"""Seconds the first tasks are taken to be spread over, at least."""

_UNTOLD_SECONDS: Final = 3.0
"""Time after which nothing more is heard of a task that is gone: it was cancelled, or its worker was lost."""

_START_WEIGHT: Final = 0.3

_LEAST_RATE: Final = 0.001
"""Tasks a second that count: a rate that only fades is not written again and again."""

_LEAST_LOAD: Final = 0.01
"""Slots that they keep busy, which count whatever the rate."""

_MOST_RATE: Final = 1e9
"""What the status can have: workers count their tasks themselves, and may say anything."""

_Rate = tuple[float, float]
"""Tasks a second, and the seconds they are averaged over."""

_EMPTY: Final[Mapping[str, tuple[int, float]]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known of a queue's tasks and workers. Empty after a start."""

    rate: float = 0.0
    """Tasks that become due in a second."""
    start_seconds: float | None = None
    """Time a worker takes from its start until it takes tasks; None if none was seen to start."""
    busy_seconds: float = 0.0
    """Time for which slots were busy, the latest weighing most."""
    done: float = 0.0
    """Tasks that ended in that time."""
    long_busy: float = 0.0
    long_done: float = 0.0
    """The same of a longer time."""
    seen: float = 0.0
    """Seconds the rate is averaged over."""
    recent: float = 0.0
    recent_seen: float = 0.0
    """Both over a shorter time. Where that rate contradicts the other, the other begins there."""
    held: float = 0.0
    """Tasks that came since the rate was contradicted, up to `STEADY_TASKS`."""
    fallen: float = 0.0
    """How much likelier what came is at a third of the rate, as a logarithm; of long tasks."""
    spans: Spans = ()
    """The last few seconds."""
    at: datetime | None = None
    """Time of the last look."""
    active: bool = False
    """Whether tasks ended between the last two looks: quick ones are seldom seen while they are there."""
    tasks: int = 0
    """Tasks waiting and running then."""
    untold: float = 0.0
    """Tasks that are gone, and of which no worker has said yet that they ended: it does so once a second."""
    untold_at: datetime | None = None
    """When the last of them went."""
    counts: Mapping[str, tuple[int, float]] = field(default_factory=lambda: _EMPTY)
    """Tasks ended and seconds busy of each worker then."""
    starting: frozenset[str] = frozenset()
    """Workers that were starting then."""

    @classmethod
    def remembered(
        cls,
        rate: float | None,
        task_seconds: float | None,
        start_seconds: float | None,
        *,
        held: float | None = None,
    ) -> Self:
        """Return what an earlier process learned; None for what it did not know."""
        known = task_seconds is not None
        return cls(
            rate=rate or 0.0,
            held=held or 0.0,
            recent=rate or 0.0,
            recent_seen=_RATE_SECONDS / 2 if rate else 0.0,
            start_seconds=start_seconds,
            busy_seconds=task_seconds * _ENOUGH if task_seconds is not None else 0.0,
            done=_ENOUGH if known else 0.0,
            long_busy=task_seconds * _ENOUGH if task_seconds is not None else 0.0,
            long_done=_ENOUGH if known else 0.0,
            seen=_RATE_SECONDS / 2 if rate else 0.0,
        )

    @property
    def task_seconds(self) -> float | None:
        """Return the time a task takes of a slot, at least a microsecond; None if too few have ended."""
        if self.done < _ENOUGH:
            return None
        mean = self.long_busy / self.long_done if self.long_done else self.busy_seconds / self.done
        return _figure(max(1e-6, mean))

    @property
    def figures(self) -> Self:
        """Return what is known as decisions are made from it, and the status has it: with four digits.

        So an operator that restarts decides the same. `task_seconds` and `expected_start` have four anyway.
        """
        least = min(_LEAST_RATE, _LEAST_LOAD / (self.task_seconds or 1.0))
        rate = 0.0 if self.rate < least else min(_MOST_RATE, _figure(self.rate))
        start = None if self.start_seconds is None else _figure(self.start_seconds)
        return replace(self, rate=rate, start_seconds=start)

    @property
    def load_noise(self) -> float:
        """Return by how many slots the estimated load is off by chance: its standard deviation."""
        seconds = self.task_seconds
        if seconds is None or not self.rate:
            return 0.0
        came = self.rate * min(self.seen, self._long_rate)
        return self.rate * seconds * math.sqrt(1 / max(self.done, self.long_done) + 1 / max(1.0, came))

    @property
    def highest_rate(self) -> float:
        """Return the rate, or that of the last few seconds where it was higher."""
        return max(self.rate, *(span.came / max(1.0, span.seconds) for span in self.spans), 0.0)

    @property
    def steady(self) -> bool:
        """Return whether tasks are long, and came at one rate for so long that the rest is chance."""
        return self.held >= STEADY_TASKS and self._long

    @property
    def _long(self) -> bool:
        return (self.task_seconds or 0.0) > _LONG_STARTS * self.expected_start

    @property
    def _long_rate(self) -> float:
        """Return the time the long average of the rate goes back to."""
        return min(_LONGEST_RATE, max(_LONG_RATE, _LONG_TIMES * (self.task_seconds or 0.0)))

    @property
    def expected_start(self) -> float:
        """Return the time a worker takes to start, as far as known."""
        return START_SECONDS if self.start_seconds is None else _figure(self.start_seconds)

    def after(self, tasks: int, workforce: Workforce, now: datetime) -> Self:
        """Return what is known after one more look.

        Args:
            tasks: waiting and running.
            workforce: as it is now.
            now: the time.
        """
        counts = {worker.name: (worker.done, worker.busy_seconds) for worker in workforce.workers}
        seen = replace(
            self._with_starts(workforce, now),
            at=now, tasks=tasks, counts=counts, active=False,
            starting=frozenset(w.name for w in workforce.workers if w.phase is WorkerPhase.STARTING),
        )  # fmt: skip
        # At the first look counters say what ended since each worker started: as good as having watched.
        ended, busy = _sum(_since(self.counts.get(name), count) for name, count in counts.items())
        done, total = self.done + ended, self.busy_seconds + busy
        weight = min(1.0, _WEIGHED / done) if done else 1.0
        long_done, long_busy = self._longer(ended, busy, done * weight, total * weight)
        seen = replace(
            seen, done=done * weight, busy_seconds=total * weight, long_done=long_done, long_busy=long_busy
        )
        seconds = (now - self.at).total_seconds() if self.at is not None else 0.0
        if seconds <= 0:
            return seen
        came = tasks - self.tasks + ended
        known = self.untold if self._hears_of_ends(now) else 0.0
        unseen = came - known
        untold = max(0.0, -unseen)
        spans = with_look(self.spans, Span(seconds, came, ended, busy))
        recent, rate = self._arrivals(came, seconds, spans)
        fallen = self._fallen(came, seconds)
        if fallen > _SURE:
            rate, fallen = recent, 0.0
        held = 0.0 if rate == recent else max(0.0, min(STEADY_TASKS, self.held + came))
        return replace(
            seen.quickened(spans), active=ended > 0 and unseen > 0, spans=spans, held=held, fallen=fallen,
            untold=untold, untold_at=now if untold > known else self.untold_at,
            rate=rate[0], seen=rate[1], recent=recent[0], recent_seen=recent[1],
        )  # fmt: skip

    def _hears_of_ends(self, now: datetime) -> bool:
        return self.untold_at is not None and (now - self.untold_at).total_seconds() <= _UNTOLD_SECONDS

    def quickened(self, spans: Spans) -> Self:
        """Return what is known, where the last spans contradict the time of a task: it became shorter."""
        most, ended = most_task_seconds(spans)
        if self.done < _ENOUGH or most >= self.busy_seconds / self.done:
            return self
        done = min(self.done, ended)
        return replace(self, done=done, busy_seconds=done * most, long_done=done, long_busy=done * most)

    def _longer(self, ended: float, busy: float, short_done: float, short_busy: float) -> tuple[float, float]:
        """Return the long average: tasks and seconds. Where the short one contradicts it, it begins there."""
        done, total = self.long_done + ended, self.long_busy + busy
        weight = min(1.0, _LONG_WEIGHED / done) if done else 1.0
        done, total = done * weight, total * weight
        if short_done >= _ENOUGH and done:
            mean, recent = total / done, short_busy / short_done
            if abs(recent - mean) > _AGREES * mean / math.sqrt(short_done):
                return short_done, short_busy
        return done, total

    def _arrivals(self, came: float, seconds: float, spans: Spans) -> tuple[_Rate, _Rate]:
        """Return the short average of the rate, and the one that holds, after so many seconds more."""
        times = _STEADY_TIMES if self.steady else 1.0
        back = min(_LONG_RATE, max(_RATE_SECONDS, times * (self.task_seconds or 0.0)))
        average, seen = _averaged((self.recent, self.recent_seen), back, came, seconds)
        recent = agreed_rate(average, spans, _STEADY_UNSEEN if self.steady else _UNSEEN), seen
        rate = _averaged((self.rate, self.seen), self._long_rate, came, seconds)
        window = min(seen, back)
        noise = math.sqrt(max(rate[0], 1 / window) / window)
        agrees = _STEADY_AGREES if self.steady else _LONG_AGREES if self._long else _AGREES
        return recent, recent if abs(recent[0] - rate[0]) > agrees * noise else rate

    def _fallen(self, came: float, seconds: float) -> float:
        """Return how much the tasks that came speak for a rate that fell: Page's test of Poisson's law."""
        if not self._long:
            return 0.0
        return max(0.0, self.fallen + (1 - _FALL) * self.rate * seconds + came * math.log(_FALL))

    def _with_starts(self, workforce: Workforce, now: datetime) -> Self:
        took = [
            (now - worker.since).total_seconds()
            for worker in workforce.workers
            if worker.name in self.starting and worker.phase is WorkerPhase.READY
        ]
        if not took:
            return self
        mean = max(0.0, sum(took) / len(took))
        before = mean if self.start_seconds is None else self.start_seconds
        return replace(self, start_seconds=before + _START_WEIGHT * (mean - before))


def _figure(value: float) -> float:
    return float(f"{value:.4g}")


def _averaged(average: _Rate, back: float, came: float, seconds: float) -> _Rate:
    """Return an average that goes back so many seconds, after one more look."""
    rate, seen = average
    # One burst is no rate: a single look raises the average by a little, the spans by more.
    bounded = max(-rate * seconds, min(came, 4 * rate * seconds + 5))
    before = max(_LEAST_SEEN, seen) * math.exp(-seconds / back)
    return max(0.0, (rate * before + bounded) / (before + seconds)), before + seconds


def _since(before: tuple[int, float] | None, now: tuple[int, float]) -> tuple[float, float]:
    """Return what was added to a worker's counters, which begin at 0 when its process does."""
    if before is None or now[0] < before[0] or now[1] < before[1]:
        return now
    return now[0] - before[0], now[1] - before[1]


def _sum(pairs: Iterable[tuple[float, float]]) -> tuple[float, float]:
    ended, busy = 0.0, 0.0
    for each_ended, each_busy in pairs:
        ended, busy = ended + each_ended, busy + each_busy
    return ended, busy
