"""What queues claim of a budget that all share, and how many workers each may have now."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from galley_operator.autoscaler.shares import Claim, Cost, Queue, fits, share, spend
from galley_operator.budget import Budget

SETTLE_SECONDS: Final = 5.0
"""Time after a start in which no queue grows, so that each has told what it has."""


@dataclass(slots=True)
class Ledger:
    """The claims of all queues on a budget. A queue grows only into what no other holds."""

    budget: Budget
    _claims: dict[Queue, Claim] = field(default_factory=dict)
    _wakes: dict[Queue, Callable[[], None]] = field(default_factory=dict)
    _began: datetime | None = None

    def join(self, queue: Queue, wake: Callable[[], None]) -> None:
        """Have a queue woken when it holds more than it may have, since another one claims it."""
        self._wakes[queue] = wake

    def allowed(self, claim: Claim, now: datetime) -> int:
        """Note a claim; return how many workers its queue may have now."""
        self._began = self._began or now
        self._claims[claim.queue] = claim
        if not claim.rounds[-1]:
            return 0
        given = share(self._claims.values(), self.budget)
        most = given[claim.queue]
        if most <= claim.held:
            return most
        if 0 <= (now - self._began).total_seconds() < SETTLE_SECONDS:
            return claim.held
        spent: dict[str, Cost] = {}
        for each in self._claims.values():
            spend(each, each.held, spent)
            if each.held > given[each.queue] and each.queue in self._wakes:
                self._wakes[each.queue]()
        more = 0
        while claim.held + more < most and fits(claim, more + 1, self.budget, spent):
            more += 1
        return claim.held + more

    def problem(self, claim: Claim, allowed: int) -> str:
        """Return why the budget can never allow what a queue is to have; empty if it can."""
        if not fits(claim, 1, self.budget, {}):
            return (
                f"one worker of this queue requests {claim.cost}, more than the whole budget, so that none "
                "can start; lower worker.template.resources.requests, or raise the budget"
            )
        minima = sum(each.least for each in self._claims.values())
        if allowed < claim.least and not _all_fit(self._claims.values(), self.budget):
            return (
                f"the minWorkers of all queues, {minima} workers, are more than the budget, which leaves "
                f"this queue {allowed} of {claim.least}; lower spec.scaling.minWorkers, or raise the budget"
            )
        return ""

    def took(self, queue: Queue, workers: int) -> None:
        """Note that a queue is about to have so many, if that is more than it has."""
        if (claim := self._claims.get(queue)) is not None:
            self._claims[queue] = replace(claim, held=max(claim.held, workers))

    def leave(self, queue: Queue, left: Cost | None) -> bool:
        """Note that a queue is not scaled (any more); returns whether its workers hold something.

        Args:
            queue: its namespace and its name.
            left: what its workers request: they may go on for hours, or for good if it was deleted without
                what it owns. None if that is not known.
        """
        self._wakes.pop(queue, None)
        claim = self._claims.pop(queue, None)
        if left is None and claim is not None:
            left = claim.cost.times(claim.held)
        if left is None or not left.workers:
            return False
        self._claims[queue] = Claim(queue, left, held=1)
        return True


def _all_fit(claims: Collection[Claim], budget: Budget) -> bool:
    """Return whether the minima of all queues fit."""
    spent: dict[str, Cost] = {}
    for claim in claims:
        if not fits(claim, claim.least, budget, spent):
            return False
        spend(claim, claim.least, spent)
    return True
