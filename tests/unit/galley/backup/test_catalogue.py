"""Which archives are kept: the newest complete one always."""

import os
import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galley.backup.archive import Manifest
from galley.backup.catalogue import (
    Entry,
    Summary,
    check_name,
    entries,
    find,
    name_at,
    remove,
    superfluous,
    write_summary,
)
from galley.backup.destination import Folder
from galley.backup.errors import ArchiveDamaged, ArchiveNotFound

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def a_summary(days: float = 0, size: int = 10) -> Summary:
    at = NOW - timedelta(days=days)
    return Summary(name_at(at), "id", at, at, size, "digest", 4, 100, 3, "0.2.0", 1)


def an_entry(days: float, *, good: bool = True) -> Entry:
    summary = a_summary(days)
    return Entry(summary.name, 10 if good else 9, summary.taken_at, summary)


def unfinished(days: float) -> Entry:
    at = NOW - timedelta(days=days)
    return Entry(name_at(at), 5, at, None)


@pytest.mark.parametrize(("there", "keep", "days", "gone"), [
    ([], 1, 1, []),
    ([0, 1, 2], None, None, []),
    ([0, 1, 2, 3], 2, None, [2, 3]),
    ([0, 1, 2, 3], None, 1.5, [2, 3]),
    ([0, 1, 2, 3], 3, 0.5, [1, 2, 3]),
    ([9, 10, 11], None, 1, [10, 11]),
    ([9], 1, 1, []),
    ([0, 1, 2], None, 10**20, []),
])  # fmt: skip
def test_archives_go_beyond_a_number_or_an_age(
    there: list[float], keep: int | None, days: float | None, gone: list[float]
) -> None:
    found = superfluous([an_entry(each) for each in there], NOW, keep, days)
    assert [each.name for each in found] == [an_entry(each).name for each in gone]


def test_an_archive_that_is_not_complete_does_not_count() -> None:
    there = [unfinished(0), an_entry(1, good=False), an_entry(2), an_entry(3)]
    assert superfluous(there, NOW, 1, None) == [there[3]]


def test_an_unfinished_archive_goes_a_day_after_a_newer_one_was_complete() -> None:
    there = [an_entry(0), unfinished(0.5), unfinished(3)]
    assert superfluous(there, NOW, 5, None) == [there[2]]


def test_a_name_that_people_gave_an_archive_keeps_it() -> None:
    """A copy has no summary, as archives have that were never finished."""
    copy = Entry("before-upgrade.galley", 10, NOW - timedelta(days=5), None)
    whole = Entry(copy.name, 10, copy.changed_at, msgspec.structs.replace(a_summary(5), name=copy.name))
    for each in (copy, whole):
        there = [an_entry(0), an_entry(1), an_entry(2), each]
        assert superfluous(there, NOW, 1, 1) == there[1:3]


@pytest.mark.parametrize("name", [name_at(NOW + timedelta(days=1)), "zzz.galley"])
async def test_what_others_call_the_newest_has_no_other_deleted(tmp_path: Path, name: str) -> None:
    """Where archives are kept, others may write: the one that was just taken is the newest all the same."""
    fake = Entry(name, 10, NOW, msgspec.structs.replace(a_summary(0), name=name))
    there = [fake, an_entry(0), an_entry(1)]
    assert superfluous(there, NOW, 1, None) == there[2:]
    for summary in (a_summary(0, size=4), msgspec.structs.replace(a_summary(3, size=4), name="zzz.galley")):
        (tmp_path / summary.name).write_bytes(b"1234")
        await write_summary(Folder(tmp_path), summary)
    assert await find(Folder(tmp_path), "latest") == a_summary(0).name
    assert await find(Folder(tmp_path), "zzz") == "zzz.galley"


@given(
    st.lists(
        st.tuples(st.floats(0, 400), st.booleans()), max_size=8, unique_by=lambda pair: int(pair[0] * 86400)
    ),
    st.none() | st.integers(1, 3),
    st.none() | st.floats(0, 100),
)
def test_the_newest_complete_archive_never_goes(
    ages: list[tuple[float, bool]], keep: int | None, days: float | None
) -> None:
    there = [an_entry(age, good=good) for age, good in sorted(ages)]
    good = [each for each in there if each.good]
    assert not good or good[0] not in superfluous(there, NOW, keep, days)


