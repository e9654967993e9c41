"""The status of a TaskQueue, from what was last found of its work and its workers."""

from datetime import datetime
from typing import Final

from galley.backlog import QueueBacklog, Unknown
from galley.resources import LaneStatus, TaskQueueStatus, WorkersStatus
from galley_operator.autoscaler.decide import Decision
from galley_operator.fleet.fleet import Phase, Workforce
from galley_operator.fleet.names import selector_of
from galley_operator.queues.conditions import Situation, conditions_of

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
        workers=_workers(name, situation, decision),
        dead_letters=dead_letters,
        scaling_reason=decision.reason[:_LONGEST_REASON] if decision is not None else "",
    )


def urgent(fresh: TaskQueueStatus, before: TaskQueueStatus) -> bool:
    """Return whether something changed that people wait for, and not just a figure."""
    return (
        fresh.observed_generation != before.observed_generation
        or [(each.type, each.status, each.reason) for each in fresh.conditions]
        != [(each.type, each.status, each.reason) for each in before.conditions]
        or fresh.workers != before.workers
    )


def _workers(name: str, situation: Situation, decision: Decision | None) -> WorkersStatus | None:
    if not isinstance(situation.workforce, Workforce):
        return None
    present = situation.workforce.present
    return WorkersStatus(
        ready=sum(worker.phase is Phase.READY for worker in present),
        desired=decision.desired if decision is not None else len(present),
        replicas=len(present),
        selector=selector_of(name),
    )


def _in_seconds(at: datetime | None) -> datetime | None:
    return at.replace(microsecond=0) if at is not None else None
