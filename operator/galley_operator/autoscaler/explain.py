"""What is said of a queue's workers to those who ask over the broker, such as `galley why`."""

from typing import Final

from galley.backlog import QueueBacklog
from galley.broker.control import Pause, Supply
from galley.resources import ScalingMode, TaskQueue
from galley_operator.autoscaler.scaler import Scaler
from galley_operator.fleet.fleet import WorkerPhase, Workforce

PAUSED_BY_COMMAND: Final = "`galley pause` holds this queue, so no task is started; `galley resume` ends that"

_LONGEST: Final = 2000


def supply_of(problem: str, scaler: Scaler | None, queue: TaskQueue | None) -> Supply:
    """Return the answer for a queue.

    Args:
        problem: why none of its workers takes tasks; empty if that is not so, or only its pauses are why.
        scaler: what decides on its workers; None if nothing does yet.
        queue: its manifest; None if it is not valid.
    """
    decision = scaler.last if scaler is not None else None
    signals = scaler.signals if scaler is not None else None
    pauses: dict[Pause, str] = {}
    if queue is not None and (field := manifest_pause(queue)):
        # What the operator says of it names the command that ends it.
        told = problem[:_LONGEST] if problem.startswith(field) else ""
        pauses[Pause.MANIFEST] = told or f"{field}, so no task is started"
    if decision is None or signals is None:
        return Supply(problem[:_LONGEST] or _first(pauses), paused_by=pauses)
    if isinstance(signals.backlog, QueueBacklog) and signals.backlog.paused:
        pauses[Pause.COMMAND] = PAUSED_BY_COMMAND
    workers = {"desired": decision.desired}
    if decision.needed is not None:
        workers["needed"] = decision.needed
    if isinstance(signals.workforce, Workforce):
        present = signals.workforce.present
        workers["present"] = len(present)
        workers["ready"] = sum(worker.phase is WorkerPhase.READY for worker in present)
        if queue is not None and all_open(signals.workforce):
            pauses[Pause.CIRCUIT] = circuit_sentence(queue, signals.workforce)
    return Supply(problem[:_LONGEST] or _first(pauses), decision.reason[:_LONGEST], workers, pauses)


def _first(pauses: dict[Pause, str]) -> str:
    return next(iter(pauses.values()), "")


def manifest_pause(queue: TaskQueue) -> str:
    """Return which field of its manifest pauses a queue, as a clause; empty if none does."""
    if queue.spec.scaled.mode is not ScalingMode.PAUSED:
        return ""
    return "spec.paused is true" if queue.spec.paused else "spec.scaling.workers is 0"


def open_circuits(workforce: Workforce) -> tuple[int, int]:
    """Return how many of the ready workers take no tasks since theirs all failed, and how many are ready."""
    ready = [worker for worker in workforce.present if worker.phase is WorkerPhase.READY]
    return sum(worker.circuit_open for worker in ready), len(ready)


def all_open(workforce: Workforce) -> bool:
    """Return whether no worker takes tasks, since those of all of them failed."""
    broken, ready = open_circuits(workforce)
    return ready > 0 and broken == ready


def circuit_sentence(queue: TaskQueue, workforce: Workforce) -> str:
    """Return what open circuits mean, and what to do."""
    broken, ready = open_circuits(workforce)
    which = f"all {ready} workers" if broken == ready else f"{broken} of {ready} workers"
    said = "the worker all failed, so it takes" if ready == 1 else f"{which} all failed, so they take"
    every = "" if queue.spec.circuit is None else f"; each tries one every {queue.spec.circuit.seconds} s"
    name = queue.metadata.name
    return (
        f"the circuit is open: the last attempts of {said} no tasks{every}, and goes on when one succeeds; "
        f"galley get tasks {name} --phase retrying -o wide and galley dead list {name} tell why they fail"
    )