async def test_an_archive_is_complete_once_its_summary_is_there(tmp_path: Path) -> None:
    folder, summary = Folder(tmp_path), a_summary(size=4)
    (tmp_path / summary.name).write_bytes(b"1234")
    (tmp_path / "something else").write_bytes(b"")
    [entry] = await entries(folder)
    assert not entry.good
    with pytest.raises(ArchiveNotFound):
        await find(folder, "latest")
    await write_summary(folder, summary)
    [entry] = await entries(folder)
    assert entry.good
    assert await find(folder, "latest") == summary.name
    assert await find(folder, summary.name.removesuffix(".galley")) == summary.name
    (tmp_path / summary.name).write_bytes(b"123")
    with pytest.raises(ArchiveDamaged, match="3 bytes, and was written with 4"):
        await find(folder, summary.name)
    await remove(folder, entry)
    assert await entries(folder) == []
    with pytest.raises(ArchiveNotFound):
        await find(folder, summary.name)


GOOD = msgspec.to_builtins(a_summary(size=4))
NAME = a_summary().name


@pytest.mark.parametrize("text", [
    b"{", b"\xff", b"", b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
    msgspec.json.encode({**GOOD, "takenAt": "2026-11-28T12:00:00"}),
    msgspec.json.encode({**GOOD, "takenAt": "9999-12-31T23:59:59-23:00"}),
    msgspec.json.encode({**GOOD, "name": "../../etc/passwd"}),
    msgspec.json.encode({**GOOD, "galley": "x" * 100_000}),
])  # fmt: skip
async def test_what_others_put_beside_an_archive_makes_it_not_complete(tmp_path: Path, text: bytes) -> None:
    """Where archives are kept, others may write; a backup looks at all of it to delete the oldest."""
    (tmp_path / NAME).write_bytes(b"1234")
    (tmp_path / f"{NAME}.json").write_bytes(msgspec.json.encode(GOOD))
    assert [entry.good for entry in await entries(Folder(tmp_path))] == [True]
    (tmp_path / f"{NAME}.json").write_bytes(text)
    there = await entries(Folder(tmp_path))
    assert [entry.good for entry in there] == [False]
    assert superfluous([an_entry(-1), *there], NOW, 1, 1) == []


@pytest.mark.skipif(sys.platform != "linux", reason="it is the file of Linux that no one can read")
async def test_a_summary_that_cannot_be_read_hides_no_other_archive(tmp_path: Path) -> None:
    whole, odd = a_summary(size=4), a_summary(3)
    for each in (whole, odd):
        (tmp_path / each.name).write_bytes(b"1234")
        os.utime(tmp_path / each.name, (0, 0))
    (tmp_path / f"{odd.name}.json").symlink_to("/proc/self/mem")
    await write_summary(Folder(tmp_path), whole)
    there = await entries(Folder(tmp_path))
    assert [(entry.good, entry.unknown) for entry in there] == [(True, False), (False, True)]
    # It may be whole, and only be read again later.
    assert superfluous(there, NOW, 1, 1) == []


@pytest.mark.parametrize(("days", "name", "refused"), [
    (0, NAME, False), (0, "before-upgrade.galley", False), (7, NAME, True), (-7, NAME, True),
])  # fmt: skip
def test_an_older_archive_does_not_pass_for_the_latest(days: float, name: str, refused: bool) -> None:
    at = NOW - timedelta(days=days)
    manifest = Manifest("i", "0", "2", at, at, [], {}, [], [])
    with pytest.raises(ArchiveDamaged, match="not when its name says") if refused else nullcontext():
        check_name(name, manifest)


def test_a_summary_names_no_stream_and_no_namespace() -> None:
    assert set(msgspec.to_builtins(a_summary())) == {
        "name", "id", "takenAt", "finishedAt", "size", "sha256", "streams", "messages", "objects", "galley",
        "format",
    }  # fmt: skip
