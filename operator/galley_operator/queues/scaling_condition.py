"""The condition `ScalingActive`: whether the number of workers follows the work, and what prevents that."""

from dataclasses import dataclass
from typing import Final

from galley.errors import GalleyError
from galley.resources import TaskQueue
from galley.resources.condition import Truth
from galley.resources.queue_status import ScalingLimit
from galley_operator.autoscaler.decide import Decision

Finding = tuple[Truth, str, str]
"""Whether it holds, the reason, and the sentence."""

INTERFERENCE_SECONDS: Final = 600.0
"""How long it is told that another client changed a queue's Deployment."""


TO_CORRECT: Final = frozenset(
    {
        "ReplicasChanged",
        "DeploymentChanged",
        "DeploymentDeleted",
        "BudgetTooSmall",
        "TargetShort",
        "SpecInvalid",
    }
)
"""Reasons that ask for something to be corrected while scaling goes on; `galley why` says their sentence."""


@dataclass(frozen=True, slots=True)
class Interference:
    """What another client did to a queue's Deployment."""

    reason: str
    message: str
    until: float
    """By the loop's clock, it is told."""


def scaling_finding(  # noqa: PLR0911 - one for each thing that can be wrong
    queue: TaskQueue | None,
    decision: Decision | None,
    interference: Interference | None,
    budget_problem: str,
    withdrawn: GalleyError | None = None,
) -> Finding:
    """Return whether the number of workers follows the work.

    Args:
        queue: None if its spec is invalid; then the last valid one holds.
        decision: the last one of its autoscaler.
        interference: what others did lately.
        budget_problem: why the budget can never allow what the queue is to have; empty if it can.
        withdrawn: what its pods may not use any more.
    """
    if withdrawn is not None:
        message = f"{withdrawn}, so none is started, and those there finish their tasks and end"
        return Truth.FALSE, "ConsentWithdrawn", message
    if decision is None:
        return Truth.UNKNOWN, "NotObserved", "nothing has been decided yet"
    scaling = queue.spec.scaling if queue is not None else None
    if decision.limit is ScalingLimit.SIGNALS:
        return Truth.FALSE, "SignalsMissing", f"{decision.reason}; it changes once that is known again"
    if interference is not None:
        return Truth.TRUE, interference.reason, interference.message
    if budget_problem and decision.limit is ScalingLimit.BUDGET:
        return Truth.FALSE, "BudgetTooSmall", budget_problem
    if scaling is not None and scaling.workers is not None:
        message = f"spec.scaling.workers is {scaling.workers}, and the number does not follow the work"
        return Truth.FALSE, scaling.mode.value, f"{message}; set it to null to have it follow"
    if queue is None:
        message = "spec is invalid, and workers are scaled by the last valid one; Ready says what to correct"
        return Truth.TRUE, "SpecInvalid", message
    return _LIMITED.get(decision.limit) or _of_targets(decision, queue)


_LIMITED: Final[dict[ScalingLimit, Finding]] = {
    ScalingLimit.MAX_WORKERS: (
        Truth.TRUE, "MaxWorkers",
        "more workers are needed than spec.scaling.maxWorkers allows; raise it for shorter waits",
    ),
    ScalingLimit.BUDGET: (
        Truth.TRUE, "Budget",
        "all queues share a budget, and this one gets fewer workers than it needs; raise it, or its priority",
    ),
}  # fmt: skip


def _of_targets(decision: Decision, queue: TaskQueue) -> Finding:
    scaling, seconds = queue.spec.scaling, decision.memory.learned.task_seconds
    targets = {"targetWaitSeconds": scaling.target_wait_seconds}
    targets |= {f"lanes[{lane.name}].targetWaitSeconds": lane.target_wait_seconds for lane in scaling.lanes}
    for name, target in targets.items():
        if seconds is not None and target is not None and target < seconds:
            message = (
                f"spec.scaling.{name} is {target:g}, below the {seconds:.2g} s that a task takes, so that "
                "many tasks that wait get a slot of their own; a longer target saves workers"
            )
            return Truth.TRUE, "TargetShort", message
    return Truth.TRUE, "Scaling", "the number of workers follows the work"
