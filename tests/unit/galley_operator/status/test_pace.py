from galley_operator.status.writer import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_begins_with_the_whole_window_and_no_pause() -> None:
    pace = Pace(Clock(), most=16)
    assert (pace.window, pace.pause) == (16, 0.0)


def test_a_refusal_halves_the_window_and_pauses_as_long_as_was_asked_for() -> None:
    clock = Clock()
    pace = Pace(clock, most=16)
    pace.refused(2.0)
    assert (pace.window, pace.pause) == (8, 2.0)
    clock.now += 2
    assert pace.pause == 0.0


def test_refusals_of_one_moment_count_once() -> None:
    pace = Pace(Clock(), most=16)
    for _ in range(16):
        pace.refused(1.0)
    assert pace.window == 8


def test_the_window_never_closes() -> None:
    clock = Clock()
    pace = Pace(clock, most=16)
    for _ in range(20):
        pace.refused(1.0)
        clock.now += 1
    assert pace.window == 1


def test_success_widens_the_window_by_one_for_each_window_up_to_the_most() -> None:
    pace = Pace(Clock(), most=16)
    pace.refused(1.0)
    for _ in range(9):
        pace.succeeded()
    assert pace.window == 9
    for _ in range(1000):
        pace.succeeded()
    assert pace.window == 16
