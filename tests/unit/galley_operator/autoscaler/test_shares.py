"""How queues share a budget: never more than it, minima first, then priority and weight."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from galley.backlog import LaneBacklog, QueueBacklog, Unknown
from galley.lanes import Lane
from galley.resources import TaskQueue
from galley.resources.condition import Truth
from galley.resources.pod_resources import PodResources
from galley.resources.queue_status import ScalingLimit
from galley_operator.autoscaler.decide import Decision, decide
from galley_operator.autoscaler.ledger import Ledger
from galley_operator.autoscaler.shares import Claim, Cost, claim_of, share
from galley_operator.autoscaler.signals import Memory, ScalingPolicy, Signals
from galley_operator.budget import Budget
from galley_operator.fleet.fleet import Workforce
from galley_operator.queues.scaling_condition import scaling_finding
from tests.unit.galley_operator.autoscaler.queues import (
    NOON,
    POLICY,
    SILENT,
    a_backlog,
    at,
    workers,
)

ONE = Cost(1, Decimal(1), Decimal(2))


def a_claim(name: str, wanted: int = 0, **more: Any) -> Claim:
    namespace, _, queue = name.rpartition("/")
    return Claim((namespace or "shop", queue), more.pop("cost", ONE), wanted=wanted, **more)


def shared(budget: dict[str, Any], *claims: Claim) -> list[int]:
    given = share(claims, Budget.model_validate(budget))
    return [given[claim.queue] for claim in claims]


@pytest.mark.parametrize(
    ("claim", "budget", "claims", "given"),
    [
        ("enough for all", {"workers": 9}, (a_claim("a", 4), a_claim("b", 5)), [4, 5]),
        ("no limit", {}, (a_claim("a", 400),), [400]),
        ("equal queues share equally", {"workers": 10}, (a_claim("a", 99), a_claim("b", 99)), [5, 5]),
        ("what one leaves others get", {"workers": 10}, (a_claim("a", 2), a_claim("b", 99)), [2, 8]),
        ("by weight", {"workers": 9}, (a_claim("a", 99, weight=2), a_claim("b", 99)), [6, 3]),
        ("priority comes first", {"workers": 9}, (a_claim("a", 99), a_claim("b", 7, priority=1)), [2, 7]),
        ("but minima before", {"workers": 9},
         (a_claim("a", 99, least=4), a_claim("b", 9, priority=1)), [4, 5]),
        ("critical tasks before other tasks of a higher priority", {"workers": 9},
         (a_claim("a", 8, urgent=3), a_claim("b", 99, priority=5)), [3, 6]),
        ("who is needed before who is kept", {"workers": 9},
         (a_claim("a", 1, kept=9, priority=9), a_claim("b", 7)), [2, 7]),
        ("a namespace has its own", {"workers": 9, "namespaces": {"x": {"workers": 2}}},
         (a_claim("x/a", 9, priority=1), a_claim("y/b", 9)), [2, 7]),
        ("cpu", {"cpu": "2500m"}, (a_claim("a", 9),), [2]),
        ("memory", {"memory": "7"}, (a_claim("a", 9),), [3]),
        ("one that does not fit does not stop smaller ones", {"cpu": "3"},
         (a_claim("a", 9, priority=1, cost=Cost(1, Decimal(4))), a_claim("b", 9)), [0, 3]),
        ("minima that do not add up go by priority", {"workers": 3},
         (a_claim("a", least=3), a_claim("b", least=2, priority=1)), [1, 2]),
    ],
)  # fmt: skip
def test_a_budget_is_shared(
    claim: str, budget: dict[str, Any], claims: tuple[Claim, ...], given: list[int]
) -> None:
    assert shared(budget, *claims) == given, claim


few = st.integers(0, 12)
costs = st.builds(Cost, st.just(1), st.sampled_from((Decimal("0.5"), Decimal(2))), st.just(Decimal(1)))
claims = st.lists(
    st.builds(
        Claim, st.tuples(st.sampled_from("xy"), st.sampled_from("abcd")), costs, st.integers(-1, 1),
        st.integers(1, 3), st.integers(0, 2), few, few, few,
    ),
    max_size=6, unique_by=lambda claim: claim.queue,
)  # fmt: skip
limits = st.one_of(st.none(), st.integers(0, 20))
budgets = st.builds(
    lambda workers, cpu, own: Budget.model_validate(
        {"workers": workers, "cpu": cpu, "namespaces": {"x": {"workers": own}}}
    ),
    limits, limits, limits,
)  # fmt: skip


def spent(numbers: list[tuple[Claim, int]], namespace: str = "") -> Cost:
    total = Cost()
    for claim, number in numbers:
        if namespace in ("", claim.queue[0]):
            total = total.plus(claim.cost.times(number))
    return total


@settings(max_examples=150)
@given(claims, budgets)
def test_a_budget_is_never_exceeded_and_minima_that_fit_are_met(some: list[Claim], budget: Budget) -> None:
    given = share(some, budget)
    numbers = [(claim, given[claim.queue]) for claim in some]
    for name, limit in (("", budget), *budget.namespaces.items()):
        assert spent(numbers, name).within(limit)
    assert all(number <= claim.rounds[-1] for claim, number in numbers)
    minima = [(claim, claim.least) for claim in some]
    if all(spent(minima, name).within(limit) for name, limit in (("", budget), *budget.namespaces.items())):
        assert all(number >= claim.least for claim, number in numbers)


@settings(max_examples=60)
@given(claims, budgets, st.lists(st.tuples(st.integers(0, 5), few, few), max_size=40))
def test_what_is_there_never_exceeds_the_budget_in_any_order_of_asking(
    some: list[Claim], budget: Budget, history: list[tuple[int, int, int]]
) -> None:
    ledger = Ledger(budget)
    there = {claim.queue: 0 for claim in some}
    by_name = {claim.queue: replace(claim, held=0) for claim in some}
    for second, (index, wanted, leaving) in enumerate(history):
        if not some:
            return
        queue = some[index % len(some)].queue
        # Workers that drain stay for as long as they like.
        claim = by_name[queue] = replace(by_name[queue], wanted=wanted, held=there[queue])
        allowed = ledger.allowed(claim, at(10 * second))
        there[queue] = max(allowed, there[queue] - leaving)
        ledger.took(queue, there[queue])
        numbers = [(by_name[name], number) for name, number in there.items()]
        for name, limit in (("", budget), *budget.namespaces.items()):
            assert spent(numbers, name).within(limit)


def test_a_queue_grows_only_into_what_others_gave_back() -> None:
    ledger = Ledger(Budget(workers=10))
    low, high = a_claim("low", 10, held=10), a_claim("high", 6, priority=1)
    assert ledger.allowed(low, at(0)) == 10
    assert ledger.allowed(high, at(10)) == 0, "the other holds all"
    assert ledger.allowed(low, at(11)) == 4, "and must drain 6"
    assert ledger.allowed(replace(low, held=7), at(12)) == 4
    assert ledger.allowed(high, at(13)) == 3
    ledger.took(high.queue, 3)
    assert ledger.allowed(replace(low, held=4), at(14)) == 4
    assert ledger.allowed(replace(high, held=3), at(15)) == 6
    assert ledger.allowed(replace(high, wanted=0, held=0), at(16)) == 0
    assert ledger.allowed(replace(low, held=4), at(17)) == 10, "what was borrowed comes back"


def test_after_a_start_no_queue_grows_before_each_has_told_what_it_has() -> None:
    ledger = Ledger(Budget(workers=10))
    assert ledger.allowed(a_claim("a", 10, held=2), at(0)) == 2
    assert ledger.allowed(a_claim("a", 10, held=2), at(4)) == 2
    assert ledger.allowed(a_claim("a", 10, held=2), at(5)) == 10


def test_a_queue_that_is_gone_holds_nothing() -> None:
    ledger = Ledger(Budget(workers=10))
    ledger.allowed(a_claim("a", 9, held=9), at(0))
    assert ledger.allowed(a_claim("b", 9), at(9)) == 1
    assert not ledger.leave(("shop", "a"), Cost())
    ledger.took(("shop", "a"), 5)
    assert ledger.allowed(a_claim("b", 9), at(9)) == 9


# A queue's claim, and what it does with what it is allowed.


def decided(backlog: QueueBacklog | Unknown, workforce: Workforce | Unknown, allowed: int | None) -> Decision:
    policy = replace(POLICY, allowed=allowed, max_workers=6)
    memory = Memory(needs=((at(-1), 4),))
    return decide(Signals(backlog, workforce), policy, memory, NOON)


def claimed(backlog: QueueBacklog | Unknown, workforce: Workforce | Unknown) -> Claim | None:
    policy = replace(POLICY, max_workers=6, priority=3, weight=2)
    signals = Signals(backlog, workforce)
    return claim_of(("shop", "images"), ONE, policy, signals, decided(backlog, workforce, None))


def test_a_claim_has_what_is_needed_and_what_is_there() -> None:
    claim = claimed(a_backlog(12), workers("ready", "stop"))
    assert claim == Claim(("shop", "images"), ONE, 3, 2, 0, urgent=0, wanted=3, kept=4, held=2)
    lanes = QueueBacklog((LaneBacklog(Lane.CRITICAL, 5, 0), LaneBacklog(Lane.NORMAL, 40, 0)))
    critical = claimed(lanes, workers())
    assert critical is not None
    assert (critical.urgent, critical.wanted) == (2, 6)


def test_what_cannot_be_seen_keeps_what_it_has() -> None:
    claim = claimed(SILENT, workers("ready", "ready"))
    assert claim is not None
    assert (claim.wanted, claim.held) == (2, 2)
    assert claimed(a_backlog(9), SILENT) is None


def test_workers_that_find_no_node_hold_no_budget() -> None:
    claim = claimed(a_backlog(99), workers("ready", "fail", "fail"))
    assert claim is not None
    assert claim.wanted == 2


def test_a_budget_takes_idle_workers_first_and_drains_busy_ones() -> None:
    crowd = workers("ready:4", "ready:0", "ready:2")
    decision = decided(a_backlog(40, 6), crowd, 1)
    assert (decision.desired, decision.limit) == (1, ScalingLimit.BUDGET)
    assert decision.drain == ("w2", "w3")
    assert decision.scale_to is None, "no busy worker is ended"
    assert "the budget of all queues allows 1 of 6: raise it, or spec.scaling.priority" in decision.reason


def test_a_budget_that_suffices_changes_nothing() -> None:
    for allowed in (None, 6):
        assert decided(a_backlog(40), workers(), allowed).scale_to == 4
    assert decided(a_backlog(40), workers(), 2).scale_to == 2
    assert decided(a_backlog(), workers("ready"), 0).drain == ("w1",)


def test_the_cost_of_a_worker_is_what_its_pod_requests() -> None:
    spec = {"worker": {"template": {"resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "1Gi"}}}}}
    queue = TaskQueue.model_validate({"metadata": {"name": "images"}, "spec": spec})
    defaults = PodResources(requests={"cpu": "1", "memory": "64Mi"})
    assert Cost.of(queue, PodResources()) == Cost(1, Decimal("0.25"), Decimal(1024**3))
    assert Cost.of(queue, defaults) == Cost(1, Decimal("0.25"), Decimal(1024**3))
    plain = TaskQueue.model_validate({"metadata": {"name": "images"}})
    assert Cost.of(plain, defaults) == Cost(1, Decimal(1), Decimal(64 * 1024**2))


def test_a_budget_is_read_as_an_administrator_writes_it() -> None:
    budget = Budget.model_validate({"cpu": "40", "memory": "1Gi", "namespaces": {"x": {"workers": 3}}})
    assert [budget.cpu, budget.memory] == [Decimal(40), Decimal(1024**3)]
    assert budget.limited
    assert not Budget.model_validate({"workers": None, "namespaces": {}}).limited
    for wrong in ({"cpu": "much"}, {"workers": -1}, {"pods": 3}):
        with pytest.raises(ValidationError):
            Budget.model_validate(wrong)
    assert isinstance(ScalingPolicy.of(TaskQueue.model_validate({"metadata": {"name": "a"}})).priority, int)


def test_a_queue_at_rest_is_woken_when_another_claims_what_it_holds() -> None:
    ledger, woken = Ledger(Budget(workers=2)), []
    for name in ("a", "b"):
        ledger.join(("shop", name), lambda name=name: woken.append(name))  # type: ignore[misc]
    ledger.allowed(a_claim("a", held=2, kept=2), at(0))
    assert ledger.allowed(a_claim("b", wanted=1), at(10)) == 0
    assert woken == ["a"], "only those that hold too much"
    assert not ledger.leave(("shop", "a"), Cost())
    assert ledger.allowed(a_claim("b", wanted=1), at(11)) == 1


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ((a_claim("a", 9),), ""),
        ((a_claim("a", least=2), a_claim("b", 9)), ""),
        (
            (a_claim("a", 1, cost=Cost(1, Decimal(9), Decimal(2**30))),),
            "requests 9 CPU and 1024 MiB of memory",
        ),
        (
            (a_claim("b", least=2, held=2, priority=1), a_claim("a", least=2)),
            "4 workers, are more than the budget",
        ),
    ],
)
def test_a_budget_that_can_never_be_met_is_named(claims: tuple[Claim, ...], says: str) -> None:
    ledger = Ledger(Budget(workers=3, cpu=Decimal(3)))
    *others, last = claims
    for claim in others:
        ledger.allowed(claim, at(0))
    problem = ledger.problem(last, ledger.allowed(last, at(10)))
    assert says in problem
    assert bool(says) == bool(problem)


def test_a_queue_that_the_budget_can_never_serve_says_so() -> None:
    policy = replace(POLICY, allowed=0)
    decision = decide(Signals(a_backlog(3), Workforce()), policy, None, NOON)
    queue = TaskQueue.model_validate({"metadata": {"name": "a"}, "spec": {"worker": {"modules": ["jobs"]}}})
    assert scaling_finding(queue, decision, None, "too much") == (Truth.FALSE, "BudgetTooSmall", "too much")
    assert scaling_finding(queue, decision, None, "")[1] == "Budget"
