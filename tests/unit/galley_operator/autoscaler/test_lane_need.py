"""Lanes with targets of their own: each starts in time, and what is below it does not buy its room."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from galley.backlog import LaneBacklog, QueueBacklog
from galley.lanes import Lane
from galley_operator.autoscaler.decide import decide
from galley_operator.autoscaler.lane_need import averaged, queue_need
from galley_operator.autoscaler.learned import Learned
from galley_operator.autoscaler.need import Due, Need
from galley_operator.autoscaler.signals import Memory, ScalingPolicy
from tests.unit.galley_operator.autoscaler.queues import NOON, POLICY, at, seen, workers

PATIENT = replace(POLICY, target_seconds=600.0)
HURRIED = replace(PATIENT, lane_targets={Lane.CRITICAL: 1.0})
SECOND = Learned.remembered(0.0, 1.0, 2.0)

counts = st.integers(0, 2000)


def tasks(critical: tuple[int, int] = (0, 0), low: tuple[int, int] = (0, 0)) -> QueueBacklog:
    return QueueBacklog((LaneBacklog(Lane.CRITICAL, *critical), LaneBacklog(Lane.LOW, *low)))


def need(
    backlog: QueueBacklog, policy: ScalingPolicy, learned: Learned = SECOND, due: Due = (), ready: int = 0
) -> Need:
    load = averaged({}, backlog, 60)
    return queue_need(backlog, learned, policy, load, ready_slots=ready, due=due)


def test_a_lane_in_a_hurry_gets_slots_that_the_others_do_not() -> None:
    assert need(tasks(low=(400, 0)), HURRIED).slots == need(tasks(low=(400, 0)), PATIENT).slots < 2
    hurried = need(tasks((400, 0), (400, 0)), HURRIED)
    assert hurried.slots > 190
    assert hurried.lane is Lane.CRITICAL
    assert need(tasks((400, 0), (400, 0)), PATIENT).slots < 3


def test_a_patient_lane_does_not_make_the_others_wait() -> None:
    patient_low = replace(POLICY, target_seconds=1.0, lane_targets={Lane.LOW: 600.0})
    assert need(tasks((400, 0)), patient_low).slots > 190
    assert need(tasks(low=(400, 0)), patient_low).slots < 2


def test_tasks_of_lower_lanes_that_run_keep_their_slots() -> None:
    assert need(tasks((400, 0), (0, 50)), HURRIED).slots >= need(tasks((400, 0)), HURRIED).slots + 49


def test_steady_load_of_a_hurried_lane_gets_room_and_the_rest_none() -> None:
    busy = Learned.remembered(20.0, 1.0, 2.0)
    half = need(tasks((0, 10), (0, 10)), HURRIED, busy, ready=30).arrivals
    assert need(tasks((0, 0), (0, 20)), HURRIED, busy, ready=30).arrivals < half
    assert half < need(tasks((0, 20), (0, 0)), HURRIED, busy, ready=30).arrivals


@given(counts, counts, counts, counts, st.sampled_from((0.0, 0.5, 20.0)), st.integers(0, 50))
def test_a_target_of_a_lane_never_takes_slots_away(  # noqa: PLR0917 - a case
    waiting: int, running: int, low: int, below: int, rate: float, ready: int
) -> None:
    backlog, learned = tasks((waiting, running), (low, below)), Learned.remembered(rate, 1.0, 2.0)
    hurried = need(backlog, HURRIED, learned, ready=ready)
    assert hurried.slots >= need(backlog, PATIENT, learned, ready=ready).slots
    assert hurried.slots >= running + below
    more = tasks((waiting + 5, running), (low, below))
    assert need(more, HURRIED, learned, ready=ready).backlog >= hurried.backlog - 1e-6


def test_the_policy_of_a_queue_has_its_lanes() -> None:
    decision = decide(
        seen(tasks((40, 0), (40, 0)), workers()), replace(HURRIED, max_workers=20),
        Memory(learned=replace(SECOND, at=at(-1))), NOON,
    )  # fmt: skip
    assert "to start those of lane critical within 1 s" in decision.reason


def test_the_load_of_lanes_is_averaged_over_a_minute() -> None:
    load: dict[Lane, float] = {}
    for _ in range(300):
        load = averaged(load, tasks((0, 3), (0, 1)), 1)
    assert 2.9 < load[Lane.CRITICAL] < 3.01
    assert averaged(load, tasks(), 60)[Lane.CRITICAL] < 1.2


def test_a_lull_keeps_what_was_known_of_the_lanes() -> None:
    memory = Memory(learned=replace(SECOND, at=NOON))
    first = decide(seen(tasks((0, 4)), workers("ready:4")), HURRIED, memory, NOON + timedelta(seconds=60))
    assert first.memory.lane_load[Lane.CRITICAL] > 2
