"""The conditions of a TaskQueue. Pure.

A condition has a reason for programs, and a sentence for people that says what to do.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from galley.backlog import Unknown, Usage
from galley.errors import GalleyError, HandlersMissing
from galley.resources import TaskQueue
from galley.resources.condition import Condition, Truth, with_condition
from galley_operator.autoscaler.decide import Decision
from galley_operator.autoscaler.explain import (
    PAUSED_BY_COMMAND,
    all_open,
    circuit_sentence,
    manifest_pause,
    open_circuits,
)
from galley_operator.errors import StorageQuotaExceeded
from galley_operator.fleet.fleet import WorkerPhase, Workforce
from galley_operator.fleet.trouble import Trouble
from galley_operator.queues.scaling_condition import Finding, Interference, scaling_finding

READY: Final = "Ready"
STREAMS_READY: Final = "StreamsReady"
WORKERS_AVAILABLE: Final = "WorkersAvailable"
WITHIN_QUOTA: Final = "WithinQuota"
SCALING_ACTIVE: Final = "ScalingActive"
CIRCUIT_CLOSED: Final = "CircuitClosed"

_FULL_SHARE: Final = 0.98
"""Use of a limit from which a queue counts as full: the next large task may not fit."""

_FOLLOWS: Final = {
    "backlog": "further tasks are refused until some have ended",
    "backlogBytes": "further tasks are refused until some have ended",
    "laterBytes": "retries and delayed tasks stay in the backlog until there is room",
    "deadLetterBytes": "failed tasks stay in the backlog until there is room",
    "workflowBytes": "further workflows are refused until some have ended",
    "objectBytes": "large inputs are refused, and tasks with a large result are tried again",
}

_LONGEST: Final = 4000


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of a queue."""

    generation: int
    streams: GalleyError | None = None
    """Why its streams could not be created or updated."""
    children: GalleyError | None = None
    """Why its objects could not be applied."""
    workforce: Workforce | Unknown | None = None
    """Its workers; None if they have not been observed yet."""
    trouble: Trouble | None = None
    """Why workers do not come up."""
    desired: int = 0
    """Workers the autoscaler wants."""
    queue: TaskQueue | None = None
    """The queue; None if its spec is invalid."""
    waiting: int = 0
    """Tasks that wait for a slot, as far as known."""
    usage: tuple[Usage, ...] = ()
    """Of the queue's limits, as far as known."""
    decision: Decision | None = None
    """The last one of its autoscaler; None before the first."""
    interference: Interference | None = None
    """What others did lately to the number of its workers."""
    budget_problem: str = ""
    """Why the budget can never allow what the queue is to have; empty if it can."""
    withdrawn: GalleyError | None = None
    """What the pods of its Deployment may not use any more, so that none is started."""
    held: bool = False
    """Whether `galley pause` pauses it."""


def conditions_of(
    situation: Situation, before: tuple[Condition, ...], now: datetime
) -> tuple[Condition, ...]:
    """Return the conditions of a queue; those before give the times at which they last changed."""
    found = {
        READY: _ready(situation),
        STREAMS_READY: _streams(situation),
        WORKERS_AVAILABLE: _workers(situation),
        WITHIN_QUOTA: _quota(situation),
        SCALING_ACTIVE: scaling_finding(
            situation.queue,
            situation.decision,
            situation.interference,
            situation.budget_problem,
            situation.withdrawn,
        ),
    }
    if situation.queue is not None and situation.queue.spec.circuit is not None:
        found[CIRCUIT_CLOSED] = _circuit(situation.queue, situation.workforce)
    conditions = tuple(each for each in before if each.type in found)
    for kind, (status, reason, message) in found.items():
        fresh = Condition(
            type=kind,
            status=status,
            reason=reason,
            message=_clipped(message),
            last_transition_time=now.replace(microsecond=0),
            observed_generation=situation.generation,
        )
        conditions = with_condition(conditions, fresh)
    return conditions


def _ready(situation: Situation) -> Finding:
    for error in (situation.streams, situation.children):
        if error is not None:
            return Truth.FALSE, error.reason, _sentence(error)
    if situation.queue is not None and without_handlers(situation.queue):
        error = HandlersMissing(situation.queue.metadata.name)
        return Truth.FALSE, error.reason, _sentence(error)
    truth, reason, message = _workers(situation)
    if truth is not Truth.TRUE:
        return truth, reason, message
    if reason == "WorkersReady":
        return Truth.TRUE, "Serving", "tasks are accepted and run"
    return Truth.TRUE, "Serving", f"tasks are accepted; {message}"


def without_handlers(queue: TaskQueue) -> bool:
    """Return whether a queue has no handlers for certain; of modules, only their workers know."""
    return not queue.spec.worker.modules and not queue.spec.handlers.names


