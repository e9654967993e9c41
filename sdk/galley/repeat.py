"""Repeat: when a handler runs again and again, and what happens when that cannot be kept to."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import Meta, Struct

from galley.bounds import Range
from galley.envelope import in_range
from galley.errors import ScheduleInvalid
from galley.history import Moment

if TYPE_CHECKING:
    from galley.timetable import Timetable

JITTER_SECONDS: Final = Range(0, 86_400)
CATCH_UP_LIMIT: Final = Range(1, 1000)
LATE_SECONDS: Final = Range(1, 31_536_000)
HISTORY_LIMIT: Final = Range(0, 100)


class Overlap(StrEnum):
    """What happens at a tick while the task of an earlier tick has not ended."""

    SKIP = "skip"
    """No task is submitted."""
    ALLOW = "allow"
    """A task is submitted, and both may run side by side."""
    REPLACE = "replace"
    """The earlier one is cancelled, and a task is submitted."""


class CatchUp(StrEnum):
    """What happens to ticks that passed while nothing could submit their tasks."""

    SKIP = "skip"
    """The last one runs if it is not later than `starting_deadline_seconds`, the others do not."""
    ONE = "one"
    """The last one runs, however late it is; the others do not."""
    ALL = "all"
    """All run, oldest first; of more than `catch_up_limit` the newest."""


class Repeat(Struct, frozen=True, rename="camel", omit_defaults=True):
    """When a schedule fires, and by which rules."""

    cron: Annotated[str, Meta(max_length=200)]
    """Five fields (minute, hour, day, month, weekday), six with seconds first, `@hourly`, `@daily`,
    `@weekly`, `@monthly`, `@yearly`, or `@every` with a time such as `10s`, `15m`, `1h30m`."""
    time_zone: Annotated[str, Meta(max_length=64)] = "UTC"
    """Name of the zone whose clocks a cron line follows. A time that the clocks skip in spring runs right
    after the gap; one that they pass twice in autumn runs once, the first time. Lines whose minute or hour
    begins with `*`, and lines with seconds, run whenever the clock shows that time."""
    start: Moment | None = None
    """First moment at which it fires; `@every` counts from it."""
    end: Moment | None = None
    """Last moment at which it fires."""
    jitter_seconds: float = 0.0
    """Each task starts up to so many seconds after its tick: by how much follows from its id, so it is the
    same whichever process submits it."""
    overlap: Overlap = Overlap.SKIP
    catch_up: CatchUp = CatchUp.SKIP
    catch_up_limit: int = 100
    """Most missed ticks that run with `catch_up=all`."""
    starting_deadline_seconds: int = 300
    """How late a tick may be with `catch_up=skip` before it counts as missed: what workers need to start."""
    history_limit: int = 10
    """How many of its latest ticks a schedule remembers, though the results of their tasks expire."""

    def __post_init__(self) -> None:
        """Check what was passed.

        Raises:
            ScheduleInvalid: if no schedule can have these values.
        """
        for name in ("cron", "time_zone"):
            if not isinstance(getattr(self, name), str):
                raise ScheduleInvalid(name, f"is {getattr(self, name)!r}, which is no text", "pass a str")
        for name, kind in (("overlap", Overlap), ("catch_up", CatchUp)):
            value = getattr(self, name)
            if not isinstance(value, kind):
                _check_choice(name, value, tuple(kind))
        for name, bounds, kinds in (
            ("jitter_seconds", JITTER_SECONDS, int | float),
            ("catch_up_limit", CATCH_UP_LIMIT, int),
            ("starting_deadline_seconds", LATE_SECONDS, int),
            ("history_limit", HISTORY_LIMIT, int),
        ):
            value = getattr(self, name)
            if not isinstance(value, kinds) or not bounds.holds(value):
                raise ScheduleInvalid(name, repr(value), f"use {bounds}")
        for name in ("start", "end"):
            moment = getattr(self, name)
            if moment is not None and moment.utcoffset() is not None and not in_range(moment):
                raise ScheduleInvalid(name, moment.isoformat(), "use a time between the years 1970 and 9998")
        if self.catch_up == CatchUp.ALL and self.overlap != Overlap.ALLOW:
            raise ScheduleInvalid(
                "catch_up",
                f"'all' submits missed ticks together, and overlap={str(self.overlap)!r} one at a time",
                "use overlap='allow' with catch_up='all', or catch_up='one'",
            )  # fmt: skip
        self.timetable()

    def timetable(self) -> "Timetable":
        """Return its ticks.

        Raises:
            ScheduleInvalid: if it can never fire.
        """
        from galley.timetable import Timetable  # noqa: PLC0415 - few handlers have a schedule

        return Timetable(self.cron, self.time_zone, self.start, self.end)


def repeat_of(cron: "str | Repeat", **more: Any) -> Repeat:
    """Return what to repeat: `cron` itself, or a cron line with these fields of `Repeat` that are not None.

    Raises:
        ScheduleInvalid: if no schedule can have them.
    """
    given = {name: value for name, value in more.items() if value is not None}
    if isinstance(cron, Repeat):
        if given:
            raise ScheduleInvalid(next(iter(given)), "is given beside a Repeat", "set it in the Repeat")
        return cron
    return Repeat(cron, **given)


def _check_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ScheduleInvalid(name, f"{value!r}", f"use one of {', '.join(known)}")
