"""How many workers a queue should have, and which may go: the rule, and nothing but the rule.

How many slots the work needs is `need`'s to say: by the tasks that wait, run and come, and the time each
takes. It is brought between min and max, and at most doubled, or raised by a few, in one step.

More are started at once. Fewer take three steps, so that no task is cut off: for `idle_seconds`
fewer must have sufficed; then the least busy are asked to drain, for a minute at a time; and when they
say that they are draining with nothing running, they go. Work that comes back meanwhile ends the drain,
and so does a replacement of the workers by newer ones. What is not known changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from galley.backlog import QueueBacklog
from galley.resources.queue_status import ScalingLimit
from galley_operator.autoscaler import reason
from galley_operator.autoscaler.lane_need import averaged, queue_need
from galley_operator.autoscaler.need import Need, Starting, ahead_seconds
from galley_operator.autoscaler.signals import Memory, ScalingPolicy, Signals
from galley_operator.fleet.fleet import WorkerPhase, WorkerView, Workforce, removable

DRAIN_SECONDS: Final = 60.0
"""Life of a drain: long enough to survive a pause of the autoscaler, short enough that workers whose
autoscaler is gone are soon back at work."""

RENEW_SECONDS: Final = 20.0
"""A drain is renewed when a third of it is over, so that two lost requests do not end it."""

SWEEP_SECONDS: Final = 1.0
"""Time between two looks while something waits, runs or changes; what a removed worker has waited for at
least."""

PROMPT_SECONDS: Final = 0.2
"""The same where a worker that is let go a second later costs more than a look."""

PROMPT_SHARE: Final = 0.05
"""Part of the time for which a worker is there that may pass until it is seen that it is not needed."""

STEP_SECONDS: Final = 2.0
"""Time between two steps up."""

STEP_WORKERS: Final = 4
"""Workers that may be added in a step at least: small queues need not wait."""

PEAK_STARTS: Final = 0.5
"""Times a worker's start for which workers are kept that only a backlog needed. To start them again costs
more, but few backlogs come back so soon, and a drain takes a while as well."""

SHORTEST_PEAK: Final = 3.0

SOON: Final = 60.0
"""Seconds in which workers that were let go and are needed again count as let go too soon; with long tasks
three times their time, since a load takes as long to change by chance."""

MOST_RETURNS: Final = 6
"""Doublings of the time for which workers are kept under load, at most."""

MOST_IDLE_RETURNS: Final = 1
"""The same while nothing waits or runs: a load that pauses finds its workers; one that ends costs little."""

STEADY_LONGER: Final = 8
"""Times the idle time for which workers are kept that chance needed once, while a load of long tasks is
steady: chance will need them again."""

START_SECONDS: Final = 60.0
"""How long a starting worker delays scale-in; one that hangs must not delay it longer."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done about one queue's workers; done in the order of the fields."""

    desired: int
    """Workers that are wanted: what the work asks for within the bounds, or the present number, put
    within the bounds, while something is not known."""
    undrain: tuple[str, ...]
    """Workers whose drain ends: they are needed again."""
    scale_to: int | None
    """What to tell `Fleet.scale`; None to leave it alone."""
    remove: int
    """How many workers `scale_to` takes away; each of them is drained or has failed."""
    drain: tuple[str, ...]
    """Workers to ask, or to ask again, to drain for `DRAIN_SECONDS`."""
    needed: int | None
    """Workers the work needs, whatever the bounds; None while that is not known."""
    limit: ScalingLimit
    """What keeps `desired` from that."""
    memory: Memory
    """To be handed to the next decision."""
    reason: str
    """Why, as a sentence for people."""
    next_at: datetime | None = None
    """When tasks for later begin to count, so that another decision is due; None if no time is known."""
    look_in: float = SWEEP_SECONDS
    """Seconds until the next look, unless the queue is at rest."""


