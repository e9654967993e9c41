from datetime import UTC, datetime, timedelta, timezone

import pytest

from galley.cli.output import duration, in_words, rfc_3339

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (0.9, "0s"), (59, "59s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"),
     (172_799, "47h"), (172_800, "2d")],
)  # fmt: skip
def test_a_length_of_time_is_told_in_its_largest_fitting_unit(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_past_is_ago_and_the_future_ahead() -> None:
    assert in_words(NOW - timedelta(seconds=150), NOW) == "2m ago"
    assert in_words(NOW + timedelta(seconds=30), NOW) == "in 30s"


def test_a_clock_that_differs_by_little_does_not_speak_of_the_future() -> None:
    assert in_words(NOW + timedelta(milliseconds=300), NOW) == "0s ago"


def test_programs_get_utc_whatever_the_offset() -> None:
    assert rfc_3339(NOW.astimezone(timezone(timedelta(hours=2)))) == "2026-03-01T12:00:00.000Z"
