"""Which moments a timetable has, in particular where the clocks change."""

from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from galley.errors import ScheduleInvalid
from galley.repeat import Repeat
from galley.timetable import Timetable


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def ticks(cron: str, zone: str, after: str, many: int) -> list[str]:
    table = Timetable(cron, zone)
    local = table._zone
    return [tick.astimezone(local).isoformat() for tick in islice(table.after(at(after)), many)]


@pytest.mark.parametrize(
    ("zone", "cron", "after", "expected"),
    [
        # Spring: the time does not exist. It runs right after the gap, and once.
        ("Europe/Berlin", "30 2 * * *", "2026-03-28T12:00+01:00",
         ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]),
        ("America/New_York", "30 2 * * *", "2026-03-07T12:00-05:00",
         ["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"]),
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00+10:30",
         ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"]),
        ("Europe/Berlin", "15,45 2 * * *", "2026-03-28T12:00+01:00",
         ["2026-03-29T03:00:00+02:00", "2026-03-30T02:15:00+02:00"]),
        # Autumn: the time comes twice. It runs the first time.
        ("Europe/Berlin", "30 2 * * *", "2026-10-24T12:00+02:00",
         ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]),
        ("Europe/Berlin", "30 2 * * *", "2026-10-25T02:40+02:00", ["2026-10-26T02:30:00+01:00"]),
        ("Europe/Berlin", "30 2 * * *", "2026-10-25T02:10+01:00", ["2026-10-26T02:30:00+01:00"]),
        ("America/New_York", "30 1 * * *", "2026-10-31T12:00-04:00",
         ["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12:00+11:00",
         ["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"]),
        # Lines with a star run whenever the clock shows it: each hour has its ticks.
        ("Europe/Berlin", "*/30 * * * *", "2026-10-25T01:45+02:00",
         ["2026-10-25T02:00:00+02:00", "2026-10-25T02:30:00+02:00",
          "2026-10-25T02:00:00+01:00", "2026-10-25T02:30:00+01:00"]),
        ("Europe/Berlin", "*/30 * * * *", "2026-03-29T01:15+01:00",
         ["2026-03-29T01:30:00+01:00", "2026-03-29T03:00:00+02:00"]),
        ("UTC", "0 9 * * 1-5", "2026-01-02T10:00+00:00", ["2026-01-05T09:00:00+00:00"]),
        ("UTC", "*/10 * * * * *", "2026-01-02T10:00:05+00:00",
         ["2026-01-02T10:00:10+00:00", "2026-01-02T10:00:20+00:00"]),
        ("UTC", "@every 1h30m", "2026-01-02T10:00+00:00",
         ["2026-01-02T10:30:00+00:00", "2026-01-02T12:00:00+00:00"]),
        ("UTC", "@daily", "2026-01-02T10:00+00:00", ["2026-01-03T00:00:00+00:00"]),
        ("UTC", "0 0 29 2 *", "2026-01-02T10:00+00:00", ["2028-02-29T00:00:00+00:00"]),
    ],
)  # fmt: skip
def test_ticks_where_the_clocks_change_and_where_not(
    zone: str, cron: str, after: str, expected: list[str]
) -> None:
    assert ticks(cron, zone, after, len(expected)) == expected


LINES = (
    "30 2 * * *", "*/7 * * * *", "0,30 1-3 * * 0", "5 */2 * * *",
    "@every 7m", "*/20 * 1-3 * * *", "0 0 1 * *",
)  # fmt: skip
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "UTC")
CHANGES = (
    "2026-03-28", "2026-10-24", "2026-03-07", "2026-10-31",
    "2026-04-04", "2026-10-03", "2026-09-05", "2026-07-01",
)  # fmt: skip


@settings(max_examples=40)
@given(
    some.sampled_from(LINES), some.sampled_from(ZONES), some.sampled_from(CHANGES),
    some.integers(0, 2 * 24 * 60), some.integers(1, 180),
)  # fmt: skip
def test_the_ticks_are_the_same_wherever_one_begins(
    cron: str, zone: str, day: str, offset: int, span: int
) -> None:
    table = Timetable(cron, zone)
    begin = at(f"{day}T00:00+00:00")
    middle, end = begin + timedelta(minutes=offset), begin + timedelta(minutes=offset + span)
    whole = [tick for tick in takewhile(lambda tick: tick <= end, table.after(begin)) if tick > middle]
    part = []
    moment = middle
    while (found := table.next_after(moment)) is not None and found <= end:
        part.append(found)
        moment = found
    assert part == whole
    assert part == sorted(set(part))
    assert table.latest(middle, end, 3) == whole[-3:]
    assert table.count(middle, end, 10_000) == len(whole)