def decide(signals: Signals, policy: ScalingPolicy, memory: Memory | None, now: datetime) -> Decision:
    """Return what to do about a queue's workers.

    Args:
        signals: what is known.
        policy: what the queue's owner allows.
        memory: of the decision before; None for the first one.
        now: the time, timezone-aware.
    """
    memory, policy = memory or Memory(), policy.at(now) if policy.minimums else policy
    if signals.missing is not None:
        return _hold(signals, policy, memory, now)
    assert isinstance(signals.backlog, QueueBacklog)
    assert isinstance(signals.workforce, Workforce)
    backlog, workforce = signals.backlog, signals.workforce
    memory, need = _looked(memory, backlog, workforce, policy, now)
    policy = policy.beside_start(memory.learned.expected_start)
    memory, step = _step(memory, len(workforce.present), now)
    needed = policy.workers_for(need.slots)
    desired = policy.within(max(policy.min_workers, min(needed, step)))
    limit = _limit(policy, needed, desired)
    memory = _first_of(memory, workforce, now)
    staying = sum(not _is_leaving(worker, memory, now) for worker in workforce.present)
    if policy.learns_pauses:
        paying = policy.paying_pause(memory.learned.expected_start)
        memory = memory.paused(_rests(backlog, need), now, paying)
    memory = _remembered(policy, memory, need, desired, now, staying=staying)
    kept = memory.most_needed if policy.allowed is None else min(memory.most_needed, policy.allowed)
    moves = _moves(workforce, desired, kept, memory, now)
    memory = _counted(memory, moves, len(workforce.present), now)
    drain = tuple(worker.name for worker in moves.leaving if _to_be_asked(worker, memory, now))
    asked = {worker.name: memory.asked.get(worker.name, now) for worker in moves.leaving}
    return Decision(
        desired=desired,
        undrain=tuple(worker.name for worker in moves.back),
        scale_to=moves.scale_to,
        remove=len(moves.gone),
        drain=drain,
        needed=needed,
        limit=limit,
        memory=replace(memory, asked=asked | dict.fromkeys(drain, now)),
        reason=reason.of_decision(
            backlog,
            workforce,
            policy,
            need,
            desired=desired,
            limit=limit,
            memory=memory,
            leaving=len(moves.leaving),
            now=now,
        ),
        next_at=_next_at(backlog, memory, now),
        look_in=_look_in(workforce, policy, memory, need, now, drains=not memory.asked.keys() >= set(drain)),
    )


def _look_in(
    workforce: Workforce, policy: ScalingPolicy, memory: Memory, need: Need, now: datetime, *, drains: bool
) -> float:
    """Return the seconds until the next look: less where workers go at once when nothing is left to do."""
    if drains:
        return PROMPT_SECONDS  # those asked first confirm at once, and can go if they are idle
    patience = max(_patience(policy, memory, resting=True))
    ages = [(now - w.since).total_seconds() for w in workforce.present if w.phase is WorkerPhase.READY]
    if not ages or len(ages) <= policy.min_workers:
        return SWEEP_SECONDS
    if not need.slots and memory.kept_until is not None:
        wait = (memory.kept_until - now).total_seconds()
    elif patience < SWEEP_SECONDS:
        wait = PROMPT_SHARE * min(ages)
    else:
        return SWEEP_SECONDS
    return min(SWEEP_SECONDS, max(PROMPT_SECONDS, wait))


def _next_at(backlog: QueueBacklog, memory: Memory, now: datetime) -> datetime | None:
    """Return when tasks for later count that do not yet; now if some do."""
    if not backlog.coming or backlog.paused:
        return None
    return max(now, backlog.coming[0][0] - timedelta(seconds=ahead_seconds(memory.learned)))


def _looked(
    memory: Memory, backlog: QueueBacklog, workforce: Workforce, policy: ScalingPolicy, now: datetime
) -> tuple[Memory, Need]:
    """Return what is known after this look, and the slots that are needed."""
    if policy.lane_targets:
        seconds = (now - memory.learned.at).total_seconds() if memory.learned.at is not None else 0.0
        memory = replace(memory, lane_load=averaged(memory.lane_load, backlog, seconds))
    learned = memory.learned.after(backlog.waiting + backlog.in_flight, workforce, now)
    need = queue_need(
        backlog,
        learned.figures,
        policy,
        memory.lane_load,
        ready_slots=sum(w.slots for w in workforce.present if w.phase is WorkerPhase.READY),
        starting=_on_their_way(workforce, learned.expected_start, now),
        due=[((at - now).total_seconds(), tasks) for at, tasks in backlog.coming],
    )
    return replace(memory, learned=learned), need.within_limits(policy.most_slots(learned.task_seconds))


def _on_their_way(workforce: Workforce, start: float, now: datetime) -> Starting:
    """Return when workers that start are ready; those that take longer than others did are not counted on."""
    left = (
        (start - (now - worker.since).total_seconds(), worker.slots)
        for worker in workforce.present
        if worker.phase is WorkerPhase.STARTING
    )
    return sorted((min(start, seconds), slots) for seconds, slots in left if seconds > 0)


