"""Workers that are forks of a process that has imported for them."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from galley_local import warm_start
from galley_local.warm_start import Forked, WarmStarter
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue

WITHOUT_A_QUEUE = {"GALLEY_WORKER": "w1", "GALLEY_SERVER": "nats://127.0.0.1:1"}
"""A worker with these settings ends with the advice to name a queue."""


@asynccontextmanager
async def started(
    starter: WarmStarter, folder: Path, settings: Mapping[str, str] = WITHOUT_A_QUEUE
) -> AsyncIterator[Forked]:
    with (folder / "log").open("ab") as log:
        process = await starter.start({**os.environ, **settings}, folder, log.fileno())
    try:
        yield process
    finally:
        process.close()


def a_manifest(folder: Path) -> dict[str, str]:
    """Return settings of a worker that goes on trying to reach its server."""
    manifest = a_task_queue("n").model_dump_json(by_alias=True)
    (folder / "queue.json").write_text(manifest)
    return {**WITHOUT_A_QUEUE, "GALLEY_QUEUE_MANIFEST": str(folder / "queue.json"), "GALLEY_HEALTH_PORT": "0"}


def over(process: psutil.Process) -> bool:
    """Return whether a process has ended; who inherits it may be slow to collect it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


async def test_a_worker_is_a_program_of_its_own(starter: WarmStarter, tmp_path: Path) -> None:
    async with started(starter, tmp_path, a_manifest(tmp_path)) as process:
        worker = psutil.Process(process.pid)
        await eventually(lambda: worker.cwd() == str(tmp_path), within=60)
        assert os.getsid(process.pid) == process.pid
        files = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)]  # noqa: PTH115 - of /proc
        assert files == [os.devnull, str(tmp_path / "log"), str(tmp_path / "log")]
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) in {0, 3}
        process.send_signal(signal.SIGTERM)  # it has ended: nothing happens


async def test_why_a_worker_cannot_start_is_in_its_log(starter: WarmStarter, tmp_path: Path) -> None:
    async with started(starter, tmp_path) as process:
        assert await asyncio.wait_for(process.wait(), 60) > 0
    assert "GALLEY_QUEUE_MANIFEST" in (tmp_path / "log").read_text().upper()


async def test_an_environment_may_have_any_size_and_any_bytes(starter: WarmStarter, tmp_path: Path) -> None:
    large = {f"LARGE_{number}": "x" * 100_000 for number in range(10)} | {"ODD": "\udcff\u00fc\n"}
    async with started(starter, tmp_path, {**WITHOUT_A_QUEUE, **large}) as process:
        assert await asyncio.wait_for(process.wait(), 60) > 0


async def test_a_folder_that_is_gone_ends_the_worker_alone(starter: WarmStarter, tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as log:
        process = await starter.start({**os.environ}, tmp_path / "gone", log.fileno())
    assert await asyncio.wait_for(process.wait(), 60) == 1
    assert "FileNotFoundError" in (tmp_path / "log").read_text()
    process.close()
    async with started(starter, tmp_path) as another:
        assert await asyncio.wait_for(another.wait(), 60) > 0


async def test_what_is_no_longer_waited_for_is_killed(starter: WarmStarter, tmp_path: Path) -> None:
    async with started(starter, tmp_path, a_manifest(tmp_path)) as process:
        worker = psutil.Process(process.pid)
    await eventually(lambda: over(worker), within=60)


async def test_workers_end_with_the_process_that_starts_them_and_others_can_be_started(
    tmp_path: Path,
) -> None:
    with WarmStarter() as own:
        async with started(own, tmp_path, a_manifest(tmp_path)) as process:
            parent = psutil.Process(process.pid).parent()
            assert parent is not None
            parent.kill()
            assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
        async with started(own, tmp_path, a_manifest(tmp_path)) as another:
            other = psutil.Process(another.pid)
            assert other.is_running()
    await eventually(lambda: over(other), within=60)


async def test_one_that_stands_still_is_given_up_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_start, "_START_SECONDS", 0.2)
    before = psutil.Process().children()
    with WarmStarter() as own:
        [frozen] = [each for each in psutil.Process().children() if each not in before]
        frozen.suspend()
        with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
            async with started(own, tmp_path):
                pass
        assert not frozen.is_running()  # the next start has another one


async def test_a_program_that_cannot_be_found_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(FileNotFoundError):
        WarmStarter().__enter__()
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only the names are used
    with pytest.raises(FileNotFoundError):
        await WarmStarter().start({}, tmp_path, 2)
    assert set(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


SECOND_FORK_FAILS = """
import errno, os

fork, forks = os.fork, []

def fail_once():
    forks.append(len(forks))
    if len(forks) == 2:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()

os.fork = fail_once
"""


async def test_a_fork_that_is_refused_costs_that_start_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SECOND_FORK_FAILS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with WarmStarter() as own:
        async with started(own, tmp_path, a_manifest(tmp_path)) as process:
            with pytest.raises(BlockingIOError, match="temporarily unavailable"):
                async with started(own, tmp_path):
                    pass
            async with started(own, tmp_path) as another:
                assert await asyncio.wait_for(another.wait(), 60) > 0
            assert psutil.Process(process.pid).is_running()


LIMIT_IS_LOWERED = """
import os, resource
from galley_local.warm_start import streams

os.dup2(0, 200)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
streams(1, 2)
print(*os.listdir("/proc/self/fd"))
"""


async def test_no_file_of_before_stays_open_whatever_the_limit_is() -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LIMIT_IS_LOWERED, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await program.communicate()
    assert set(said.split()) == {b"0", b"1", b"2", b"3"}  # the last is that of the list
