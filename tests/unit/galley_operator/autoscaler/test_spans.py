"""What the last few seconds may say against the averages."""

import math

from galley_operator.autoscaler.spans import Span, Spans, agreed_rate, most_task_seconds, with_look


def looks(*each: tuple[float, float, float]) -> Spans:
    """Return the spans after looks a second apart: tasks that came, that ended, and seconds busy."""
    spans: Spans = ()
    for came, ended, busy in each:
        spans = with_look(spans, Span(1.0, came, ended, busy))
    return spans


def test_only_the_last_three_spans_and_the_present_one_are_kept() -> None:
    spans = looks(*[(n, 0, 0) for n in range(20)])
    assert [span.seconds for span in spans] == [3, 3, 3, 2]
    assert [span.came for span in spans] == [9 + 10 + 11, 12 + 13 + 14, 15 + 16 + 17, 18 + 19]


def test_a_rate_follows_spans_that_agree_and_no_single_one() -> None:
    assert agreed_rate(1.0, looks(*[(50, 0, 0)] * 8), 0.3) == 1.0, "not before three are over"
    assert agreed_rate(1.0, looks(*[(50, 0, 0)] * 9), 0.3) > 40
    assert agreed_rate(1.0, looks(*[(1, 0, 0)] * 6, *[(50, 0, 0)] * 3), 0.3) == 1.0


def test_no_task_for_some_seconds_says_little_of_a_low_rate() -> None:
    nothing = looks(*[(0, 0, 0)] * 9)
    assert agreed_rate(0.5, nothing, 0.3) == 0.3
    assert agreed_rate(0.5, nothing, 1.0) == 0.5
    assert agreed_rate(40.0, nothing, 1.0) == 1.0


def test_quick_tasks_that_come_after_slow_ones_are_timed_in_seconds() -> None:
    # Twenty slow ones still run, while ten quick ones a second come and end.
    most, ended = most_task_seconds(looks(*[(10, 10, 20.5)] * 9))
    assert 2 < most < 4
    assert ended == 90


def test_spans_do_not_tell_the_time_of_a_task_while_tasks_only_end_or_few_do() -> None:
    for spans in (
        looks(*[(10, 10, 5)] * 8),
        looks(*[(0, 10, 5)] * 9),
        looks(*[(10, 10, 5)] * 6, *[(10, 1, 5)] * 3),
    ):
        assert most_task_seconds(spans) == (math.inf, 0.0)