@dataclass(frozen=True, slots=True)
class _Moves:
    """Who comes back, who goes now, who is to go, and what number that makes."""

    back: Sequence[WorkerView]
    gone: Sequence[WorkerView]
    leaving: Sequence[WorkerView]
    scale_to: int | None


def _limit(policy: ScalingPolicy, needed: int, desired: int) -> ScalingLimit:
    """Return what keeps the number of workers from what is needed."""
    if policy.allowed is not None and desired == policy.allowed < policy.bounded(needed):
        return ScalingLimit.BUDGET
    if policy.min_workers == policy.max_workers:
        return ScalingLimit.FIXED
    if needed < desired:
        return ScalingLimit.MIN_WORKERS
    if needed > desired:
        return ScalingLimit.MAX_WORKERS if desired == policy.max_workers else ScalingLimit.STEP
    return ScalingLimit.NONE


def _rests(backlog: QueueBacklog, need: Need) -> bool | None:
    """Return whether the queue pauses by itself; None where it is held, which says nothing of its load."""
    return None if backlog.paused else not need.slots


def _step(memory: Memory, present: int, now: datetime) -> tuple[Memory, int]:
    """Return how many workers there may be in this step."""
    if memory.step is None or not 0 <= (now - memory.step[0]).total_seconds() < STEP_SECONDS:
        memory = replace(memory, step=(now, present))
    assert memory.step is not None
    before = memory.step[1]
    return memory, max(present, before + max(STEP_WORKERS, before))


def _remembered(
    policy: ScalingPolicy, memory: Memory, need: Need, desired: int, now: datetime, *, staying: int
) -> Memory:
    """Return the memory with what is needed now, and until when it counts.

    Longer where workers that were let go were needed again, and shorter for what only a backlog needs.
    """
    steady = desired
    patience, peak = _patience(policy, memory, resting=not need.slots, steady=need.steady)
    if memory.learned.task_seconds is not None and not memory.timed:
        # Until now each task got a slot, which says nothing of what they need.
        memory = replace(memory, needs=(), timed=True)
    if memory.learned.task_seconds is None:
        peak = 0.0
    elif need.slots:
        steady = min(desired, max(1, policy.min_workers, policy.workers_for(need.arrivals)))
        # What is there stays as long as it is only more than needed by the error of the estimate.
        enough = policy.workers_for(need.kept)
        steady = max(steady, min(staying, policy.within(enough)))
    memory = memory.needing(steady, now, patience).peaking(desired, now, peak)
    until = [
        needs[0][0] + timedelta(seconds=seconds)
        for needs, seconds in ((memory.needs, patience), (memory.peaks, peak))
        if needs[0][1] == memory.most_needed
    ]
    return replace(memory, kept_until=max(until))


def _patience(
    policy: ScalingPolicy, memory: Memory, *, resting: bool, steady: bool = False
) -> tuple[float, float]:
    """Return for how many seconds workers are kept: those for what comes, and those of a backlog."""
    longer = 2 ** (min(memory.returns, MOST_IDLE_RETURNS) if resting else memory.returns)
    if steady:
        longer = max(longer, STEADY_LONGER)
    short = min(policy.idle_seconds, max(SHORTEST_PEAK, PEAK_STARTS * memory.learned.expected_start))
    if policy.learns_pauses and resting and memory.pause_worth < 0:
        # Pauses as long as the last ones make it a loss to keep workers: the surer, the sooner they go.
        kept = short * (1 + memory.pause_worth)
        return kept, kept
    return policy.idle_seconds * longer, short * longer


def _counted(memory: Memory, moves: _Moves, present: int, now: datetime) -> Memory:
    """Return the memory with what the moves say of the idle time: whether it is too short."""
    if moves.gone:
        return replace(memory, let_go_at=now)
    if memory.let_go_at is None:
        return memory
    passed = (now - memory.let_go_at).total_seconds()
    soon = max(SOON, 3 * (memory.learned.task_seconds or 0.0))
    if moves.scale_to is not None and moves.scale_to > present > 0 and passed < soon:
        return replace(memory, let_go_at=None, returns=min(MOST_RETURNS, memory.returns + 1))
    if passed > soon * 2 ** (memory.returns + 1):
        return replace(memory, let_go_at=None, returns=max(0, memory.returns - 1))
    return memory


