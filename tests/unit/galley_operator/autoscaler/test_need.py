"""How many slots work needs: by waiting, running and coming tasks and their time."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galley_operator.autoscaler.learned import Learned
from galley_operator.autoscaler.need import Need, need_of
from galley_operator.autoscaler.spans import Span

counts = st.integers(0, 5000)
seconds = st.sampled_from((0.001, 0.2, 1.0, 30.0, 3600.0))
rates = st.sampled_from((0.0, 0.1, 3.0, 100.0))
targets = st.sampled_from((None, 0.0, 1.0, 60.0))


def known(task: float | None, rate: float = 0.0, start: float = 2.0) -> Learned:
    return Learned.remembered(rate, task, start)


def need(waiting: int, running: int, learned: Learned, target: float | None = None, ready: int = 0) -> Need:
    return need_of(waiting, running, learned, target=target, ready_slots=ready)


def test_a_queue_that_never_ran_a_task_gets_a_slot_for_each() -> None:
    assert need(40, 2, known(None, rate=5)).slots == 42


def test_ten_thousand_quick_tasks_need_few_slots_and_long_ones_many() -> None:
    assert need(10_000, 0, known(0.001)).slots == pytest.approx(7.5, abs=0.1)
    assert need(10_000, 0, known(3600.0)).slots > 9_900


def test_those_at_work_finish_a_backlog_before_others_have_started() -> None:
    assert need(1000, 4, known(0.001), ready=4).slots == 4
    assert need(1000, 4, known(1.0), ready=4).slots > 100


def test_no_more_workers_are_started_than_those_on_their_way_leave_work_for() -> None:
    slow = known(1.0, rate=5.0, start=60.0)

    def slots(*starting: tuple[float, int], learned: Learned = slow) -> float:
        return need_of(1000, 0, learned, target=None, ready_slots=0, starting=starting).slots

    assert slots() > 50
    assert slots((10.0, 40)) == 40, "they are done before one that is started now is ready"
    assert 40 < slots((55.0, 40)) < slots(), "they have only begun by then"
    assert slots((10.0, 80)) == slots(), "those on their way need not be needed"
    assert 40 < slots((10.0, 4)) < slots()
    surge = replace(slow, spans=(Span(3.0, 300.0),))
    assert slots((10.0, 40), learned=surge) > 50, "if many more come than was known, those are too few"


def test_a_longer_target_needs_fewer_slots() -> None:
    assert need(600, 0, known(1.0), 60.0).slots < need(600, 0, known(1.0), 5.0).slots / 5


def test_a_steady_load_gets_room_for_its_noise() -> None:
    assert need(0, 100, known(1.0, rate=100.0), ready=140).arrivals == pytest.approx(
        100 + 17.4 * (1 - 0.1 / 3), rel=0.001
    )


def test_tasks_that_may_wait_for_a_start_get_no_room() -> None:
    assert need(0, 9, known(60.0, rate=0.15, start=2.0), ready=16).arrivals == pytest.approx(9)
    assert need(0, 9, known(1.0, rate=9.0, start=2.0), 30.0, ready=16).arrivals == pytest.approx(9)


def test_long_tasks_need_slots_for_those_that_run_and_the_few_that_come_until_a_start() -> None:
    task = known(600.0, rate=0.05, start=5.0)
    assert need(0, 10, task, ready=40).arrivals == pytest.approx(10 + (30 - 10) * 6 / 600, abs=0.1)
    assert need(0, 30, task, ready=40).kept == pytest.approx(30), "nothing stays by chance alone"
    quick = known(0.1, rate=300.0, start=5.0)
    assert need(0, 10, quick, ready=40).arrivals == pytest.approx(30 + 1.74 * 30**0.5, rel=0.01)


def test_a_slow_start_does_not_make_a_backlog_wait_for_most_of_another() -> None:
    slow, quick = (need(600, 0, known(1.0, start=start)).within for start in (120.0, 4.5))
    assert slow == 120 / 3
    assert quick == 3


def test_nothing_to_do_needs_nothing_whatever_came() -> None:
    assert need(0, 0, known(1.0, rate=100.0)).slots == 0


@given(counts, counts, counts, seconds, rates, targets, st.integers(0, 200))
def test_more_work_never_needs_fewer_slots_and_what_runs_keeps_its_own(  # noqa: PLR0917 - a case
    waiting: int, running: int, more: int, task: float, rate: float, target: float | None, ready: int
) -> None:
    learned = known(task, rate)
    now = need(waiting, running, learned, target, ready)
    for other in (
        need(waiting + more, running, learned, target, ready),
        need(waiting, running + more, learned, target, ready),
        need(waiting, running, known(task, rate + more), target, ready),
    ):
        assert other.slots >= now.slots - 1e-6
    assert now.slots >= running
    assert (now.slots > 0) == bool(waiting or running)
