"""How children start: modules that hang, starts that fail, and nothing left afterwards."""

import asyncio
import errno
import gc
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest

from galley_worker.ending import Crashed, CutOff
from galley_worker.errors import ModuleImportFailed
from galley_worker.runners.runners import Runners
from galley_worker.runners.settings import CommandHandler, Line, RunnerSettings
from tests.integration.galley_worker.trials import (
    alive,
    ended,
    open_descriptors,
    run,
    settings,
    start,
    until,
    value,
)  # fmt: skip

Children = Callable[[], list[psutil.Process]]

LEAKY = ("handlers_that_leak",)
HANGS = "import threading\nthreading.Event().wait()\n"
HANGS_IN_C = "sum(range(10**12))\n"
ONLY_ONCE = """
import os, pathlib
from galley.handler import task

@task(queue="trials")
def pid() -> int:
    return os.getpid()

closed = pathlib.Path({closed!r})
if closed.exists():
    with closed.open("a") as file:
        file.write("x")
    os._exit(2)
"""

LOOKS_FOR_THE_CLIENT = """
import sys
there = "galley.client" in sys.modules
import galley
{imports}

@galley.task(queue="trials")
def was_there() -> bool:
    return bool(galley.Client) and there
"""


@pytest.fixture
def new_children() -> Children:
    """What this process runs now and did not when the test began."""
    here = psutil.Process()
    before = set(here.children(recursive=True))
    return lambda: [child for child in here.children(recursive=True) if child not in before]


def written(folder: Path, name: str, text: str, **others: float) -> RunnerSettings:
    (folder / f"{name}.py").write_text(text)
    return RunnerSettings("trials", (name,), (str(folder),), **others)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "text"), [("hangs", HANGS), ("hangs_in_c", HANGS_IN_C)])
async def test_a_module_that_hangs_on_import_fails_in_bounded_time(
    tmp_path: Path, name: str, text: str, new_children: Children
) -> None:
    with pytest.raises(ModuleImportFailed, match=rf"module '{name}' does not import: it did not finish"):
        async with asyncio.timeout(5), Runners(written(tmp_path, name, text, import_seconds=0.5)):
            pass
    await until(lambda: not new_children())


async def test_a_worker_can_be_stopped_while_a_module_hangs(tmp_path: Path, new_children: Children) -> None:
    entering = asyncio.create_task(Runners(written(tmp_path, "hangs_too", HANGS)).__aenter__())
    await until(new_children)
    entering.cancel()
    done, _ = await asyncio.wait({entering}, timeout=5)
    assert entering in done
    assert entering.cancelled()
    await until(lambda: not new_children())


async def test_a_process_that_is_gone_before_it_is_named_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times, named = iter(range(100)), os.pidfd_open

    def open_late(process: int) -> int:
        if next(times) == 0:
            raise ProcessLookupError
        return named(process)

    monkeypatch.setattr(os, "pidfd_open", open_late)
    async with Runners(settings()) as runners:
        assert value(await run(runners, "pid")) > 0
    assert next(times) > 1


async def test_a_process_that_the_machine_does_not_allow_is_told_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_process: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(ModuleImportFailed, match=r"could not be made .*Too many open files"):
        async with Runners(settings()):
            pass


@pytest.mark.parametrize(
    ("name", "imports"),
    [
        ("client_first", "from galley import Client"),
        ("client_late", ""),
        ("client_async", "galley.AsyncClient"),
    ],
)
async def test_what_one_child_imported_of_the_client_later_ones_find_imported(
    name: str, imports: str, tmp_path: Path
) -> None:
    one_each = written(tmp_path, name, LOOKS_FOR_THE_CLIENT.format(imports=imports), recycle_tasks=1)
    async with Runners(one_each) as runners:
        assert value(await run(runners, "was_there")) is False
        while not value(await run(runners, "was_there")):
            pass


