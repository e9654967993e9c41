"""Tasks for later find workers that are ready when they fall due, and none that wait for long before."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from galley.backlog import QueueBacklog
from galley_operator.autoscaler.decide import decide
from galley_operator.autoscaler.learned import Learned
from galley_operator.autoscaler.need import ahead_seconds, need_of
from galley_operator.autoscaler.signals import Memory
from tests.support.eventually import eventually
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.autoscaler.queues import NOON, POLICY, a_backlog, at, needed, seen, workers
from tests.unit.galley_operator.autoscaler.test_rest import stage

KNOWN = Learned.remembered(0.0, 1.0, 10.0)
dues = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 50)), max_size=6).map(sorted)


def due(*tasks: tuple[float, int], waiting: int = 0, running: int = 0) -> QueueBacklog:
    return replace(a_backlog(waiting, running), coming=tuple((at(seconds), n) for seconds, n in tasks))


def slots(rate: float = 0.0, ready: int = 0, waiting: int = 0, *coming: tuple[float, int]) -> float:
    learned = replace(KNOWN, rate=rate)
    return need_of(waiting, 0, learned, target=None, ready_slots=ready, due=coming).slots


def test_a_worker_is_started_when_it_will_be_ready_in_time_and_not_before() -> None:
    memory = replace(needed(0, -99), learned=KNOWN)
    early = ahead_seconds(KNOWN)
    assert early > 10
    before = decide(seen(due((early + 1, 3)), workers()), POLICY, memory, NOON)
    assert (before.desired, before.next_at) == (0, at(1))
    then = decide(seen(due((early - 1, 3)), workers()), POLICY, memory, NOON)
    assert (then.desired, then.scale_to, then.next_at) == (1, 1, NOON)
    assert "3 tasks for later are due about when workers have started" in then.reason


def test_many_that_fall_due_at_once_find_as_many_workers_as_they_need() -> None:
    assert slots(0, 0, 0, (10.0, 60)) > 9
    assert slots(0, 4, 0, (10.0, 60)) > 9, "those that are ready can run none of them before"
    assert slots(0, 40, 0, (1.0, 60)) < 2, "those that are ready have run them by then"


def test_tasks_that_fall_due_steadily_are_no_backlog() -> None:
    steady = [(float(second), 8) for second in range(12)]
    assert slots(8.0, 14, 0, *steady) < 16


def test_a_task_of_a_queue_that_never_ran_one_gets_a_slot() -> None:
    ahead = need_of(0, 0, Learned(), target=None, ready_slots=0, due=[(3.0, 5)])
    assert (ahead.slots, ahead.due) == (5, 5)


def test_a_worker_is_not_let_go_while_something_is_due_soon() -> None:
    memory = Memory(needs=((at(-99), 0),), learned=KNOWN)
    decision = decide(seen(due((5, 1)), workers("ready")), POLICY, memory, NOON)
    assert (decision.desired, decision.drain) == (1, ())


def test_a_paused_queue_gets_no_workers_for_what_falls_due() -> None:
    paused = replace(due((5, 4)), paused=True)
    decision = decide(seen(paused, workers()), POLICY, replace(needed(0, -99), learned=KNOWN), NOON)
    assert (decision.desired, decision.next_at) == (0, None)


@given(dues, dues, st.integers(0, 60), st.sampled_from((0.0, 1.0, 20.0)), st.integers(0, 60))
def test_more_that_falls_due_never_needs_fewer_slots(
    some: list[tuple[int, int]], more: list[tuple[int, int]], waiting: int, rate: float, ready: int
) -> None:
    fewer = slots(rate, ready, waiting, *some)
    assert slots(rate, ready, waiting, *sorted(some + more)) >= fewer - 1e-6
    assert slots(rate + 1, ready, waiting, *some) >= fewer - 1e-6
    assert slots(rate, ready, waiting + 1, *some) >= fewer - 1e-6


@in_virtual_time
async def test_a_queue_at_rest_is_looked_at_when_workers_are_to_be_started() -> None:
    async with stage() as it:
        # A worker moved the task to the stream for later, and went.
        await it.until_rest()
        due_at = await it.submit_later(timedelta(minutes=10))
        loop = asyncio.get_running_loop()
        await eventually(lambda: len(it.fleet.members) == 1, within=900)
        ahead = ahead_seconds(Learned())
        # Times are known to the second, rounded down.
        assert ahead - 2 < due_at - loop.time() < ahead + 1.1
