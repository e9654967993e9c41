# ruff: noqa: ASYNC230, ASYNC240 - the files are small, and what blocks is the test
"""The cache of a machine: each object is fetched once, whichever process needs it, and checked."""

import asyncio
import fcntl
import hashlib
import multiprocessing
import os
import resource
from collections.abc import AsyncGenerator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from galley.objects import node_cache
from galley.objects.errors import CacheUnusable, FileChanged, ObjectDamaged, ObjectMissing
from galley.objects.node_cache import NodeCache, spooled, spooled_bytes
from galley.reference import Reference

MODEL = b"a model" * 10_000


def referring(data: bytes, name: str = "model.bin") -> Reference:
    return Reference(hashlib.sha256(data).hexdigest(), len(data), name=name)


class Source:
    """Yields some bytes, slowly, and counts how often."""

    def __init__(self, data: bytes = MODEL, error: Exception | None = None) -> None:
        self.data, self.error, self.times = data, error, 0

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        self.times += 1
        for start in range(0, len(self.data), 10_000):
            await asyncio.sleep(0)
            yield self.data[start : start + 10_000]
        if self.error is not None:
            raise self.error


async def test_a_second_use_fetches_nothing_and_the_file_has_its_name(tmp_path: Path) -> None:
    source, reference = Source(), referring(MODEL)
    with NodeCache(tmp_path / "cache") as cache:
        for _ in range(2):
            async with cache.holding([(reference, source)]) as places:
                path = Path(places[f"{reference.digest}/model.bin"])
                assert (path.name, path.read_bytes()) == ("model.bin", MODEL)
            assert not path.exists()
        assert (source.times, cache.hits, cache.fetches, cache.size) == (1, 1, 1, len(MODEL))


async def test_a_task_gets_no_object_of_another_queue_by_its_digest(tmp_path: Path) -> None:
    reference = referring(MODEL)
    missing = Source(b"", ObjectMissing("it", "the objects of the attacker's queue"))
    with NodeCache(tmp_path, queue="victim.models") as theirs, NodeCache(tmp_path, queue="mallory.q") as ours:
        async with theirs.holding([(reference, Source())]):
            pass
        with pytest.raises(ObjectMissing):
            async with ours.holding([(reference, missing)]):
                pytest.fail("it was handed out")
        # What the attacker stores itself is not what the victim reads.
        path, _, _ = spooled_bytes(ours.spool, b"!" * len(MODEL))
        ours.adopt(path, reference.digest)
        async with theirs.holding([(reference, missing)]) as places:
            assert Path(next(iter(places.values()))).read_bytes() == MODEL


@pytest.mark.parametrize(
    "name", ["../../../evil.pth", "/{folder}/evil.pth", "a/..", "x\0y", "\U0001f600" * 255]
)
async def test_no_name_of_a_task_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    """Any producer of the queue, in any language, writes the names of the files of its tasks."""
    name = name.replace("{folder}", str(tmp_path))
    with NodeCache(tmp_path / "a" / "b" / "cache") as cache:
        async with cache.holding([(referring(MODEL, name), Source())]) as places:
            [(key, place)] = places.items()
            assert key.partition("/")[2] == Path(place).name
            assert Path(place).resolve().parent == cache.folder / "use" / cache._own / "1" / "0"
            assert Path(place).read_bytes() == MODEL
        assert not list(tmp_path.rglob("evil.pth"))


async def test_many_at_once_fetch_once(tmp_path: Path) -> None:
    source, reference = Source(), referring(MODEL)
    with NodeCache(tmp_path) as cache:

        async def use() -> bytes:
            async with cache.holding([(reference, source)]) as places:
                return Path(next(iter(places.values()))).read_bytes()

        assert set(await asyncio.gather(*(use() for _ in range(20)))) == {MODEL}
    assert source.times == 1


def fetch_in_a_process(folder: str, log: str) -> int:
    """Use an object five times, and note each fetch."""

    async def fetch() -> AsyncGenerator[bytes, None]:
        with Path(log).open("a") as file:
            file.write(f"{os.getpid()}\n")
        await asyncio.sleep(0.05)
        yield MODEL

    async def use() -> int:
        found = 0
        with NodeCache(Path(folder)) as cache:
            for _ in range(5):
                async with cache.holding([(referring(MODEL), fetch)]) as places:
                    found += Path(next(iter(places.values()))).read_bytes() == MODEL
        return found

    return asyncio.run(use())


def test_processes_that_share_it_fetch_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    fork = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=fork) as pool:
        runs = [pool.submit(fetch_in_a_process, str(tmp_path / "cache"), str(log)) for _ in range(3)]
        assert [run.result(60) for run in runs] == [5, 5, 5]
    assert len(log.read_text().splitlines()) == 1


async def test_what_is_not_the_right_content_is_not_kept(tmp_path: Path) -> None:
    damaged = ObjectDamaged("it", "the store", "its digest differs")
    with NodeCache(tmp_path) as cache:
        with pytest.raises(ObjectDamaged):
            async with cache.holding([(referring(MODEL), Source(error=damaged))]):
                pytest.fail("it was handed out")
        assert (cache.size, list((tmp_path / "partial").iterdir())) == (0, [])


