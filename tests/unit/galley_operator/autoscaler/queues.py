"""Builders of what decisions are made on."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from galley.backlog import LaneBacklog, QueueBacklog, Unknown
from galley.lanes import Lane
from galley_operator.autoscaler.signals import Memory, ScalingPolicy, Signals
from galley_operator.fleet.fleet import WorkerPhase, WorkerView, Workforce

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
POLICY = ScalingPolicy(min_workers=0, max_workers=4, slots=4, idle_seconds=30)
SILENT = Unknown("no answer in 1 s", NOON)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def a_backlog(waiting: int = 0, running: int = 0) -> QueueBacklog:
    return QueueBacklog((LaneBacklog(Lane.HIGH, 0, 0), LaneBacklog(Lane.NORMAL, waiting, running)))


def a_stale_backlog(waiting: int = 0, running: int = 0) -> QueueBacklog:
    return QueueBacklog((LaneBacklog(Lane.NORMAL, waiting, running, stale=SILENT),))


def a_worker(
    name: str, phase: WorkerPhase = WorkerPhase.READY, busy: int | None = 0, age: float = 60
) -> WorkerView:
    return WorkerView(name, phase, busy, POLICY.slots, at(-age))


def workers(*states: str, problem: str = "") -> Workforce:
    """Return workers w1, w2, ..., each older than the next of its phase; those starting have just begun.

    A state is a phase's first letters with, after a colon, how many attempts run: `ready:2`, `drain:0`,
    `start`, `fail`, `stop`, `ready:?`; 0 if it is left out.
    """
    views = []
    for index, state in enumerate(states):
        word, _, busy = state.partition(":")
        phase = next(phase for phase in WorkerPhase if phase.value.startswith(word))
        running = None if busy == "?" else int(busy or 0)
        age = (10 if phase is WorkerPhase.STARTING else 1000) - index
        views.append(a_worker(f"w{index + 1}", phase, running, age=age))
    return Workforce(tuple(views), problem)


def seen(backlog: QueueBacklog | Unknown, workforce: Workforce | Unknown) -> Signals:
    return Signals(backlog, workforce)


def needed(workers: int, seconds: float = 0) -> Memory:
    """Return the memory of so many workers having been needed at that second."""
    return Memory(needs=((at(seconds), workers),))


def asked(memory: Memory, **names: float) -> Memory:
    """Return the memory of having asked workers to drain, each at its second."""
    requests: Mapping[str, datetime] = {name: at(seconds) for name, seconds in names.items()}
    return replace(memory, asked=MappingProxyType(dict(requests)))
