"""A schedule as the broker keeps it, and what follows when it is due. Pure: the time is an argument.

A schedule is one message: what to run, when, and up to where that was done. The server delivers it at the
next tick, and a worker submits the tasks of the ticks that are due and stores the message for the tick after.
The id of such a task is made of the schedule's name and its tick, so submitting it twice is harmless.
"""

import re
import secrets
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.envelope import Envelope
from galley.errors import EnvelopeInvalid, ScheduleInvalid
from galley.history import Moment
from galley.lanes import Lane
from galley.repeat import CatchUp, Repeat

NAME_LENGTH: Final = 48
"""Characters of a name: with a dash, the tick and a mark it is the id of a task, which has at most 64."""

IDLE_SECONDS: Final = 30 * 24 * 3600
"""A schedule that has no next tick, or is suspended, is looked at after this."""

COUNTED: Final = 10_000
"""Missed ticks are counted to this."""

RUN_NOW: Final = "galley.dev/run-now"
"""Annotation of a TaskSchedule: a new value runs its task once."""

_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,46}[A-Za-z0-9])?")
_VERSION: Final = 1


class Origin(StrEnum):
    """Where a schedule was declared: whatever declared it keeps it up to date."""

    CLIENT = "client"
    """By a program, or `galley schedule`."""
    CODE = "code"
    """By `@task(cron=...)`."""
    OBJECT = "object"
    """By a TaskSchedule object."""


class Action(StrEnum):
    """What became of a tick."""

    FIRED = "Fired"
    SKIPPED = "Skipped"
    """The task of an earlier tick had not ended."""
    MISSED = "Missed"
    """It was past when it could be looked at."""
    REFUSED = "Refused"
    """Its task could not be stored."""


class Tick(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One tick that was looked at, or several that were missed together."""

    at: Moment
    """When it was due; of several, the last one."""
    action: Action
    id: str = ""
    """Of its task."""
    count: int = 1
    why: str = ""


class Progress(Struct, frozen=True, rename="camel", omit_defaults=True):
    """How far a schedule is."""

    decided: Moment | None = None
    """Ticks up to here are done with, and never fire again."""
    next_at: Moment | None = None
    """The next tick; None if there is none."""
    last_at: Moment | None = None
    """The last tick that fired."""
    last_id: str = ""
    """Its task."""
    fired: int = 0
    skipped: int = 0
    """Ticks whose task was not submitted, missed ones included."""
    recent: tuple[Tick, ...] = ()
    """The latest ticks, newest first."""


NEW: Final = Progress()


class Schedule(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What to run, when, and how far that is done."""

    name: str
    repeat: Repeat
    task: Raw
    """The task of a tick as it travels, for the id `name`."""
    handler: str
    lane: Lane = Lane.NORMAL
    suspended: bool = False
    origin: Origin = Origin.CLIENT
    uid: str = ""
    """Of the TaskSchedule object; empty if there is none."""
    generation: int = 0
    """Of that object, when this was written."""
    reset: bool = False
    """Ticks before the next look do not count: it is new, changed, or was suspended."""
    fresh: bool = False
    """It was delivered only to learn the time of the server."""
    gone: bool = False
    """It is to be removed."""
    problem: str = ""
    """Why it does not fire, though it should."""
    progress: Progress = NEW
    v: Annotated[int, Meta(ge=1)] = _VERSION

    @property
    def next_at(self) -> datetime | None:
        """When it fires next, as far as that is known."""
        return None if self.suspended else self.progress.next_at

    def same_as(self, other: "Schedule") -> bool:
        """Return whether both ask for the same: whatever has happened since does not count."""
        return _asked(self) == _asked(other)


def _asked(schedule: Schedule) -> Schedule:
    """Return what a schedule asks for, without the task, which may be encrypted."""
    return replace(
        schedule, reset=False, fresh=False, problem="", progress=NEW, task=Raw(b""), generation=0, uid=""
    )


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Schedule).decode


def encode(schedule: Schedule) -> bytes:
    """Return the body that is stored."""
    return _encode(schedule)


def decode(body: bytes) -> Schedule:
    """Return the schedule in a body.

    Raises:
        EnvelopeInvalid: if it is none, or of a later version.
    """
    try:
        schedule = _decode(body)
    except (msgspec.MsgspecError, ScheduleInvalid, UnicodeDecodeError, RecursionError) as error:
        raise EnvelopeInvalid(f"no schedule: {error}") from None
    if schedule.v != _VERSION:
        raise EnvelopeInvalid(f"its version is {schedule.v}, known here is {_VERSION}")
    return schedule


def check_schedule_name(name: str) -> str:
    """Return `name` if a schedule can have it.

    Raises:
        ScheduleInvalid: if not.
    """
    found = _NAME.fullmatch(str(name))
    if found is None or found[0] != name:  # a number is no text
        raise ScheduleInvalid(
            "name", f"{str(name)[:80]!r} cannot be the name of a schedule",
            f"use 1 to {NAME_LENGTH} of A-Z, a-z, 0-9, _ and -, starting and ending with a letter or digit",
        )  # fmt: skip
    return name