async def test_a_file_that_was_written_to_is_fetched_again(tmp_path: Path) -> None:
    source, reference = Source(), referring(MODEL)
    with NodeCache(tmp_path) as cache:
        async with cache.holding([(reference, source)]) as places:
            path = Path(next(iter(places.values())))
            path.chmod(0o600)
            path.write_bytes(b"!" * len(MODEL))
        async with cache.holding([(reference, source)]) as places:
            assert Path(next(iter(places.values()))).read_bytes() == MODEL
    assert source.times == 2


async def test_room_is_made_by_the_longest_unused_and_takes_nothing_from_those_in_use(tmp_path: Path) -> None:
    first, second = b"1" * 600, b"2" * 600
    with NodeCache(tmp_path, limit=1000) as cache:
        async with cache.holding([(referring(first), Source(first))]) as held:
            async with cache.holding([(referring(second), Source(second))]):
                assert cache.size == 600
            assert Path(next(iter(held.values()))).read_bytes() == first
        again = Source(second)
        async with cache.holding([(referring(second), again)]):
            assert again.times == 0


async def test_a_full_disk_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with NodeCache(tmp_path) as cache:
        monkeypatch.setattr(node_cache, "_complete", full)
        with pytest.raises(CacheUnusable, match="No space left") as refused:
            async with cache.holding([(referring(MODEL), Source())]):
                pytest.fail("it was handed out")
        assert "GALLEY_CACHE" in refused.value.hint
        monkeypatch.setattr(node_cache, "_complete", broken)
        with pytest.raises(OSError, match="Input/output"):
            async with cache.holding([(referring(MODEL), Source())]):
                pytest.fail("it was handed out")
        # What is stored already need not be kept here, too.
        path, digest, _ = spooled_bytes(cache.spool, b"a result")
        cache.adopt(path, digest)
        assert not path.exists()


def test_a_folder_that_cannot_be_made_or_is_another_users_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheUnusable), NodeCache(tmp_path / "file" / "cache"):
        pass
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(CacheUnusable, match="belongs to another user"), NodeCache(tmp_path / "cache"):
        pass


async def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = NodeCache(tmp_path)
    left.__enter__()
    spooled_bytes(left.spool, b"a result")
    (tmp_path / "partial" / f"x.{left._own}").write_text("")
    with NodeCache(tmp_path):
        assert left.spool.exists()  # it lives
    assert left._life is not None
    os.close(left._life)  # as the kernel does when a process dies
    left._life = None
    with NodeCache(tmp_path):
        assert not left.spool.exists()
        assert list((tmp_path / "partial").iterdir()) == []


def test_a_file_that_changes_while_it_is_copied_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"x" * 3 * 1024**2)
    with path.open("rb") as source:
        read = source.read

        class Growing:
            name = str(path)

            def fileno(self) -> int:
                return source.fileno()

            def read(self, size: int) -> bytes:
                block = read(size)
                if len(block) == 1024**2 and path.stat().st_size == 3 * 1024**2:
                    with path.open("ab") as more:
                        more.write(b"y")
                return block

        with pytest.raises(FileChanged, match="growing changed while it was read"):
            spooled(tmp_path, Growing())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [path]


def test_what_there_is_of_a_copy_that_cannot_be_written_is_removed(tmp_path: Path) -> None:
    """A worker would keep it until its own end, for each attempt that returns it."""
    (tmp_path / "large").write_bytes(b"x" * 2 * 1024**2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with NodeCache(tmp_path / "cache") as cache, (tmp_path / "large").open("rb") as source:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024**2, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                spooled_bytes(cache.spool, b"x" * 2 * 1024**2)
            with pytest.raises(OSError, match="File too large"):
                spooled(cache.spool, source)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert list(cache.spool.iterdir()) == []


async def test_what_was_just_fetched_is_there_though_its_room_is_needed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = node_cache._complete

    def complete_and_make_room(path: Path, content: Path) -> None:
        complete(path, content)
        content.unlink()  # as another process does that has fetched something at the same time

    monkeypatch.setattr(node_cache, "_complete", complete_and_make_room)
    with NodeCache(tmp_path) as cache:
        async with cache.holding([(referring(MODEL), Source())]) as places:
            assert Path(next(iter(places.values()))).read_bytes() == MODEL


def test_a_process_that_begins_is_not_taken_for_one_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pods of one node that start together: the other one looks before this one holds its lock."""
    lock = fcntl.flock
    with ExitStack() as others:

        def after_another_began(number: int, how: int) -> None:
            monkeypatch.undo()
            others.enter_context(NodeCache(tmp_path))
            lock(number, how)

        monkeypatch.setattr("galley.objects.node_cache.fcntl.flock", after_another_began)
        with NodeCache(tmp_path) as cache:
            assert cache.spool.is_dir()
            assert len(list((tmp_path / "alive").iterdir())) == 2
            others.enter_context(NodeCache(tmp_path))
            assert cache.spool.is_dir()


async def test_an_entry_that_is_gone_when_it_is_looked_at_counts_for_nothing(tmp_path: Path) -> None:
    source, reference = Source(), referring(MODEL)
    with NodeCache(tmp_path / "cache") as cache:
        (tmp_path / "cache" / "content" / "gone").symlink_to(tmp_path / "none")
        async with cache.holding([(reference, source)]):
            cache.make_room()
        assert cache.size == len(MODEL)
