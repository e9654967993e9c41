"""Workers are kept through pauses that are short, and not through those that are longer than it is worth."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galley.backlog import QueueBacklog
from galley.resources import TaskQueue
from galley_operator.autoscaler.decide import PROMPT_SECONDS, SWEEP_SECONDS, Decision, decide
from galley_operator.autoscaler.learned import Learned
from galley_operator.autoscaler.signals import FIRST_WORTH, IDLE_SECONDS, Memory, ScalingPolicy
from galley_operator.fleet.fleet import Workforce
from galley_operator.queues.scaled_queue import remembered
from galley_operator.queues.status import scaling_of
from tests.unit.galley_operator.autoscaler.queues import SILENT, a_backlog, a_worker, at, seen, workers

POLICY = ScalingPolicy(0, 4, 4, IDLE_SECONDS, learns_pauses=True)
SAID = replace(POLICY, learns_pauses=False)
READY = workers("ready")
KNOWN = Memory(learned=Learned.remembered(0.0, 1.0, 4.0), timed=True)


def after(pauses: list[float], policy: ScalingPolicy = POLICY, memory: Memory = KNOWN) -> Memory:
    """Return the memory after a task, and a pause and a task for each of these."""
    moment = 0.0
    for pause in pauses:
        memory = look(a_backlog(0, 1), memory, moment, policy).memory
        memory = look(a_backlog(), memory, moment + 1, policy).memory
        moment += 1 + pause
    return look(a_backlog(0, 1), memory, moment, policy).memory


def look(backlog: QueueBacklog, memory: Memory, second: float, policy: ScalingPolicy = POLICY) -> Decision:
    # Without what tasks that ended say: there are none but those of the backlog.
    quiet = replace(memory, learned=replace(memory.learned, at=None, active=False, spans=()))
    return decide(seen(backlog, READY), policy, quiet, at(second))


def kept(memory: Memory, policy: ScalingPolicy = POLICY) -> int:
    """Return for how many seconds of rest the worker is not asked to drain."""
    memory = replace(memory, resting_since=None, needs=(), peaks=())
    memory = look(a_backlog(0, 1), memory, 10_000, policy).memory
    for second in range(400):
        decision = look(a_backlog(), memory, 10_001 + second, policy)
        if decision.drain:
            return second
        memory = decision.memory
    return 400


def test_a_queue_that_never_paused_keeps_its_worker_for_half_a_minute() -> None:
    assert kept(KNOWN) == pytest.approx(IDLE_SECONDS, abs=2)


def test_a_worker_goes_at_once_after_a_pause_that_was_longer() -> None:
    assert kept(after([300])) <= 4
    assert kept(after([300, 1])) == pytest.approx(IDLE_SECONDS, abs=2), "until one is short again"


@pytest.mark.parametrize(("start", "paying"), [(0.5, 10), (4, 10), (8, 16), (20, 30), (90, 90)])
def test_what_pays_follows_the_time_of_a_start(start: float, paying: float) -> None:
    memory = Memory(learned=Learned.remembered(0.0, 1.0, start), timed=True)
    policy = POLICY.beside_start(start)
    assert policy.paying_pause(start) == paying
    shorter, longer = (after([pause] * 9, memory=memory) for pause in (paying * 0.9, paying))
    assert shorter.pause_worth > 0 > longer.pause_worth
    assert kept(longer) <= 4 < kept(shorter)


def test_the_surer_it_is_that_pauses_are_long_the_sooner_a_worker_goes() -> None:
    assert kept(after([300] * 12)) == 0


def test_the_end_of_the_last_task_is_seen_soon_where_its_worker_goes_at_once() -> None:
    sure, unsure = after([300] * 12), after([300])
    young = Workforce((replace(a_worker("w1", age=0), since=at(-6)),))
    running = seen(a_backlog(0, 1), young)
    assert decide(running, POLICY, sure, at(0)).look_in == pytest.approx(0.3), "a twentieth of its time"
    assert decide(running, POLICY, unsure, at(0)).look_in == SWEEP_SECONDS
    assert decide(running, replace(POLICY, min_workers=1), sure, at(0)).look_in == SWEEP_SECONDS
    assert look(a_backlog(0, 1), sure, 10_000).look_in == SWEEP_SECONDS, (
        "one that is old may cost a second more"
    )
    resting = look(a_backlog(), look(a_backlog(0, 1), sure, 10_000).memory, 10_001)
    assert (resting.drain, resting.look_in) == (("w1",), PROMPT_SECONDS), "it confirms at once"
    assert look(a_backlog(), resting.memory, 10_002).look_in < SWEEP_SECONDS


def test_a_worker_that_takes_longer_to_start_than_the_idle_time_is_kept_for_as_long() -> None:
    slow = Memory(learned=Learned.remembered(0.0, 1.0, 90.0), timed=True)
    assert kept(slow) == pytest.approx(90, abs=2)
    assert kept(slow, SAID) == pytest.approx(IDLE_SECONDS, abs=2), "an idle time that is set is obeyed"
    assert kept(after([70, 70, 70], memory=slow)) == pytest.approx(90, abs=2), "each saved a start"
    assert kept(after([70, 70, 70])) <= 4, "each cost more than a start of 4 s"


def test_short_pauses_bring_the_time_back() -> None:
    assert kept(after([300, 300, 300])) <= 4
    assert kept(after([300, 300, 300, 2, 2, 2])) == pytest.approx(IDLE_SECONDS, abs=2)


def test_a_pause_hardly_shorter_than_pays_is_no_loss_and_a_longer_one_is() -> None:
    assert after([9.9]).pause_worth > 0 > after([10]).pause_worth > -1


def test_an_idle_time_that_is_set_is_obeyed() -> None:
    memory = after([300] * 9, SAID)
    assert memory.pause_worth == FIRST_WORTH
    assert kept(replace(memory, pause_worth=-1.0), SAID) == pytest.approx(IDLE_SECONDS, abs=2)


def test_only_a_queue_that_says_no_idle_time_learns_it() -> None:
    def policy(**scaling: int) -> ScalingPolicy:
        queue = {"metadata": {"name": "images"}, "spec": {"scaling": scaling}}
        return ScalingPolicy.of(TaskQueue.model_validate(queue))

    assert (policy().idle_seconds, policy().learns_pauses) == (IDLE_SECONDS, True)
    assert (policy(idleSeconds=30).idle_seconds, policy(idleSeconds=30).learns_pauses) == (30, False)
    assert (policy(workers=2).idle_seconds, policy(workers=2).learns_pauses) == (0, False)


def test_workers_that_are_needed_or_the_least_allowed_stay_whatever_the_pauses_were() -> None:
    memory = after([300] * 9)
    for second in range(60):
        decision = look(a_backlog(0, 1), memory, 10_000 + second)
        assert not decision.drain
        memory = decision.memory
    assert kept(after([300] * 9), replace(POLICY, min_workers=1)) == 400


def test_a_held_queue_and_one_that_is_not_seen_have_no_pause() -> None:
    held = replace(a_backlog(3), paused=True)
    for nothing in (held, SILENT):
        memory = look(a_backlog(), KNOWN, 0).memory
        memory = decide(seen(nothing, READY), POLICY, memory, at(1)).memory
        memory = decide(seen(nothing, READY), POLICY, memory, at(900)).memory
        memory = look(a_backlog(0, 1), memory, 901).memory
        assert memory.pause_worth == FIRST_WORTH


def test_why_a_worker_goes_at_once_is_told_and_a_restart_goes_on_with_it() -> None:
    memory = after([300] * 3)
    decision = look(a_backlog(), memory, 10_000)
    assert "the last pauses of the queue were too long to keep workers" in decision.reason
    assert "pauses" not in look(a_backlog(), KNOWN, 10_000).reason
    again = remembered(scaling_of(decision))
    assert again is not None
    assert again.pause_worth == pytest.approx(memory.pause_worth, abs=1e-4)
    unseen = scaling_of(look(a_backlog(), KNOWN, 10_000))
    assert unseen is not None
    assert unseen.pause_worth is None


@given(st.lists(st.floats(0, 1000), max_size=12), st.floats(-10, 500), st.floats(0, 500))
def test_the_worth_is_bounded_and_the_longer_a_pause_the_less(
    pauses: list[float], pause: float, longer: float
) -> None:
    memory = after(pauses)
    one = memory.paused(True, at(0), IDLE_SECONDS).paused(False, at(pause), IDLE_SECONDS)
    other = memory.paused(True, at(0), IDLE_SECONDS).paused(False, at(pause + longer), IDLE_SECONDS)
    assert -1 <= other.pause_worth <= one.pause_worth <= 1
    assert one.resting_since is None
    assert one.paused(False, at(9000), IDLE_SECONDS) == one, "work after work is no pause"


def test_a_load_that_ends_for_good_lets_its_workers_go_without_an_idle_time() -> None:
    gone = after([3, 300, 3, 300], replace(POLICY, idle_seconds=0.0))
    assert kept(gone, replace(POLICY, idle_seconds=0.0)) <= 2