def _first_of(memory: Memory, workforce: Workforce, now: datetime) -> Memory:
    """Return the memory; at the first look all there are count as needed: the time before is not known."""
    if memory.needs or memory.peaks:
        return memory
    return memory.needing(sum(not _is_leaving(worker, memory, now) for worker in workforce.present), now, 0)


def _moves(workforce: Workforce, desired: int, kept: int, memory: Memory, now: datetime) -> _Moves:
    present = workforce.present
    leaving = [worker for worker in present if _is_leaving(worker, memory, now)]
    staying = [worker for worker in present if worker not in leaving]
    wanted = len(leaving) if workforce.replacing else max(0, kept - len(staying))
    back = sorted(leaving, key=_worth)[:wanted]
    staying += back
    leaving = [worker for worker in leaving if worker not in back]
    if desired > len(staying):
        # All that were leaving came back and still it is too few.
        return _Moves(back, (), (), desired)
    # The fleet might remove a starting worker, and one that resumes still looks drained.
    restless = workforce.replacing or any(_is_coming_up(worker, now) for worker in present)
    quiet = not back and not restless
    surplus = max(0, len(staying) - kept) if quiet else 0
    leaving += sorted(staying, key=_worth, reverse=True)[:surplus]
    gone = [worker for worker in leaving if quiet and _may_go(worker, memory)]
    leaving = [worker for worker in leaving if worker not in gone]
    return _Moves(back, gone, leaving, len(present) - len(gone) if gone else None)


def _is_leaving(worker: WorkerView, memory: Memory, now: datetime) -> bool:
    """Whether a worker is no capacity: it drains, or was asked to and has not said so yet."""
    asked = memory.asked.get(worker.name)
    on_its_way = asked is not None and (now - asked).total_seconds() < DRAIN_SECONDS
    return on_its_way or worker.phase is WorkerPhase.DRAINING


def _is_coming_up(worker: WorkerView, now: datetime) -> bool:
    return worker.phase is WorkerPhase.STARTING and (now - worker.since).total_seconds() < START_SECONDS


def _worth(worker: WorkerView) -> tuple[bool, bool, bool, int, datetime]:
    """Sort key: the one to keep first. Who runs most costs most to lose; the young are no warmer."""
    failed, starting = worker.phase is WorkerPhase.FAILED, worker.phase is WorkerPhase.STARTING
    return failed, starting, worker.busy == 0, -(worker.busy or 0), worker.since


def _may_go(worker: WorkerView, memory: Memory) -> bool:
    """Whether a worker can be taken away now: failed, or drained, by its own word since it was asked to.

    What it said before may be from an earlier drain, after which it went back to work.
    """
    asked = memory.asked.get(worker.name)
    said_since = asked is not None and (worker.heard is None or worker.heard > asked)
    return removable(worker) and (worker.phase is WorkerPhase.FAILED or said_since)


def _to_be_asked(worker: WorkerView, memory: Memory, now: datetime) -> bool:
    """Whether a drain has to be requested: for the first time, again for lack of a word, or renewed."""
    if worker.phase is WorkerPhase.FAILED:
        return False
    last = memory.asked.get(worker.name)
    if last is None or worker.phase is not WorkerPhase.DRAINING:
        return True
    return not 0 <= (now - last).total_seconds() < RENEW_SECONDS


def _hold(signals: Signals, policy: ScalingPolicy, memory: Memory, now: datetime) -> Decision:
    """Change nothing. Drains are not renewed, so those that last too long end by themselves."""
    present = None
    needs = memory.most_needed
    if isinstance(signals.workforce, Workforce):
        present = len(signals.workforce.present)
        # Time without knowledge is no time in which fewer sufficed.
        staying = sum(not _is_leaving(worker, memory, now) for worker in signals.workforce.present)
        needs = max(needs, staying)
    # Nor is it part of a pause: what came meanwhile was not seen.
    memory = replace(memory, resting_since=None)
    return Decision(
        desired=policy.within(needs if present is None else present),
        undrain=(),
        scale_to=None,
        remove=0,
        drain=(),
        needed=None,
        limit=ScalingLimit.SIGNALS,
        memory=memory.needing(needs, now, policy.idle_seconds) if needs else memory,
        reason=reason.of_holding(signals, present),
    )
