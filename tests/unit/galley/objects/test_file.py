"""galley.File: in arguments and results, as JSON, and for tests in memory."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from galley import File, FileChanged, FileElsewhere, FileUnreadable, InputInvalid, task
from galley.file import files_here, files_in, files_of, from_json, with_files, with_references
from galley.json_value import encode_value
from galley.objects.content import FileContent
from galley.objects.transfer import download
from galley.reference import Reference
from galley.testing import AsyncEagerClient, EagerClient

STORED = Reference("a" * 64, 3, name="../../etc/pass wd")


@dataclass
class Pair:
    left: File
    right: File | None = None


@task(queue="files")
def swap(pair: Pair, others: list[File]) -> Pair:
    """Exchange two files."""
    assert pair.right is not None
    assert all(other.size for other in others)
    return Pair(pair.right, pair.left)


@task(queue="files")
def anything(value: object) -> object:
    """Return what it is given."""
    return value


def a_file(folder: Path, name: str = "a.txt", data: bytes = b"abc") -> File:
    (folder / name).write_bytes(data)
    return File(folder / name)


def test_files_go_through_handlers_in_memory(tmp_path: Path) -> None:
    left, right = a_file(tmp_path), a_file(tmp_path, "b.txt", b"defg")
    client = EagerClient()
    pair = client.submit(swap.call(Pair(left, right), [left, right]), task_id="one").result()
    assert (pair.left.name, pair.left.read(), pair.right and pair.right.read()) == ("b.txt", b"defg", b"abc")
    assert client.submit(swap.call(Pair(left, right), [left, right]), task_id="one").existed
    assert client.download(pair.left, tmp_path / "c.txt").read_bytes() == b"defg"
    assert client.submit(anything.call({"deep": [left]})).result() == {"deep": [left]}


async def test_files_go_through_the_asynchronous_client_in_memory(tmp_path: Path) -> None:
    client = AsyncEagerClient()
    file = await (await client.submit(anything.call(a_file(tmp_path)))).result()
    (tmp_path / "to").mkdir()
    assert isinstance(file, File)
    assert await client.download(file, tmp_path / "to") == tmp_path / "to" / "a.txt"


def test_a_call_keeps_the_files_that_are_in_it(tmp_path: Path) -> None:
    file = a_file(tmp_path)
    call = swap.call(Pair(file, File(file.path(), name="other.txt")), [file])
    assert [each.name for each in call.files] == ["a.txt", "other.txt"]
    filled = with_references(call.input, {each.mark: each.hashed() for each in call.files})
    assert b"local" not in filled
    assert filled.count(file.hashed().digest.encode()) == 3
    assert anything.call("text").files == ()


def test_a_name_cannot_lead_out_of_a_folder() -> None:
    def named(**name: str) -> str:
        return from_json({"galley.file": {"digest": "a" * 64, "size": 3, **name}}).name

    assert named(name="../../etc/passwd") == "passwd"
    assert named(name="a/..") == "file"
    assert named() == "file"


def test_a_name_fits_into_a_folder_and_into_json(tmp_path: Path) -> None:
    # A file system counts bytes, and takes any.
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    path.write_bytes(b"abc")
    file = File(path)
    assert file.name == "caf?.txt"
    assert from_json(json.loads(encode_value(File.stored(file.hashed())))).name == "caf?.txt"
    long = File(path, name="\u20ac" * 200)
    assert long.name == "\u20ac" * 80
    (tmp_path / "to").mkdir()
    assert long.save(tmp_path / "to").read_bytes() == b"abc"


@pytest.mark.parametrize("value", [
    {}, {"galley.file": {}}, {"galley.file": {"digest": "x", "size": 1}},
    {"galley.file": {"local": "0" * 16}},
    {"galley.file": {"digest": "a" * 64, "size": -1}}, "text", {"galley.file": None},
])  # fmt: skip
def test_what_is_no_file_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(value)
    assert with_files(value) == value


def test_an_argument_that_is_no_file_is_refused_at_once() -> None:
    with pytest.raises(InputInvalid, match="argument 'pair'"):
        swap.call(pair={"left": "a.txt"}, others=[])  # type: ignore[arg-type]


def test_a_path_without_a_file_is_refused_at_once(tmp_path: Path) -> None:
    nul = tmp_path / "a\0b"
    for path, problem in ((tmp_path / "none", "No such file"), (tmp_path, "not a file"), (nul, "zero byte")):
        with pytest.raises(FileUnreadable, match=problem):
            File(path)
    gone = a_file(tmp_path)
    gone.path().unlink()
    with pytest.raises(FileUnreadable, match="No such file"):
        gone.read()
    with pytest.raises(FileUnreadable, match="No such file"):
        gone.save(tmp_path / "nowhere" / "x")


async def test_a_path_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    file = a_file(tmp_path)
    with files_of("default", "files"):
        elsewhere = File.stored(STORED)
    path = file.path() / "x"
    with pytest.raises(FileUnreadable, match="Not a directory"):
        file.save(path)
    with pytest.raises(FileUnreadable, match="Not a directory"):
        await download(None, elsewhere, path)  # type: ignore[arg-type]
    longest = "x" * 255
    assert file.save(tmp_path / longest).name == longest
    assert sorted(os.listdir(tmp_path)) == ["a.txt", longest]  # noqa: PTH208


async def test_a_file_that_is_elsewhere_says_how_to_get_it(tmp_path: Path) -> None:
    file = File.stored(STORED)
    for use in (file.path, file.open, file.read):
        with pytest.raises(FileElsewhere, match="not on this machine"):
            use()
    with pytest.raises(FileElsewhere):
        await download(None, file, tmp_path)  # type: ignore[arg-type]
    assert (file.size, file.digest, file.here, file.hashed()) == (3, "a" * 64, False, STORED)


def test_a_file_knows_where_it_is_while_an_input_is_decoded(tmp_path: Path) -> None:
    file = a_file(tmp_path)
    reference = file.hashed()
    with files_here({f"{reference.digest}/a.txt": str(file.path())}):
        [found] = files_in(encode_value([File.stored(reference)]))
    assert found.read() == b"abc"
    assert found == File.stored(reference)
    assert {found: 1}[File.stored(reference)] == 1
    assert found != "a.txt"
    assert repr(found) == "<file 'a.txt', 3 bytes>"


async def test_a_file_that_changes_while_it_is_stored_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"x" * 100)
    content = FileContent(path)
    await content.digest()
    path.write_bytes(b"y" * 100)
    with pytest.raises(FileChanged, match="changed while it was read"):
        [piece async for piece in content.parts(10)]
    path.unlink()
    with pytest.raises(FileUnreadable, match="No such file"):
        [piece async for piece in content.parts(10)]
    with pytest.raises(FileUnreadable, match="No such file"):
        await FileContent(path).digest()
