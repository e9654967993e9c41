"""A folder has an archive whole, or not at all."""

import errno
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from galley.backup.destination import Folder, destination_at
from galley.backup.errors import ArchiveNotFound, DestinationFailed, DestinationInvalid


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


async def broken() -> AsyncIterator[bytes]:
    yield b"1"
    raise RuntimeError("the broker is gone")


async def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = destination_at(str(tmp_path))
    await folder.write("a", pieces(b"12", b"3"))
    assert b"".join([piece async for piece in folder.read("a")]) == b"123"
    assert [(each.name, each.size) for each in await folder.files()] == [("a", 3)]
    await folder.remove("a")
    await folder.remove("a")
    with pytest.raises(ArchiveNotFound):
        [piece async for piece in folder.read("a")]


async def test_nothing_is_left_of_a_file_that_was_not_written_to_its_end(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        await Folder(tmp_path).write("a", broken())
    assert names(tmp_path) == set()


async def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DestinationFailed, match="No space left on device") as error:
        await Folder(tmp_path).write("a", pieces(b"x" * 100_000))
    assert "enlarge the volume" in error.value.hint
    assert names(tmp_path) == set()


async def test_what_a_killed_process_left_goes_a_day_later(tmp_path: Path) -> None:
    old, new = tmp_path / "old.part", tmp_path / "new.part"
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    os.utime(old, (time.time() - 90_000, time.time() - 90_000))
    folder = Folder(tmp_path)
    assert await folder.files() == []
    await folder.write("a", pieces(b"1"))
    assert names(tmp_path) == {"new.part", "a"}


async def test_what_others_put_there_neither_takes_an_archive_nor_stops_a_backup(tmp_path: Path) -> None:
    """Names of archives can be guessed: they are times."""
    folder, theirs = tmp_path / "archives", tmp_path / "theirs"
    folder.mkdir()
    theirs.write_bytes(b"mine")
    (folder / "a.part").symlink_to(theirs)
    os.mkfifo(folder / "b.part")
    (folder / "c.part").mkdir()
    (folder / "d").symlink_to(theirs)
    (folder / "old.part").mkdir()
    os.utime(folder / "old.part", (0, 0))
    for name in "abcd":
        await Folder(folder).write(name, pieces(b"secret"))
        assert (folder / name).read_bytes() == b"secret"
    assert theirs.read_bytes() == b"mine"


@pytest.mark.parametrize("place", ["/nowhere/at/all", "gs://bucket/x", "s3://", __file__])
def test_what_is_no_destination_is_refused(place: str) -> None:
    with pytest.raises(DestinationInvalid):
        destination_at(place, {})


async def test_a_folder_that_goes_away_is_told(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    folder = Folder(gone)
    gone.rmdir()
    with pytest.raises(DestinationFailed, match="could not list archives"):
        await folder.files()
    (tmp_path / "file").mkdir()
    with pytest.raises(DestinationFailed, match="could not read"):
        [piece async for piece in Folder(tmp_path).read("file")]
