"""How many works a child may hold follows from how long its handler usually takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galley_worker.runners.execution import DEPTH, FAST_SECONDS, Service


def after(*seconds: float) -> Service:
    service = Service()
    for one in seconds:
        service.observe(one)
    return service


def test_a_handler_without_measurements_gets_nothing_queued() -> None:
    assert Service().window == 1


@pytest.mark.parametrize(
    ("seconds", "window"),
    [(0.0, 1 + DEPTH), (0.00001, 1 + DEPTH), (0.0009, 6), (0.0024, 3), (0.0051, 1), (1.0, 1), (3600.0, 1)],
)
def test_what_is_queued_waits_five_milliseconds_at_most(seconds: float, window: int) -> None:
    service = after(*[seconds] * 200)
    assert service.window == window
    assert (service.window - 1) * seconds <= FAST_SECONDS


def test_one_slow_run_closes_the_window_and_it_opens_again_slowly() -> None:
    service = after(*[0.00001] * 200)
    service.observe(1.0)
    assert service.window == 1
    runs = 0
    while service.window == 1:
        service.observe(0.00001)
        runs += 1
    assert 20 <= runs <= 60


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_the_average_stays_between_what_was_seen(seconds: list[float]) -> None:
    service = after(*seconds)
    seen = [FAST_SECONDS, *seconds]
    assert min(seen) * 0.999 <= service.seconds <= max(seen) * 1.001
    assert service.runs == len(seconds)
    assert 1 <= service.window <= 1 + DEPTH
