"""What is said of a queue's workers to those who ask over the broker, such as `galley why`."""

from typing import Final

from galley.backlog import QueueBacklog
from galley.broker.control import Supply
from galley_operator.autoscaler.scaler import Scaler
from galley_operator.fleet.fleet import WorkerPhase, Workforce

PAUSED_BY_COMMAND: Final = "`galley pause` holds this queue, so no task is started; `galley resume` ends that"

_LONGEST: Final = 2000


def supply_of(problem: str, scaler: Scaler | None) -> Supply:
    """Return the answer for a queue.

    Args:
        problem: why none of its workers takes tasks; empty if that is not so.
        scaler: what decides on its workers; None if nothing does yet.
    """
    decision = scaler.last if scaler is not None else None
    signals = scaler.signals if scaler is not None else None
    if decision is None or signals is None:
        return Supply(problem[:_LONGEST])
    if not problem and isinstance(signals.backlog, QueueBacklog) and signals.backlog.paused:
        problem = PAUSED_BY_COMMAND
    workers = {"desired": decision.desired}
    if decision.needed is not None:
        workers["needed"] = decision.needed
    if isinstance(signals.workforce, Workforce):
        present = signals.workforce.present
        workers["present"] = len(present)
        workers["ready"] = sum(worker.phase is WorkerPhase.READY for worker in present)
    return Supply(problem[:_LONGEST], decision.reason[:_LONGEST], workers)
