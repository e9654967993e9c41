"""How many slots a queue needs where its lanes have targets of their own. Pure.

A task starts after those of higher lanes. So each lane, with all above it, is to start within its target, in
the slots that tasks of lower lanes leave; the highest of these needs counts.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from galley.backlog import QueueBacklog
from galley.lanes import Lane
from galley_operator.autoscaler.learned import Learned
from galley_operator.autoscaler.need import Due, Need, Starting, need_of
from galley_operator.autoscaler.signals import ScalingPolicy

_AVERAGED_SECONDS: Final = 60.0


def queue_need(
    backlog: QueueBacklog,
    learned: Learned,
    policy: ScalingPolicy,
    load: Mapping[Lane, float],
    *,
    ready_slots: int,
    due: Due,
    starting: Starting = (),
) -> Need:
    """Return the slots a queue needs.

    Args:
        backlog: what waits and runs; a paused queue has nothing that waits.
        learned: of its tasks and workers.
        policy: with the targets.
        load: tasks of each lane that run on average; what is there now stands for it while it is empty.
        ready_slots: slots of workers that take tasks now.
        due: tasks for later.
        starting: slots of workers that are on their way.
    """
    waiting, running = 0 if backlog.paused else backlog.waiting, backlog.in_flight
    due = () if backlog.paused else due
    lanes = backlog.lanes
    last = policy.target_of(lanes[-1].lane) if lanes else policy.target_seconds
    need = need_of(
        waiting, running, learned, target=last, ready_slots=ready_slots, starting=starting, due=due
    )
    if not policy.lane_targets or backlog.paused or not (waiting or running):
        return need
    known = load if sum(load.values()) > 0 else {lane.lane: lane.waiting + lane.in_flight for lane in lanes}
    total = sum(known.values())
    for index, lane in enumerate(lanes[:-1]):
        target, upper = policy.target_of(lane.lane), lanes[: index + 1]
        if target == policy.target_of(lanes[index + 1].lane):
            continue
        share = min(1.0, sum(known.get(each.lane, 0.0) for each in upper) / total)
        below = sum(each.in_flight for each in lanes[index + 1 :])
        part = need_of(
            sum(each.waiting for each in upper),
            sum(each.in_flight for each in upper),
            replace(learned, rate=learned.rate * share),
            target=target,
            ready_slots=max(0, ready_slots - below),
            starting=starting,
        )
        rest = learned.rate * (1 - share) * (learned.task_seconds or 0.0)
        arrivals = max(need.arrivals, part.arrivals + rest if part.slots else 0.0)
        if part.slots and part.backlog + below > max(need.backlog, arrivals):
            need = replace(need, backlog=part.backlog + below, within=part.within, lane=lane.lane)
        kept = max(need.kept, part.kept + rest if part.slots else 0.0)
        need = replace(need, arrivals=arrivals, kept=kept, slots=max(need.backlog, arrivals))
    return need


def averaged(load: Mapping[Lane, float], backlog: QueueBacklog, seconds: float) -> dict[Lane, float]:
    """Return how many tasks of each lane run on average, after one more look.

    Args:
        load: before it.
        backlog: what runs now.
        seconds: since the look before.
    """
    old = math.exp(-max(0.0, seconds) / _AVERAGED_SECONDS)
    return {lane.lane: load.get(lane.lane, 0.0) * old + lane.in_flight * (1 - old) for lane in backlog.lanes}
