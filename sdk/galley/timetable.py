"""When a schedule fires: cron lines in a time zone, and `@every`. Pure: no clock, no broker.

A timetable is a set of moments, its ticks. Which ones it has depends on nothing but the timetable, so every
process finds the same ones, whenever and from wherever it looks.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from galley.errors import ScheduleInvalid

SHORTEST_SECONDS: Final = 1
LONGEST_SECONDS: Final = 366 * 24 * 3600
TEXT_LENGTH: Final = 200
"""Characters a cron line may have."""

_EVERY: Final = re.compile(r"@every\s+((?:\d+(?:\.\d+)?(?:s|m|h|d))+)", re.ASCII)
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)", re.ASCII)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_NAMED: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LEAP: Final = timedelta(days=8 * 366)
"""The longest time between two ticks of a line: from one 29 February to the next, past a year without one."""
_BAD_DAY: Final = "Bad day-of-month"
_WINDOWS: Final = (60.0, 3600.0, 86_400.0, 35 * 86_400.0, 366 * 86_400.0, 30 * 366 * 86_400.0)
_HINT: Final = (
    'write five fields (minute hour day month weekday), such as "0 3 * * *", six with seconds first, '
    "@hourly, @daily, @weekly, @monthly, @yearly, or @every with a time such as 90s, 15m or 1h30m"
)


class Timetable:
    """The ticks of a schedule."""

    def __init__(
        self, cron: str, time_zone: str = "UTC", start: datetime | None = None, end: datetime | None = None
    ) -> None:
        """Read a timetable.

        Args:
            cron: a cron line, `@hourly` and the like, or `@every` with a time.
            time_zone: the zone whose clocks a cron line is about, by its name in the IANA database.
            start: first moment at which it may fire; `@every` counts from it, else from 1970.
            end: last moment at which it may fire.

        Raises:
            ScheduleInvalid: if it can never fire, or one of these cannot be understood.
        """
        self.cron, self.time_zone = cron, time_zone
        self.start, self.end = start, end
        self._zone = zone_of(time_zone)
        self._every = _interval(cron)
        self._line = _NAMED.get(cron.strip().lower(), cron)
        _check_span(start, end)
        if self._every is None:
            _check_line(cron, self._line)
        if self.next_after(self._first()) is None:
            span = f" between {start} and {end}" if start and end else f" before {end}" if end else ""
            hint = "set a later end, or choose another day" if end else "choose another day"
            raise ScheduleInvalid("cron", f"{cron!r} never fires{span}", hint)

    def _first(self) -> datetime:
        """Return a moment from which on a line fires if it ever does."""
        if self.start is not None:
            return self.start - timedelta(seconds=1)
        usual = datetime(2024, 1, 1, tzinfo=UTC)
        # One that ended long ago has ended, and is no mistake.
        return usual if self.end is None else min(usual, self.end - _LEAP)

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first tick after a moment, in UTC; None if there is none."""
        return next(self.after(moment), None)

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the ticks after a moment, in UTC and in order."""
        if self.start is not None and moment < self.start:
            moment = self.start.astimezone(UTC) - timedelta(microseconds=1)
        ticks = self._by_line(moment) if self._every is None else self._by_interval(moment, self._every)
        for tick in ticks:
            if self.end is not None and tick > self.end:
                return
            yield tick

    def latest(self, after: datetime, until: datetime, most: int) -> list[datetime]:
        """Return the last ticks of a span, in order.

        It takes no longer for a span of years with a tick each second than for one of a minute.

        Args:
            after: ticks up to this moment are left out.
            until: the last moment of the span.
            most: how many at most.
        """
        for seconds in _WINDOWS:
            begin = max(after, until - timedelta(seconds=seconds))
            found: list[datetime] = []
            for tick in self.after(begin):
                if tick > until:
                    break
                found.append(tick)
            if begin == after or len(found) >= most:
                return found[-most:]
        return []

    def count(self, after: datetime, until: datetime, most: int) -> int:
        """Return how many ticks a span has, counting to `most`."""
        if self._every is not None and self.start is None and self.end is None:
            first, last = self._index(after, self._every), self._index(until, self._every)
            return min(most, max(0, last - first))
        counted = 0
        for tick in self.after(after):
            if tick > until or counted >= most:
                break
            counted += 1
        return counted

    def _index(self, moment: datetime, every: timedelta) -> int:
        return (moment - (self.start or _EPOCH)) // every

    def _by_interval(self, moment: datetime, every: timedelta) -> Iterator[datetime]:
        origin = (self.start or _EPOCH).astimezone(UTC)
        index = max(0, self._index(moment, every) + 1)
        while True:
            try:
                yield origin + every * index
            except OverflowError:
                return
            index += 1

    def _by_line(self, moment: datetime) -> Iterator[datetime]:
        moment = moment.astimezone(UTC)
        last = moment
        try:
            for tick in CronSim(self._line, moment.astimezone(self._zone)):
                # A line of fixed times is in local time, of which an hour comes twice in autumn: from the
                # second one, ticks of the first may be found.
                if (found := tick.astimezone(UTC)) > last:
                    yield found
                    last = found
        except (OverflowError, ValueError):  # the last days of the calendar
            return


@lru_cache(maxsize=256)
def zone_of(name: str) -> ZoneInfo:
    """Return a time zone.

    Raises:
        ScheduleInvalid: if the IANA database has none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise ScheduleInvalid(
            "time_zone", f"there is no time zone {name[:80]!r}",
            "use a name of the IANA database, such as Europe/Berlin, America/New_York or UTC",
        ) from None  # fmt: skip


def _interval(cron: str) -> timedelta | None:
    """Return the interval of an `@every` line, None for another line."""
    if not cron.strip().lower().startswith("@every"):
        return None
    match = _EVERY.fullmatch(cron.strip().lower())
    if match is None:
        raise ScheduleInvalid("cron", f"{cron[:80]!r} cannot be read", _HINT)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(match[1]))
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS or seconds != int(seconds):
        raise ScheduleInvalid("cron", f"{cron[:80]!r} is {seconds:g} s", "use whole seconds, from 1s to 366d")
    return timedelta(seconds=seconds)


def _check_line(cron: str, line: str) -> None:
    if len(cron) > TEXT_LENGTH:
        raise ScheduleInvalid("cron", f"has {len(cron)} characters", _HINT)
    try:
        CronSim(line, _EPOCH)
    except CronSimError as error:
        fields = line.split()
        if fields[-3:-2] and re.fullmatch(r"(\d+)(,\d+)*", fields[-3]) and str(error) == _BAD_DAY:
            days = [int(day) for day in fields[-3].split(",")]
            if all(1 <= day <= 31 for day in days):
                raise ScheduleInvalid(
                    "cron", f"{cron!r} never fires: none of its months has such a day", "choose another day"
                ) from None
        raise ScheduleInvalid("cron", f"{cron!r} is not a cron line: {error}", _HINT) from None


def _check_span(start: datetime | None, end: datetime | None) -> None:
    for name, moment in (("start", start), ("end", end)):
        if moment is not None and moment.utcoffset() is None:
            raise ScheduleInvalid(
                name, "the time has no offset from UTC", "pass an aware datetime, as datetime.now(UTC) is"
            )
    if start is not None and end is not None and end < start:
        raise ScheduleInvalid(
            "end", f"{end} is before start, {start}", "set a later end, or an earlier start"
        )