async def test_nothing_is_left_of_what_runners_made(tmp_path: Path, new_children: Children) -> None:
    # Whatever the process itself opens once, such as its entropy source, is open after the first round.
    command = CommandHandler("sleep", ("sleep", "60"))
    counts = []
    for number in range(3):
        async with Runners(settings(command)) as runners:
            works = [
                start(runners, "block", mark=str(tmp_path / f"{number}a")),
                start(runners, "a_wait", mark=str(tmp_path / f"{number}b")),
                start(runners, "sleep"),
            ]
            await until(lambda: len(list(tmp_path.glob(f"{number}?"))) == 2)  # noqa: B023
            await until(lambda: works[2].started_at)  # noqa: B023
        assert [await ended(work) for work in works] == [CutOff("the worker stops")] * 3
        await until(lambda: not new_children())
        counts.append(open_descriptors())
    assert counts[0] == counts[1] == counts[2]


async def test_leaving_in_an_error_leaves_nothing_for_the_collector_to_complain_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A complaint's traceback is made with ast.parse. When the collector runs in the middle of another one,
    # as pytest's while it reports a failure, CPython 3.11.7 ends that one in a SystemError about its depth.
    async def break_down() -> None:
        async with Runners(settings(CommandHandler("sleep", ("sleep", "60")))) as runners:
            start(runners, "block", mark=str(tmp_path / "a"))
            start(runners, "a_wait", mark=str(tmp_path / "b"))
            start(runners, "sleep")
            await until(lambda: len(list(tmp_path.iterdir())) == 2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await break_down()
    with pytest.raises(ModuleImportFailed):
        async with Runners(settings(modules=("no_such_module",))):
            pass
    await asyncio.sleep(0)
    gc.collect()
    assert caplog.records == []


async def test_works_that_wait_for_children_that_never_live_are_cut_off_until_some_live(
    tmp_path: Path,
) -> None:
    closed = tmp_path / "closed"
    told = written(tmp_path, "only_once", ONLY_ONCE.format(closed=str(closed)))
    async with Runners(told) as runners:
        child = value(await run(runners, "pid"))
        closed.touch()
        os.kill(fork_server_of(child), signal.SIGKILL)
        await until(lambda: not alive(child))
        ending = await ended(start(runners, "pid"))
        assert isinstance(ending, CutOff), ending
        assert "no child process survives its start" in ending.why
        assert len(closed.read_text()) >= 5
        work = start(runners, "pid")
        closed.unlink()
        assert value(await ended(work)) != child


async def test_the_death_of_the_fork_server_takes_its_children_and_costs_no_more(
    tmp_path: Path, new_children: Children
) -> None:
    async with Runners(settings()) as runners:
        mark = tmp_path / "m"
        work = start(runners, "block", mark=str(mark))
        await until(lambda: mark.exists() and mark.read_text())
        child = int(mark.read_text())
        server = fork_server_of(child)
        os.kill(server, signal.SIGKILL)
        assert isinstance(await ended(work), Crashed)
        assert not alive(child)
        assert value(await run(runners, "add", a=1)) == 2
        assert value(await run(runners, "a_add", a=1)) == 2
        assert fork_server_of(value(await run(runners, "pid"))) != server
    await until(lambda: not new_children())


async def test_a_preloaded_module_is_shared_and_the_log_names_threads_it_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIAL_FOLDER", str(tmp_path))
    lines: list[Line] = []
    async with Runners(settings(modules=LEAKY, preload=LEAKY, on_line=lines.append)) as runners:
        pair = [
            start(runners, "meet_inode", folder=str(tmp_path), name=one, other=other)
            for one, other in ("ab", "ba")
        ]
        first, second = [value(await ended(work)) for work in pair]
        assert first == second
        await until(lambda: any("preloaded modules started threads" in line.text for line in lines))


async def test_several_runners_live_in_one_process_and_leave_alone(
    tmp_path: Path, new_children: Children
) -> None:
    async with AsyncExitStack() as ends:
        first = await ends.enter_async_context(Runners(settings()))
        pid = value(await run(first, "pid"))
        async with Runners(settings()) as second:
            assert value(await run(second, "pid")) != pid
            assert value(await run(second, "a_add", a=1)) == 2
        told = written(tmp_path, "hangs_third", HANGS, import_seconds=0.5)
        with pytest.raises(ModuleImportFailed, match="did not finish"):
            async with Runners(told):
                pass
        assert value(await run(first, "pid")) == pid
    await until(lambda: not new_children())


def fork_server_of(child: int) -> int:
    return psutil.Process(child).ppid()