def _streams(situation: Situation) -> Finding:
    if situation.streams is not None:
        return Truth.FALSE, situation.streams.reason, _sentence(situation.streams)
    return Truth.TRUE, "Present", "streams and consumers exist and are up to date"


def _quota(situation: Situation) -> Finding:
    if isinstance(situation.streams, StorageQuotaExceeded):
        return Truth.FALSE, situation.streams.reason, _sentence(situation.streams)
    if not situation.usage:
        return Truth.UNKNOWN, "NotObserved", "what the queue's streams hold is not known yet"
    full = [each for each in situation.usage if each.used >= each.limit * _FULL_SHARE]
    if not full:
        return Truth.TRUE, "Room", "every limit of the queue leaves room"
    said = "; ".join(
        f"spec.limits.{each.quota} is used up ({each.used} of {each.limit}): {_FOLLOWS[each.quota]}"
        for each in full
    )
    return Truth.FALSE, "QueueFull", f"{said}; raise the limit, or delete what is not needed"


def _workers(situation: Situation) -> Finding:
    if situation.children is not None:
        return Truth.FALSE, situation.children.reason, _sentence(situation.children)
    if situation.streams is not None and situation.workforce is None:
        return Truth.UNKNOWN, "NoStreams", "workers start once the queue has its streams"
    if not isinstance(situation.workforce, Workforce):
        why = situation.workforce.why if situation.workforce else "the workers have not been observed yet"
        return Truth.UNKNOWN, "NotObserved", why
    return _of_workforce(situation, situation.workforce)


def _of_workforce(situation: Situation, workforce: Workforce) -> Finding:
    present = workforce.present
    ready = sum(worker.phase in (WorkerPhase.READY, WorkerPhase.DRAINING) for worker in present)
    if (held := _held(situation, workforce)) is not None:
        return held
    if not present and not situation.desired:
        if situation.waiting:
            return Truth.TRUE, "Starting", f"{_tasks(situation.waiting)}, the first worker is about to start"
        return Truth.TRUE, "ScaledToZero", "no workers, since no task waits or runs; the next task starts one"
    if not ready:
        return Truth.TRUE, "Starting", _starting(len(present) or situation.desired)
    return Truth.TRUE, "WorkersReady", f"{ready} of {len(present)} workers take tasks"


def _held(situation: Situation, workforce: Workforce) -> Finding | None:
    """Return what keeps tasks from being started; None if nothing does."""
    if pause := _pause(situation, len(workforce.present)):
        return Truth.FALSE, "Paused", pause
    if situation.trouble is not None:
        return Truth.FALSE, situation.trouble.reason, situation.trouble.message
    if situation.queue is not None and all_open(workforce):
        return Truth.FALSE, "CircuitOpen", circuit_sentence(situation.queue, workforce)
    return None


def _circuit(queue: TaskQueue, workforce: Workforce | Unknown | None) -> Finding:
    """Return whether workers take tasks as far as the success of their attempts decides that."""
    if not isinstance(workforce, Workforce):
        return Truth.UNKNOWN, "NotObserved", "the workers have not been observed yet"
    broken, ready = open_circuits(workforce)
    if not broken:
        return Truth.TRUE, "Closed", "no worker keeps from taking tasks because its attempts failed"
    reason = "Open" if broken == ready else "PartlyOpen"
    return Truth.FALSE, reason, circuit_sentence(queue, workforce)


def _starting(workers: int) -> str:
    return "the worker is starting" if workers == 1 else f"the first of {workers} workers is starting"


def _pause(situation: Situation, present: int) -> str:
    """Return what pauses a queue, empty if nothing does."""
    if situation.queue is not None and manifest_pause(situation.queue):
        return _paused(situation.queue, situation.waiting, present)
    waiting = f"; {_tasks(situation.waiting)}" if situation.waiting else ""
    return PAUSED_BY_COMMAND + waiting if situation.held else ""


def _paused(queue: TaskQueue, waiting: int, present: int) -> str:
    """Return what pauses a queue, and the command that ends that: to apply its manifest again does not."""
    metadata = queue.metadata
    patch = '{"spec":{"paused":false}}' if queue.spec.paused else '{"spec":{"scaling":{"workers":null}}}'
    parts = [f"{manifest_pause(queue)}, so no task is started"]
    if waiting:
        parts.append(_tasks(waiting))
    if present:
        parts.append(f"{present} {'worker finishes' if present == 1 else 'workers finish'} what runs")
    parts.append(
        f"to resume: kubectl patch taskqueue {metadata.name} --namespace {metadata.namespace} --type=merge "
        f"--patch '{patch}'"
    )
    return "; ".join(parts)


def _tasks(waiting: int) -> str:
    return "1 task waits" if waiting == 1 else f"{waiting} tasks wait"


def _sentence(error: GalleyError) -> str:
    return f"{error}; {error.hint}" if error.hint else str(error)


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
