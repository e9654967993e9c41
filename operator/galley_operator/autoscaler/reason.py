"""Decisions as sentences for people."""

import math
from datetime import datetime

from galley.backlog import QueueBacklog
from galley.resources.queue_status import ScalingLimit
from galley_operator.autoscaler.need import Need
from galley_operator.autoscaler.signals import Memory, ScalingPolicy, Signals
from galley_operator.fleet.fleet import Workforce


def of_decision(
    backlog: QueueBacklog,
    workforce: Workforce,
    policy: ScalingPolicy,
    need: Need,
    *,
    desired: int,
    limit: ScalingLimit,
    memory: Memory,
    leaving: int,
    now: datetime,
) -> str:
    """Return why that many workers are wanted, and what is under way.

    How many are ready or start is not in it: that changes before the next decision, and is shown beside it.
    """
    parts = [f"{_workers(desired)}: {_work(backlog, policy, need, memory)}", _bounds(policy, need, limit)]
    parts += _limits(policy, need)
    if memory.most_needed > desired:
        seconds = (memory.kept_until - now).total_seconds() if memory.kept_until is not None else 0
        stay = "1 stays" if memory.most_needed == 1 else f"up to {memory.most_needed} stay"
        parts.append(f"{stay} for {max(0, seconds):.0f} s more")
    if need.slots == 0 and workforce.present and policy.learns_pauses and memory.pause_worth < 0:
        parts.append("the last pauses of the queue were too long to keep workers")
    if leaving:
        more = "1 more drains, and goes when it runs nothing"
        parts.append(more if leaving == 1 else f"{leaving} more drain, and go when they run nothing")
    if workforce.replacing:
        parts.append("newer ones take the places of those there are")
    if workforce.problem:
        parts.append(f"workers do not come up: {workforce.problem}")
    return "; ".join(parts)


def of_holding(signals: Signals, present: int | None) -> str:
    """Return what is not known and since when; `present` workers are kept (None: not known either)."""
    assert signals.missing is not None
    what, unknown = signals.missing
    who = "as many workers as there are" if present is None else _workers(present)
    return (
        f"{who}, held: {what} is not known since {unknown.since:%H:%M:%S %Z} ({unknown.why}), "
        "and until it is, no worker is started or ended"
    )


def _work(backlog: QueueBacklog, policy: ScalingPolicy, need: Need, memory: Memory) -> str:
    if backlog.paused:
        waiting = _count(backlog.waiting, "task waits", "tasks wait")
        running = f", {backlog.in_flight} still running" if backlog.in_flight else ""
        return f"`galley pause` holds this queue; {waiting}{running}"
    tasks = "task" if backlog.waiting + backlog.in_flight == 1 else "tasks"
    slots = "1 slot" if policy.slots == 1 else f"{policy.slots} slots"
    work = f"{backlog.waiting} waiting + {backlog.in_flight} running {tasks}"
    if not backlog.waiting and not backlog.in_flight:
        if not need.slots:
            return "nothing waits or runs"
        work = f"nothing waits or runs; {_due(need) if need.due else 'tasks ended since the last look'}"
        if need.backlog >= need.arrivals:
            return work
        work = f"{work}; tasks"
    elif need.due:
        work += f" ({_due(need)})"
    learned = memory.learned
    if learned.task_seconds is None or need.within is None:
        return f"{work} over {slots} each"
    rate = f"{_figure(learned.rate)} a second come"
    if need.limited is None:
        needed = _count(max(1, math.ceil(need.slots)), "slot is", "slots are")
    else:
        needed = f"{math.ceil(need.limited)} slots would be"
    seconds = f"{_figure(learned.task_seconds)} s"
    return f"{work} of {seconds}, {rate}: {needed} needed {_for_what(backlog, need, memory)}, at {slots} each"


def _for_what(backlog: QueueBacklog, need: Need, memory: Memory) -> str:
    if need.backlog < need.arrivals:
        return "for those that come"
    if not backlog.waiting and not need.due:
        return "for those that run"
    assert need.within is not None
    which = "them" if need.lane is None else f"those of lane {need.lane}"
    start = _figure(memory.learned.expected_start)
    return (
        f"to start {which} within {_figure(need.within)} s after the {start} s that a worker takes to start"
    )


def _limits(policy: ScalingPolicy, need: Need) -> list[str]:
    """Return what limits of the queue keep it from using more slots."""
    if need.limited is None:
        return []
    by = [f"{policy.most_tasks} tasks at once by spec.limits.concurrency"] if policy.most_tasks else []
    if policy.rate is not None:
        by.append(f"{policy.rate.tasks} starts in {policy.rate.seconds:g} s by spec.limits.rate")
    used = _count(math.ceil(need.slots), "slot is", "slots are")
    return [f"no more than {used} used, since the queue is limited to {' and '.join(by)}"]


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def _due(need: Need) -> str:
    return _count(
        need.due,
        "task for later is due about when a worker has started",
        "tasks for later are due about when workers have started",
    )


def _bounds(policy: ScalingPolicy, need: Need, limit: ScalingLimit) -> str:
    match limit:
        case ScalingLimit.FIXED:
            which = "fixes" if policy.max_workers else "or spec.paused fixes"
            return f"spec.scaling {which} the number at {policy.max_workers}"
        case ScalingLimit.MIN_WORKERS:
            which = "minimums at this hour" if policy.by_hours else "minWorkers"
            return f"at least {policy.min_workers} by spec.scaling.{which}"
        case ScalingLimit.MAX_WORKERS:
            wanted = policy.workers_for(need.slots)
            return (
                f"at most {policy.max_workers} of the {wanted} needed: raise spec.scaling.maxWorkers for more"
            )
        case ScalingLimit.BUDGET:
            wanted = policy.bounded(policy.workers_for(need.slots))
            more = "raise it, or spec.scaling.priority"
            return f"the budget of all queues allows {policy.allowed} of {wanted}: {more}"
        case ScalingLimit.STEP:
            wanted = policy.workers_for(need.slots)
            bound = "" if wanted <= policy.max_workers else f"{policy.max_workers} of the "
            return f"{bound}{wanted} needed come in steps"
        case _:
            return f"at most {policy.max_workers}"


def _figure(number: float) -> str:
    """Return a number with as many digits as help."""
    if number == 0:
        return "0"
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}" if number >= 0.001 else "under 0.001"


def _workers(number: int) -> str:
    return "1 worker" if number == 1 else f"{number} workers"
