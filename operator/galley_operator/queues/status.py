"""The status of a TaskQueue: its conditions, figures of its work and its workers, and its events. Pure."""

from datetime import datetime
from typing import Final

from galley.backlog import QueueBacklog, Unknown
from galley.resources import LaneStatus, TaskQueueStatus, WorkersStatus
from galley.resources.condition import Truth, condition
from galley.resources.queue_status import ScalingStatus
from galley_operator.autoscaler.decide import Decision
from galley_operator.autoscaler.signals import FIRST_WORTH
from galley_operator.events import Occurrence
from galley_operator.fleet.fleet import WorkerPhase, Workforce
from galley_operator.fleet.names import selector_of
from galley_operator.queues.conditions import READY, SCALING_ACTIVE, WITHIN_QUOTA, Situation, conditions_of
from galley_operator.tasks.known_queues import QueueObject

_LONGEST_REASON: Final = 1000


def status_of(  # noqa: PLR0917 - what a status is made of
    name: str,
    situation: Situation,
    backlog: QueueBacklog | Unknown | None,
    decision: Decision | None,
    dead_letters: int | None,
    before: TaskQueueStatus,
    now: datetime,
) -> TaskQueueStatus:
    """Return the status of a queue.

    Args:
        name: of the queue.
        situation: what its conditions are found from.
        backlog: its work; what is not known is left out.
        decision: the last one of its autoscaler.
        dead_letters: how many there are.
        before: the status written last.
        now: the time.
    """
    known = backlog if isinstance(backlog, QueueBacklog) else None
    return TaskQueueStatus(
        observed_generation=situation.generation,
        conditions=conditions_of(situation, before.conditions, now),
        waiting=known.waiting if known else None,
        in_flight=known.in_flight if known else None,
        later=known.later if known else None,
        oldest_waiting_time=_in_seconds(known.oldest_at) if known else None,
        lanes=tuple(
            LaneStatus(name=lane.lane, waiting=lane.waiting, in_flight=lane.in_flight) for lane in known.lanes
        )
        if known
        else (),
        workers=_numbers(name, situation, decision),
        dead_letters=dead_letters,
        scaling_mode=situation.queue.spec.scaled.mode if situation.queue is not None else None,
        scaling=scaling_of(decision),
        scaling_reason=decision.reason[:_LONGEST_REASON] if decision is not None else "",
    )


def scaling_of(decision: Decision | None) -> ScalingStatus | None:
    """Return what a decision was made from, by which an operator that restarts decides the same."""
    if decision is None:
        return None
    figures, worth = decision.memory.learned.figures, decision.memory.pause_worth
    return ScalingStatus(
        needed=decision.needed,
        limit=decision.limit,
        arrivals_per_second=figures.rate,
        task_seconds=figures.task_seconds,
        start_seconds=figures.start_seconds,
        steady_tasks=int(figures.held) or None,
        pause_worth=None if worth == FIRST_WORTH else round(worth, 4),
    )


def urgent(fresh: TaskQueueStatus, before: TaskQueueStatus) -> bool:
    """Return whether something changed that people wait for, and not just a figure."""
    return (
        fresh.observed_generation != before.observed_generation
        or [(each.type, each.status, each.reason) for each in fresh.conditions]
        != [(each.type, each.status, each.reason) for each in before.conditions]
        or fresh.workers != before.workers
    )


def occurrences(queue: QueueObject, fresh: TaskQueueStatus, before: TaskQueueStatus) -> list[Occurrence]:
    """Return the events the changes of a queue's conditions are worth."""
    kinds = [READY, WITHIN_QUOTA]
    scaling = condition(fresh.conditions, SCALING_ACTIVE)
    if scaling is not None and scaling.reason in ("SignalsMissing", "Scaling"):
        # Of a fixed number and of a paused queue, other events tell.
        kinds.append(SCALING_ACTIVE)
    return [each for kind in kinds for each in _changed(kind, queue, fresh, before)]


def _changed(
    kind: str, queue: QueueObject, fresh: TaskQueueStatus, before: TaskQueueStatus
) -> list[Occurrence]:
    now, then = condition(fresh.conditions, kind), condition(before.conditions, kind)
    if now is None or (then is not None and (now.status, now.reason) == (then.status, then.reason)):
        return []
    if now.status is Truth.FALSE:
        return [Occurrence(queue, now.reason, now.message, warning=True)]
    if now.status is Truth.TRUE and then is not None and then.status is Truth.FALSE:
        return [Occurrence(queue, kind, now.message)]
    return []


def _numbers(name: str, situation: Situation, decision: Decision | None) -> WorkersStatus | None:
    if not isinstance(situation.workforce, Workforce):
        return None
    present = situation.workforce.present
    return WorkersStatus(
        ready=sum(worker.phase is WorkerPhase.READY for worker in present),
        desired=decision.desired if decision is not None else len(present),
        replicas=len(present),
        selector=selector_of(name),
    )


def _in_seconds(at: datetime | None) -> datetime | None:
    return at.replace(microsecond=0) if at is not None else None
