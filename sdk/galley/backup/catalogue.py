"""Which archives there are at a destination, and which of them may go."""

import logging
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from msgspec import Struct

from galley.backup.archive import Manifest
from galley.backup.destination import Destination
from galley.backup.errors import ArchiveDamaged, ArchiveNotFound, DestinationFailed
from galley.envelope import in_range
from galley.history import Moment
from galley.unreadable import UNREADABLE

log = logging.getLogger(__name__)

SUFFIX: Final = ".galley"
_SUMMARY: Final = ".json"
_LONGEST_SUMMARY: Final = 64 * 1024
_NAME_FORMAT: Final = f"galley-%Y%m%dT%H%M%SZ{SUFFIX}"
_NAME_SLACK: Final = timedelta(minutes=10)
"""Between the time in a name and the one at which reading began, which is a moment later."""


class Summary(Struct, frozen=True, rename="camel"):
    """What is known of an archive without its key: no names, no content."""

    name: str
    id: str
    taken_at: Moment
    finished_at: Moment
    size: int
    """Bytes of the archive as it is stored."""
    sha256: str
    """Of the archive as it is stored."""
    streams: int
    messages: int
    objects: int
    galley: str
    format: int


class Entry(Struct, frozen=True):
    """An archive in a list."""

    name: str
    size: int
    changed_at: datetime
    summary: Summary | None
    """None if it is not known to be complete: its writing did not come to its end."""
    unknown: bool = False
    """Whether its summary is there and cannot be read: then it is not deleted."""

    @property
    def good(self) -> bool:
        """Whether it is complete."""
        return self.summary is not None and self.summary.size == self.size


def name_at(moment: datetime) -> str:
    """Return the name of an archive taken at a time."""
    return moment.strftime(_NAME_FORMAT)


def named_time(name: str) -> datetime | None:
    """Return when an archive was taken by its name; None if people gave it another one."""
    try:
        found = datetime.strptime(name, _NAME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
    return found if name_at(found) == name else None


def check_name(name: str, manifest: Manifest) -> None:
    """Check that an archive is of the time in its name: a copy of an older one must not pass for the latest.

    Raises:
        ArchiveDamaged: if it is not. Another kind of name tells no time, and is not checked.
    """
    named = named_time(name)
    if named is not None and abs(named - manifest.taken_at) > _NAME_SLACK:
        taken = f"{manifest.taken_at:%Y-%m-%dT%H:%M:%SZ}"
        raise ArchiveDamaged(name, f"it was taken at {taken}, not when its name says")


def summary_of(name: str, manifest: Manifest, size: int, digest: str) -> Summary:
    """Return the summary that stands beside an archive."""
    return Summary(
        name, manifest.id, manifest.taken_at, manifest.finished_at, size, digest, len(manifest.streams),
        sum(each.messages for each in manifest.streams), sum(manifest.objects.values()), manifest.galley,
        manifest.format,
    )  # fmt: skip


async def write_summary(destination: Destination, summary: Summary) -> None:
    """Store the summary beside its archive, which says that the archive is complete.

    Raises:
        DestinationFailed: if it could not be stored.
    """

    async def text() -> AsyncIterator[bytes]:
        yield msgspec.json.encode(summary)

    await destination.write(summary.name + _SUMMARY, text())


async def entries(destination: Destination) -> list[Entry]:
    """Return the archives of a destination, newest first.

    Raises:
        DestinationFailed: if they could not be listed.
    """
    files = {each.name: each for each in await destination.files()}
    found = []
    for name, file in files.items():
        if name.endswith(SUFFIX):
            there = name + _SUMMARY in files
            summary, unknown = await _summary(destination, name) if there else (None, False)
            found.append(Entry(name, file.size, file.changed_at, summary, unknown))
    return sorted(found, key=lambda each: each.name, reverse=True)


async def _summary(destination: Destination, name: str) -> tuple[Summary | None, bool]:
    """Return what stands beside an archive, and whether it cannot be read.

    None if that is no summary of it, or is gone: others may write there, and other backups delete.
    """
    text = b""
    try:
        async for piece in destination.read(name + _SUMMARY):
            text += piece
            if len(text) > _LONGEST_SUMMARY:
                return None, False
        summary = msgspec.json.decode(text, type=Summary)
    except (ArchiveNotFound, *UNREADABLE):
        return None, False
    except DestinationFailed as error:
        if not error.file:
            raise
        log.warning("summary of an archive not readable", extra={"archive": name, "error": str(error)})
        return None, True
    known = summary.name == name and in_range(summary.taken_at) and in_range(summary.finished_at)
    return (summary if known else None), False


async def find(destination: Destination, name: str) -> str:
    """Return the name of an archive; `latest` is the newest complete one of those named by their time.

    Raises:
        ArchiveNotFound: if there is none.
        ArchiveDamaged: if its size is not the one its summary says.
    """
    there = await entries(destination)
    if name == "latest":
        # Under another name a copy of an older one could not be told from the newest.
        good = [each.name for each in there if each.good and named_time(each.name) is not None]
        if not good:
            raise ArchiveNotFound("latest", str(destination))
        return good[0]
    for each in there:
        if name in (each.name, each.name.removesuffix(SUFFIX)):
            if each.summary is not None and not each.good:
                problem = f"it has {each.size} bytes, and was written with {each.summary.size}"
                raise ArchiveDamaged(each.name, problem)
            return each.name
    raise ArchiveNotFound(name, str(destination))


def superfluous(
    there: Sequence[Entry], now: datetime, keep: int | None, keep_days: float | None
) -> list[Entry]:
    """Return the archives that are to go.

    Those that people gave names of their own stay, and so do those of a later time than the present, which
    could be none of ours. Neither counts, as the newest one least of all.

    Args:
        there: the archives, newest first.
        now: the present time.
        keep: so many complete ones stay; None does not limit their number.
        keep_days: those older than this go; None keeps them.

    Returns:
        Those that are beyond either limit, but never the newest complete one. One that is not complete does
        not count; it goes a day later, when a complete one is newer.
    """
    ours = [
        each for each in there
        if (named := named_time(each.name)) is not None and named <= now + _NAME_SLACK
    ]  # fmt: skip
    good = [each for each in ours if each.good]
    if not good or (keep is None and keep_days is None):
        return []
    newest, gone = good[0], []
    for number, each in enumerate(good[1:], 2):
        too_many = keep is not None and number > keep
        too_old = keep_days is not None and (now - _time_of(each)).total_seconds() > keep_days * 86_400
        if too_many or too_old:
            gone.append(each)
    day_ago = now - timedelta(days=1)
    unfinished = [
        each for each in ours
        if not (each.good or each.unknown) and each.name < newest.name and each.changed_at < day_ago
    ]  # fmt: skip
    return gone + unfinished


def _time_of(entry: Entry) -> datetime:
    return entry.summary.taken_at if entry.summary is not None else entry.changed_at


async def remove(destination: Destination, entry: Entry) -> None:
    """Delete an archive; its summary goes first, so that half of it never counts as complete.

    Raises:
        DestinationFailed: if it could not be deleted.
    """
    await destination.remove(entry.name + _SUMMARY)
    await destination.remove(entry.name)
