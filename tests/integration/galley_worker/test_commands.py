"""Commands: programs a queue declares."""

import asyncio
import os
from pathlib import Path
from typing import cast

import pytest

from galley_worker.ending import Cancelled, Crashed, Finish, NotBegun, TimedOut
from galley_worker.runners.commands import Commands
from galley_worker.runners.runners import Runners
from galley_worker.runners.settings import CommandHandler, RunnerSettings
from tests.integration.galley_worker.trials import (
    alive,
    ended,
    failure,
    open_descriptors,
    run,
    settings,
    start,
    until,
    value,
)  # fmt: skip

SHELL = CommandHandler("sh", ("sh", "-c"), "args")


def commands(*handlers: CommandHandler, **others: float) -> RunnerSettings:
    return settings(*handlers, modules=(), **others)


async def shell(runners: Runners, script: str, *, within: float = 10.0, may_take: float = 30.0) -> Finish:
    text = script.replace("\\", "\\\\").replace('"', '\\"')
    return await ended(start(runners, "sh", raw=f'["{text}"]'.encode(), timeout=may_take), within)


async def test_a_command_reads_its_input_and_its_output_is_the_result() -> None:
    async with Runners(commands(CommandHandler("cat", ("cat",)))) as runners:
        told = value(await run(runners, "cat", a=1))
    assert (told["exitCode"], told["stdout"], told["stdoutBytes"]) == (0, '{"a":1}', 7)


async def test_a_command_learns_its_task_from_its_environment() -> None:
    async with Runners(commands(SHELL)) as runners:
        told = value(await shell(runners, "echo $GALLEY_TASK_ID $GALLEY_TASK_QUEUE $GALLEY_TASK_ATTEMPT"))
    task_id, *others = told["stdout"].split()
    assert task_id.startswith("t")
    assert others == ["trials", "1"]


async def test_an_exit_code_is_a_failure_and_a_signal_is_a_crash() -> None:
    async with Runners(commands(SHELL)) as runners:
        three = await shell(runners, "echo no >&2; exit 3")
        assert failure(three) == ("CommandFailed", "exit code 3: no", True)
        assert await shell(runners, "kill -9 $$") == Crashed("signal 9 (SIGKILL)")


async def test_a_program_that_is_not_there_is_never_tried_again() -> None:
    async with Runners(commands(CommandHandler("none", ("/no/such",)))) as runners:
        reason, message, retryable = failure(await run(runners, "none"))
    assert (reason, retryable) == ("CommandNotFound", False)
    assert "'/no/such'" in message


TOO_LONG_FOR_AN_ARGUMENT = b'["%s"]' % (b"x" * 200_000)


async def test_a_program_that_cannot_be_started_is_named_and_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "garbage"
    program.write_bytes(b"\x7fELF and no more")
    program.chmod(0o755)
    async with Runners(commands(CommandHandler("odd", (str(program),)))) as runners:
        reason, message, retryable = failure(await run(runners, "odd"))
    assert (reason, retryable) == ("CommandNotStarted", True)
    assert "command 'odd' could not be started: " in message
    assert "Exec format error" in message


@pytest.mark.parametrize(
    "raw", [b'{"a":1}', b'"text"', b'["a\\u0000b"]', b"not json", TOO_LONG_FOR_AN_ARGUMENT],
    ids=lambda raw: raw[:12].decode(),
)  # fmt: skip
async def test_input_that_cannot_be_arguments_is_never_tried_again(raw: bytes) -> None:
    async with Runners(commands(SHELL)) as runners:
        assert failure(await ended(start(runners, "sh", raw=raw)))[::2] == ("InputInvalid", False)


@pytest.mark.parametrize(
    "script",
    [
        "sleep 60 & exit 0",
        "exec >&- 2>&-; exit 0",
        "exec >&- 2>&-; sleep 0.2; exit 0",
        "setsid sleep 60 & exit 0",
    ],
    ids=["background child holds the pipes", "closes them", "closes them early", "a stray holds them"],
)
async def test_a_command_has_ended_when_its_program_has(script: str) -> None:
    async with Runners(commands(SHELL)) as runners:
        assert value(await shell(runners, script, within=30))["exitCode"] == 0


