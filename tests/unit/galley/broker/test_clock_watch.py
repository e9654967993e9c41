"""Clocks that differ are reported once, and only if they certainly do."""

import logging
from datetime import UTC, datetime

import pytest

from galley.broker.clock_watch import ClockWatch

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def at(seconds: float) -> float:
    return NOON.timestamp() + seconds


@pytest.fixture
def watch(caplog: pytest.LogCaptureFixture) -> ClockWatch:
    caplog.set_level(logging.INFO)
    return ClockWatch("nats://there")


@pytest.mark.parametrize(
    ("asked", "heard", "ahead"),
    [
        (0.0, 0.1, None),
        (4.9, 5.0, None),
        (-5.0, -4.9, None),
        (600.0, 600.1, 600.0),
        (-3600.0, -3599.0, -3599.0),
        # It was asked long ago, and answered at any time since.
        (-100.0, 3.0, None),
        (-100.0, -50.0, -50.0),
    ],
)
def test_a_difference_that_no_delay_explains_is_told(
    watch: ClockWatch, caplog: pytest.LogCaptureFixture, asked: float, heard: float, ahead: float | None
) -> None:
    watch.compare(NOON.isoformat(), at(asked), at(heard))
    told = [getattr(record, "seconds_ahead", None) for record in caplog.records]
    assert told == ([] if ahead is None else [ahead])


def test_it_is_told_once_until_it_changes_and_when_it_is_over(
    watch: ClockWatch, caplog: pytest.LogCaptureFixture
) -> None:
    for ahead in (0.0, 60.0, 60.0, 62.0, 90.0, 1.0, 0.0, 6.0):
        watch.compare(NOON.isoformat(), at(ahead), at(ahead))
    told = [(record.levelname, getattr(record, "seconds_ahead", 0.0)) for record in caplog.records]
    assert told == [("WARNING", 60.0), ("WARNING", 90.0), ("INFO", 0.0), ("WARNING", 6.0)]


def test_it_says_what_to_do(watch: ClockWatch, caplog: pytest.LogCaptureFixture) -> None:
    watch.compare("2026-11-21T12:00:00.123456789Z", at(60), at(60))
    [record] = caplog.records
    assert record.getMessage() == "clock differs from the broker's"
    assert "have NTP set this one" in record.__dict__["hint"]
