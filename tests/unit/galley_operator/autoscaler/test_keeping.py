"""For how long workers that are not needed just now are kept."""

from dataclasses import replace

from galley_operator.autoscaler.decide import MOST_RETURNS, decide
from galley_operator.autoscaler.learned import Learned
from galley_operator.autoscaler.signals import Memory, ScalingPolicy
from galley_operator.fleet.fleet import Workforce
from tests.unit.galley_operator.autoscaler.queues import a_backlog, asked, at, seen, workers

POLICY = ScalingPolicy(0, 40, 1, 30)


def idle(number: int) -> Workforce:
    return workers(*["ready"] * number)


def known(rate: float, returns: int = 0) -> Memory:
    """Return the memory of a queue whose tasks take 10 seconds, after minutes of this load."""
    learned = Learned(rate=rate, start_seconds=1.0, busy_seconds=1000.0, done=100.0, seen=60.0)
    return Memory(learned=learned, returns=returns, timed=True)


def kept(memory: Memory, there: int, running: int, looks: int) -> int:
    """Return how many workers are not asked to drain by the last of so many looks, a second apart."""
    force = idle(there)
    for second in range(looks):
        frozen = replace(memory, learned=replace(memory.learned, at=None, spans=()))
        decision = decide(seen(a_backlog(0, running), force), POLICY, frozen, at(second))
        memory = decision.memory
        if decision.drain:
            return there - len(decision.drain)
    return there


def test_workers_stay_if_they_are_too_many_only_by_the_error_of_the_estimate() -> None:
    memory = known(rate=1.0)
    need = decide(seen(a_backlog(0, 10), idle(10)), POLICY, memory, at(0)).desired
    assert kept(memory, need + 1, 10, 600) == need + 1, "no turn for a load that does not change"
    assert kept(known(rate=0.2), need, 2, 600) < need, "a load that fell lets them go"


def test_a_load_that_pauses_finds_its_workers_and_one_that_ended_costs_little() -> None:
    assert kept(known(1.0), 3, 0, 32) == 0
    often = known(1.0, returns=MOST_RETURNS)
    assert kept(often, 3, 0, 50) == 3
    assert kept(often, 3, 0, 65) == 0, "twice as long at most"


def test_what_was_asked_for_before_a_task_was_timed_is_not_kept_on() -> None:
    memory = replace(known(1.0), timed=False).needing(40, at(-1), 30)
    assert decide(seen(a_backlog(0, 10), idle(40)), POLICY, memory, at(0)).drain
    assert not decide(seen(a_backlog(0, 10), idle(40)), POLICY, replace(memory, timed=True), at(0)).drain


def test_a_worker_goes_only_by_what_it_said_since_it_was_asked() -> None:
    (worker,) = workers("drain").workers
    memory = asked(Memory(), w1=0)
    for heard, gone in ((at(-0.5), 0), (at(0.5), 1), (None, 1)):
        force = Workforce((replace(worker, heard=heard),))
        assert decide(seen(a_backlog(), force), POLICY, memory, at(1)).remove == gone