def schedule_name_of(handler: str) -> str:
    """Return the name of the schedule of `@task(cron=...)`.

    Raises:
        ScheduleInvalid: if the handler's name is too long.
    """
    return check_schedule_name(handler.replace(".", "-"))


def tick_id(name: str, tick: datetime) -> str:
    """Return the id of the task of a tick: the same in every process."""
    return f"{name}-{int(tick.timestamp())}"


def ticks_of(task_id: str) -> tuple[str, datetime] | None:
    """Return the schedule and the tick whose task would have that id; None for an id that no tick has.

    Of each task this is asked, so what is no such id is told by one character.
    """
    if task_id[-11:-10] != "-" or not (seconds := task_id[-10:]).isdecimal() or not seconds.isascii():
        return None
    return task_id[:-11], datetime.fromtimestamp(int(seconds), UTC)


def run_now_id(name: str, token: str = "") -> str:
    """Return the id of a task that is submitted beside the ticks; the same token gives the same id."""
    word = sha256(token.encode()).hexdigest()[:10] if token else secrets.token_hex(5)
    return f"{name}-now-{word}"


def address_of(namespace: str, queue: str, lane: Lane, task_id: str) -> TaskAddress:
    """Return where the task of a schedule lives."""
    return TaskAddress(namespace, queue, lane, Kind.DIRECT, task_id)


def jitter_of(task_id: str, most_seconds: float) -> timedelta:
    """Return by how much a task starts after its tick, which follows from its id."""
    share = int.from_bytes(sha256(task_id.encode()).digest()[:8]) / 2**64
    return timedelta(seconds=share * most_seconds)


def task_of_tick(schedule: Schedule, template: Envelope, tick: datetime, submitted_at: datetime) -> Envelope:
    """Return the task of a tick as it travels."""
    starts = tick + jitter_of(tick_id(schedule.name, tick), schedule.repeat.jitter_seconds)
    return replace(
        template,
        submitted_at=submitted_at,
        not_before=starts if starts > tick else None,
        schedule=schedule.name,
    )


class Due(NamedTuple):
    """What follows from looking at a schedule at some time."""

    ticks: tuple[datetime, ...]
    """Those that are to fire, in order."""
    missed: int
    """How many are not, counted to `COUNTED`."""
    last_missed: datetime | None
    next_at: datetime | None


def look(schedule: Schedule, now: datetime) -> Due:
    """Return which ticks fire at `now`, and when to look again.

    Ticks up to `progress.decided` do not count, so that whatever the clocks do, none fires twice.
    """
    repeat, decided = schedule.repeat, schedule.progress.decided
    timetable = repeat.timetable()
    since = now if decided is None else max(decided, now) if schedule.reset else decided
    next_at = timetable.next_after(max(now, since))
    if since >= now:
        return Due((), 0, None, next_at)
    if schedule.suspended:
        return Due((), 0, None, None)
    most = repeat.catch_up_limit if repeat.catch_up is CatchUp.ALL else 1
    newest = timetable.latest(since, now, most)
    if not newest:
        return Due((), 0, None, next_at)
    fire = newest
    if repeat.catch_up is CatchUp.SKIP:
        fire = [tick for tick in newest if (now - tick).total_seconds() <= repeat.starting_deadline_seconds]
    missed = timetable.count(since, now, COUNTED + len(fire)) - len(fire)
    last_missed = None
    if missed:
        before = fire[0] - timedelta(microseconds=1) if fire else now
        last_missed = next(iter(timetable.latest(since, before, 1)), None)
    return Due(tuple(fire), missed, last_missed, next_at)


def moved_on(schedule: Schedule, now: datetime, due: Due, done: list[Tick]) -> Schedule:
    """Return the schedule after its ticks were looked at.

    Args:
        schedule: as it was.
        now: when it was looked at, by the server's clock.
        due: what `look` returned.
        done: what became of `due.ticks`, in order.
    """
    progress = schedule.progress
    news = list(done)
    if due.missed and due.last_missed is not None:
        news.insert(0, Tick(due.last_missed, Action.MISSED, count=due.missed))
    fired = [tick for tick in done if tick.action is Action.FIRED]
    recent = (*reversed(news), *progress.recent)[: schedule.repeat.history_limit]
    return replace(
        schedule,
        reset=False,
        fresh=False,
        problem="",
        progress=Progress(
            decided=now if progress.decided is None else max(progress.decided, now),
            next_at=due.next_at,
            last_at=fired[-1].at if fired else progress.last_at,
            last_id=fired[-1].id if fired else progress.last_id,
            fired=progress.fired + len(fired),
            skipped=progress.skipped + due.missed + len(done) - len(fired),
            recent=recent,
        ),
    )