async def test_the_last_words_of_a_command_are_in_its_result_though_others_hold_its_pipes() -> None:
    async with Runners(commands(SHELL)) as runners:
        told = value(await shell(runners, "sleep 60 & echo first; echo last", within=30))
    assert told["stdout"] == "first\nlast\n"


async def test_of_much_output_a_command_keeps_the_end() -> None:
    lines: list[str] = []
    here = settings(SHELL, modules=(), on_line=lambda line: lines.append(line.text))
    async with Runners(here) as runners:
        told = value(await shell(runners, "yes | head -c 50000000; echo the end", within=60))
    assert told["stdoutBytes"] == 50_000_000 + len("the end\n")
    assert told["stdout"].endswith("y\nthe end\n")
    assert len(told["stdout"]) == 32 * 1024
    assert sum(map(len, lines)) < 70_000
    assert "bytes of output dropped" in lines[-1]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_a_command_of_another_user_that_takes_no_signal_from_here_still_ends_its_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is run by `sudo`, from a worker that is not root."""
    monkeypatch.setattr("galley_worker.runners.commands._DEATH_SECONDS", 0.01)
    ready = tmp_path / "ready"
    async with Runners(commands(SHELL)) as runners:
        work = start(runners, "sh", raw=f'["touch {ready}; exec sleep 1000"]'.encode())
        await until(ready.exists)
        programs = cast("Commands", runners._runners[0])._subprocesses
        await until(lambda: programs)
        running = programs[work]
        os.setresuid(65534, 65534, 0)
        try:
            work.stop(Cancelled())
            running.kill()
        finally:
            os.setresuid(0, 0, 0)
        assert await ended(work) == Cancelled()
        running._popen.wait(30)


async def test_a_fault_in_what_follows_a_command_costs_its_attempt(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("out of luck")

    async with Runners(commands(SHELL)) as runners:
        monkeypatch.setattr("galley_worker.runners.commands._arguments", refuse)
        assert await shell(runners, "true") == Crashed("the program failed: RuntimeError: out of luck")
    assert [one.message for one in caplog.records if one.exc_info] == ["unexpected error"]


async def test_a_command_that_obeys_sigterm_is_not_killed(tmp_path: Path) -> None:
    ready, told = tmp_path / "ready", tmp_path / "told"
    script = f"trap 'echo tidy > {told}; exit 0' TERM; touch {ready}; while :; do sleep 0.01; done"
    async with Runners(commands(SHELL)) as runners:
        work = start(runners, "sh", raw=f'["{script}"]'.encode())
        await until(ready.exists)
        work.stop(Cancelled())
        assert await ended(work) == Cancelled()
        assert told.read_text() == "tidy\n"


async def test_a_command_that_ignores_sigterm_is_killed_with_its_children_after_the_grace(
    tmp_path: Path,
) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $$ $! > {pids}; while :; do sleep 1; done"
    async with Runners(commands(SHELL, kill_grace_seconds=0.2)) as runners:
        assert await shell(runners, script, may_take=3.0, within=30) == TimedOut(3.0)
        family = [int(pid) for pid in pids.read_text().split()]
        await until(lambda: not any(alive(pid) for pid in family))


async def test_a_command_that_does_not_read_a_large_input_blocks_nothing_else() -> None:
    async with Runners(commands(CommandHandler("true", ("true",)))) as runners:
        assert value(await run(runners, "true", text="x" * 1_000_000))["exitCode"] == 0


async def test_commands_beyond_the_concurrency_do_not_run_and_are_released(tmp_path: Path) -> None:
    count = f"ls {tmp_path} | wc -l"
    script = f"mkdir {tmp_path}/$$; {count}; sleep 0.5; {count}; rmdir {tmp_path}/$$"
    async with Runners(commands(SHELL, concurrency=2)) as runners:
        endings = await asyncio.gather(*(shell(runners, script) for _ in range(5)))
    ran = [ending for ending in endings if not isinstance(ending, NotBegun)]
    seen = [int(number) for ending in ran for number in value(ending)["stdout"].split()]
    assert len(ran) == 2
    assert max(seen) == 2


async def test_a_hundred_commands_leave_no_descriptor_open() -> None:
    async with Runners(commands(SHELL, concurrency=8)) as runners:
        await shell(runners, "true")
        before = open_descriptors()
        await asyncio.gather(*(shell(runners, "echo x; exit 1") for _ in range(100)))
        assert open_descriptors() == before
