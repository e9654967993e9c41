"""Which archives are kept: the newest complete one always."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galley.backup.catalogue import Entry, Summary, entries, find, name_at, remove, superfluous, write_summary
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


async def test_a_summary_that_cannot_be_read_makes_no_archive_complete(tmp_path: Path) -> None:
    (tmp_path / "galley-x.galley").write_bytes(b"1234")
    (tmp_path / "galley-x.galley.json").write_bytes(b"{")
    [entry] = await entries(Folder(tmp_path))
    assert not entry.good


def test_a_summary_names_no_stream_and_no_namespace() -> None:
    assert set(msgspec.to_builtins(a_summary())) == {
        "name", "id", "takenAt", "finishedAt", "size", "sha256", "streams", "messages", "objects", "galley",
        "format",
    }  # fmt: skip