def test_the_last_tick_of_years_of_seconds_is_found_at_once() -> None:
    table = Timetable("* * * * * *")
    begin = at("2020-01-01T00:00+00:00")
    until = at("2026-01-01T00:00:00.5+00:00")
    assert table.latest(begin, until, 2) == [at("2025-12-31T23:59:59+00:00"), at("2026-01-01T00:00:00+00:00")]
    assert table.count(begin, until, 100) == 100
    assert Timetable("@every 1s").count(begin, until, 10**9) == 189_388_800


def test_start_and_end_bound_the_ticks_and_every_counts_from_the_start() -> None:
    start, end = at("2026-01-01T00:00:07+00:00"), at("2026-01-01T00:00:30+00:00")
    table = Timetable("@every 10s", start=start, end=end)
    assert list(table.after(at("2025-01-01T00:00+00:00"))) == [
        start, start + timedelta(seconds=10), start + timedelta(seconds=20)
    ]  # fmt: skip
    assert table.next_after(end) is None
    assert table.count(start, end, 10) == 2


@pytest.mark.parametrize("cron", ["0 3 * * *", "0 0 29 2 *", "@every 366d"])
@pytest.mark.parametrize("end", ["1999-01-01T00:00Z", "2024-01-01T00:00Z", "2025-01-01T00:00Z"])
def test_what_has_ended_is_no_mistake_and_has_no_next_tick(cron: str, end: str) -> None:
    table = Timetable(cron, end=at(end))
    assert table.next_after(at(end)) is None


@pytest.mark.parametrize(
    ("field", "changes", "words"),
    [
        ("cron", {"cron": "0 0 31 2 *"}, "never fires: none"),
        ("cron", {"cron": "0 0 30 2 *"}, "never fires: none"),
        ("cron", {"cron": "0 0 32 2 *"}, "Bad day-of-month"),
        ("cron", {"cron": "61 * * * *"}, "Bad minute"),
        ("cron", {"cron": "* * * *"}, "Wrong number of fields"),
        ("cron", {"cron": ""}, "Wrong number"),
        ("cron", {"cron": "@every 0s"}, "0 s"),
        ("cron", {"cron": "@every 1.5s"}, "1.5 s"),
        ("cron", {"cron": "@every soon"}, "cannot be read"),
        ("cron", {"cron": "@fortnightly"}, "not a cron line"),
        ("cron", {"cron": "x" * 500}, "500 characters"),
        ("cron", {"cron": 5}, "no text"),
        ("time_zone", {"time_zone": None}, "no text"),
        ("time_zone", {"time_zone": "Europe/Atlantis"}, "no time zone"),
        ("time_zone", {"time_zone": "../../etc/passwd"}, "no time zone"),
        ("time_zone", {"time_zone": "x\0"}, "no time zone"),
        ("start", {"start": datetime(2026, 1, 1)}, "no offset"),  # noqa: DTZ001
        ("end", {"end": at("2025-01-01T00:00Z"), "start": at("2026-01-01T00:00Z")}, "before start"),
        ("cron", {"cron": "@daily", "start": at("2026-01-01T01:00Z"), "end": at("2026-01-01T02:00Z")},
         "never fires between"),
        ("cron", {"cron": "0 0 29 2 1", "end": at("2024-02-01T00:00Z"), "start": at("2023-03-01T00:00Z")},
         "never fires between"),
        ("start", {"start": at("1969-01-01T00:00+00:00")}, "1969"),
        ("overlap", {"overlap": "queue"}, "'queue'"),
        ("catch_up", {"catch_up": "some"}, "'some'"),
        ("catch_up", {"catch_up": "all"}, "overlap='skip' one"),
        ("catch_up_limit", {"catch_up_limit": 0}, "0"),
        ("jitter_seconds", {"jitter_seconds": float("nan")}, "nan"),
        ("history_limit", {"history_limit": 1.5}, "1.5"),
        ("starting_deadline_seconds", {"starting_deadline_seconds": True}, "True"),
    ],
)  # fmt: skip
def test_what_can_never_fire_is_refused(field: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ScheduleInvalid) as refused:
        Repeat(**{"cron": "0 3 * * *", **changes})
    assert refused.value.field == field
    assert refused.value.hint
    assert words in refused.value.problem
