"""What each queue gets of a budget that all share. Pure; `ledger` keeps what was claimed.

The budget is given out one worker after the other, in four rounds: first the guaranteed minima, then what
tasks of the lane `critical` need, then what all tasks need, then workers that are only kept for a while. In
each round queues of a higher priority come first, and queues of the same priority share by their weight. A
queue whose next worker does not fit is passed over; others go on.
"""

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Self

from galley.backlog import QueueBacklog
from galley.lanes import Lane
from galley.resources.pod_resources import PodResources, amount
from galley.resources.task_queue import TaskQueue
from galley_operator.autoscaler.decide import Decision
from galley_operator.autoscaler.need import need_of
from galley_operator.autoscaler.signals import ScalingPolicy, Signals
from galley_operator.budget import Budget, WorkerBudget
from galley_operator.fleet.fleet import WorkerPhase, Workforce

Queue = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Cost:
    """What some workers request."""

    workers: int = 0
    cpu: Decimal = Decimal(0)
    memory: Decimal = Decimal(0)

    @classmethod
    def of(cls, queue: TaskQueue, defaults: PodResources) -> Self:
        """Return what one worker of a queue requests: a limit counts where there is no request."""
        template = queue.spec.worker.template.resources
        given = {**defaults.limits, **defaults.requests, **template.limits, **template.requests}
        return cls(1, *(amount(given[name]) if name in given else Decimal(0) for name in ("cpu", "memory")))

    def __str__(self) -> str:
        return f"{self.cpu.normalize():f} CPU and {self.memory / 1024**2:.0f} MiB of memory"

    def times(self, number: int) -> Self:
        """Return the cost of so many."""
        return replace(
            self, workers=self.workers * number, cpu=self.cpu * number, memory=self.memory * number
        )

    def plus(self, other: "Cost") -> Self:
        """Return the cost of both."""
        return replace(
            self,
            workers=self.workers + other.workers,
            cpu=self.cpu + other.cpu,
            memory=self.memory + other.memory,
        )

    def within(self, budget: WorkerBudget) -> bool:
        """Return whether a budget allows it."""
        return (
            (budget.workers is None or self.workers <= budget.workers)
            and (budget.cpu is None or self.cpu <= budget.cpu)
            and (budget.memory is None or self.memory <= budget.memory)
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """What one queue wants of the budget; all numbers are workers."""

    queue: Queue
    cost: Cost
    """Of one worker."""
    priority: int = 0
    weight: int = 1
    least: int = 0
    """Guaranteed."""
    urgent: int = 0
    """Needed for tasks of the lane `critical`."""
    wanted: int = 0
    """Needed for all tasks."""
    kept: int = 0
    """Needed lately."""
    held: int = 0
    """There are, those that are about to end included."""

    @property
    def rounds(self) -> tuple[int, int, int, int]:
        """The number wanted after each round."""
        wanted = max(self.least, self.wanted)
        return self.least, max(self.least, min(self.urgent, wanted)), wanted, max(wanted, self.kept)


def claim_of(
    queue: Queue, cost: Cost, policy: ScalingPolicy, signals: Signals, decision: Decision
) -> Claim | None:
    """Return what a queue claims; None while its workers are not known.

    Args:
        queue: its namespace and its name.
        cost: of one worker.
        policy: its bounds, priority and weight.
        signals: what is known of it.
        decision: what it would do if it were alone.
    """
    workforce, backlog = signals.workforce, signals.backlog
    if not isinstance(workforce, Workforce):
        return None
    claim = Claim(
        queue, cost, policy.priority, policy.weight, policy.min_workers, held=len(workforce.workers)
    )
    present = workforce.present
    if signals.missing is not None or not isinstance(backlog, QueueBacklog) or decision.needed is None:
        # What cannot be seen keeps what it has.
        return replace(claim, wanted=len(present), kept=len(present))
    wanted = policy.within(decision.needed)
    if any(worker.phase is WorkerPhase.FAILED for worker in present):
        # Workers that do not come up, or find no node, must not hold the budget of those that would.
        wanted = min(wanted, 1 + sum(worker.phase is not WorkerPhase.FAILED for worker in present))
    critical = [lane for lane in backlog.lanes if lane.lane is Lane.CRITICAL]
    need = need_of(
        sum(lane.waiting for lane in critical),
        sum(lane.in_flight for lane in critical),
        replace(decision.memory.learned, rate=0.0),
        target=policy.target_of(Lane.CRITICAL),
        ready_slots=0,
    )
    return replace(
        claim,
        wanted=wanted,
        urgent=policy.workers_for(need.slots),
        kept=min(policy.max_workers, decision.memory.most_needed),
    )


def share(claims: Collection[Claim], budget: Budget) -> dict[Queue, int]:
    """Return how many workers each queue may have; together never more than the budget."""
    given: dict[Queue, int] = {claim.queue: 0 for claim in claims}
    spent: dict[str, Cost] = {}
    for number in range(4):
        for priority in sorted({claim.priority for claim in claims}, reverse=True):
            group = [claim for claim in claims if claim.priority == priority]
            _round(group, number, budget, given, spent)
    return given


def _round(
    group: Sequence[Claim], number: int, budget: Budget, given: dict[Queue, int], spent: dict[str, Cost]
) -> None:
    """Give workers to queues of one priority, each time to the one that has least for its weight."""
    turns = [(given[each.queue] / each.weight, each.queue, each) for each in group]
    heapq.heapify(turns)
    while turns:
        _, queue, claim = heapq.heappop(turns)
        if given[queue] >= claim.rounds[number] or not fits(claim, 1, budget, spent):
            continue
        spend(claim, 1, spent)
        given[queue] += 1
        heapq.heappush(turns, (given[queue] / claim.weight, queue, claim))


def fits(claim: Claim, workers: int, budget: Budget, spent: Mapping[str, Cost]) -> bool:
    """Return whether a budget has so many more workers of a queue left, given what was spent by namespace."""
    more, namespace = claim.cost.times(workers), claim.queue[0]
    own = budget.namespaces.get(namespace)
    return spent.get("", Cost()).plus(more).within(budget) and (
        own is None or spent.get(namespace, Cost()).plus(more).within(own)
    )


def spend(claim: Claim, workers: int, spent: dict[str, Cost]) -> None:
    """Note what was spent: of the cluster under the empty name, which no namespace has."""
    more = claim.cost.times(workers)
    for name in ("", claim.queue[0]):
        spent[name] = spent.get(name, Cost()).plus(more)
