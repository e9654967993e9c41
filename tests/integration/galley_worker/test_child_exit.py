"""Whatever is killed outright, no process is left behind, and no other task pays for it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from galley_worker.ending import Cancelled, Crashed, CutOff, TimedOut
from galley_worker.runners.pool import Pool
from galley_worker.runners.runners import Runners
from galley_worker.runners.settings import CommandHandler, Line
from tests.integration.galley_worker.trials import alive, ended, run, settings, start, until, value
from tests.support.cannot_run import cannot_run

ROOT = Path(__file__).parents[3]


IN_A_POD = "unshare", "--pid", "--fork", "--mount-proc"
"""The supervisor is the first process of a PID namespace, as in a pod; these commands do not end with it."""


def there_are_pods() -> bool:
    return not subprocess.run([*IN_A_POD, "true"], check=False, capture_output=True).returncode


def a_host(folder: Path, *within: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*within, sys.executable, "-m", "tests.integration.galley_worker.host", str(folder)], cwd=ROOT
    )


async def test_a_supervisor_killed_outright_in_a_pod_takes_everything_along(tmp_path: Path) -> None:
    if not there_are_pods():
        cannot_run("A PID namespace", "it takes root, or a kernel that lets others make one")
    host = a_host(tmp_path, *IN_A_POD)
    try:
        await until(lambda: len([file for file in tmp_path.iterdir() if file.read_text()]) == 8, within=60)
        family = psutil.Process(host.pid).children(recursive=True)
        assert len([one for one in family if one.name() == "sleep"]) == 4
        family[0].kill()
    finally:
        host.wait()
    await until(lambda: not any(alive(one.pid) for one in family))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
async def test_a_supervisor_killed_outright_takes_everything_along(
    tmp_path: Path, number: signal.Signals
) -> None:
    host = a_host(tmp_path)
    family: list[int] = []
    try:
        await until(lambda: len([file for file in tmp_path.iterdir() if file.read_text()]) == 8, within=60)
        family = [child.pid for child in psutil.Process(host.pid).children(recursive=True)]
        family += [int((tmp_path / name).read_text()) for name in ("stray", "bare", "bare_of_handler")]
        assert len(family) >= 14, "server, tracker, sweeper, four children, a command and its five"
    finally:
        host.send_signal(number)
        host.wait()
    await until(lambda: not any(alive(one) for one in family))


async def test_a_programs_stray_child_ends_with_its_attempt(tmp_path: Path) -> None:
    script = "setsid sh -c 'echo $$ > {0}; exec sleep 1000' & while ! test -s {0}; do sleep 0.01; done"
    stray = tmp_path / "stray"
    command = CommandHandler("strays", ("sh", "-c", script.format(stray)))
    lines: list[Line] = []
    async with Runners(settings(command, modules=(), on_line=lines.append)) as runners:
        assert value(await run(runners, "strays"))["exitCode"] == 0
        assert not alive(int(stray.read_text()))
    assert [line.stream for line in lines if "sleep (pid" in line.text] == ["galley"]


async def test_a_programs_stray_child_that_has_an_environment_of_its_own_ends_with_its_attempt(
    tmp_path: Path,
) -> None:
    script = "env -i setsid sh -c 'echo $$ > {0}; exec sleep 1000' & while ! test -s {0}; do sleep 0.01; done"
    strays = [
        CommandHandler(f"strays{number}", ("sh", "-c", script.format(tmp_path / str(number))))
        for number in range(2)
    ]
    waits = CommandHandler("waits", ("sh", "-c", f"env -i sh -c 'echo $$ > {tmp_path}/waits; sleep 1000'"))
    async with Runners(settings(*strays, waits, modules=(), concurrency=2)) as runners:
        other = start(runners, "waits")
        await until((tmp_path / "waits").exists)
        for number in range(2):
            assert value(await run(runners, f"strays{number}"))["exitCode"] == 0
            assert not alive(int((tmp_path / str(number)).read_text()))
        assert alive(int((tmp_path / "waits").read_text())), "that of another program goes on"
        other.stop(Cancelled())
        assert await ended(other) == Cancelled()


async def test_of_async_works_in_a_dead_child_the_one_that_ran_crashed_and_the_others_are_handed_back(
    tmp_path: Path,
) -> None:
    gate, killers_gate = tmp_path / "gate", tmp_path / "killer"
    async with Runners(settings(concurrency=4)) as runners:
        names = ["a", "b", "c"]
        innocent = [start(runners, "a_once", mark=str(tmp_path / name), gate=str(gate)) for name in names]
        guilty = start(runners, "a_die", gate=str(killers_gate))
        await until(lambda: all((tmp_path / name).exists() for name in names))
        killers_gate.touch()
        assert await ended(guilty) == Crashed("exit code 7")
        for work in innocent:
            ending = await ended(work)
            assert isinstance(ending, CutOff)
            assert guilty.work.task_id in ending.why
        assert value(await run(runners, "a_add", a=1)) == 2
    assert [len((tmp_path / name).read_text().split()) for name in names] == [1, 1, 1]


def all_wait(runners: Runners, *marks: Path) -> bool:
    """Return whether async handlers have begun and none of their code runs, so that none is to blame."""
    pools = [one for one in runners._runners if isinstance(one, Pool)]
    return all(mark.exists() for mark in marks) and all(
        child.holder() is None for one in pools for child in one.children
    )


async def test_if_it_is_not_known_which_async_work_killed_its_child_each_runs_again_alone_and_its_log_says_so(
    tmp_path: Path,
) -> None:
    lines: list[Line] = []
    async with Runners(settings(concurrency=4, on_line=lines.append)) as runners:
        works = {one: start(runners, "a_wait", mark=str(tmp_path / one)) for one in "abc"}
        await until(lambda: all_wait(runners, *(tmp_path / one for one in "abc")))
        os.kill(int((tmp_path / "a").read_text()), signal.SIGKILL)
        for one, work in works.items():
            await until(lambda: len((tmp_path / one).read_text().split()) == 2)  # noqa: B023
            work.stop(Cancelled())
            assert await ended(work) == Cancelled()
    told = {line.work.task_id for line in lines if line.work and "run again, alone" in line.text}
    assert told == {work.work.task_id for work in works.values()}


async def test_a_suspect_that_is_cancelled_while_it_waits_to_run_alone_never_runs(tmp_path: Path) -> None:
    async with Runners(settings(concurrency=3)) as runners:
        works = [start(runners, "a_wait", mark=str(tmp_path / one)) for one in "ab"]
        await until(lambda: all_wait(runners, tmp_path / "a", tmp_path / "b"))
        os.kill(int((tmp_path / "a").read_text()), signal.SIGKILL)
        await until(lambda: len((tmp_path / "a").read_text().split()) == 2)
        for work in reversed(works):
            work.stop(Cancelled())
            assert await ended(work) == Cancelled()
    assert len((tmp_path / "b").read_text().split()) == 1


@pytest.mark.parametrize("handler", ["a_wait", "a_stick"])
async def test_an_async_handler_that_does_not_stop_is_killed_and_the_others_are_handed_back(
    tmp_path: Path, handler: str
) -> None:
    gate = tmp_path / "gate"
    async with Runners(settings(kill_grace_seconds=0.2)) as runners:
        innocent = start(runners, "a_once", mark=str(tmp_path / "once"), gate=str(gate))
        await until((tmp_path / "once").exists)
        more: dict[str, Any] = {"obey": False} if handler == "a_wait" else {}
        deaf = start(runners, handler, mark=str(tmp_path / "deaf"), timeout=0.5, **more)
        await until((tmp_path / "deaf").exists)
        if handler == "a_wait":
            deaf.stop(Cancelled())
        assert await ended(deaf) == (Cancelled() if handler == "a_wait" else TimedOut(0.5))
        other = await ended(innocent)
        assert isinstance(other, CutOff)
        assert deaf.work.task_id in other.why
    assert len((tmp_path / "once").read_text().split()) == 1


async def test_sys_exit_in_an_async_handler_ends_the_attempt_alone(tmp_path: Path) -> None:
    async with Runners(settings()) as runners:
        before = value(await run(runners, "a_pid"))
        await run(runners, "a_exit")
        assert value(await run(runners, "a_pid")) == before
    assert not alive(before)


async def test_a_child_killed_from_outside_while_idle_costs_nothing() -> None:
    async with Runners(settings()) as runners:
        before = value(await run(runners, "pid"))
        os.kill(before, signal.SIGKILL)
        assert value(await run(runners, "pid")) != before
