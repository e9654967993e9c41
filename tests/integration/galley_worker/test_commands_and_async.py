"""Commands, `async def` handlers and output."""

import sys
from pathlib import Path

from galley_worker.ending import Cancelled, Crashed, TimedOut
from galley_worker.runners.runners import Runners
from galley_worker.runners.settings import CommandHandler
from tests.integration.galley_worker.trials import ended, failure, run, settings, start, until, value


async def test_a_command_reads_its_input_and_its_output_is_the_result() -> None:
    async with Runners(settings(CommandHandler("cat", ("cat",)), modules=())) as runners:
        told = value(await run(runners, "cat", a=1))
    assert (told["exitCode"], told["stdout"], told["stdoutBytes"]) == (0, '{"a":1}', 7)


async def test_commands_end_as_they_should() -> None:
    shell = CommandHandler("sh", ("sh", "-c"), "args")
    async with Runners(settings(shell, CommandHandler("none", ("/no/such",)), modules=())) as runners:
        three = await ended(start(runners, "sh", raw=b'["echo no >&2; exit 3"]'))
        assert failure(three) == ("CommandFailed", "exit code 3: no", True)
        assert await ended(start(runners, "sh", raw=b'["kill -9 $$"]')) == Crashed("signal 9 (SIGKILL)")
        assert failure(await run(runners, "none"))[::2] == ("CommandNotFound", False)
        assert failure(await run(runners, "sh"))[::2] == ("InputInvalid", False)
        assert value(await ended(start(runners, "sh", raw=b'["sleep 60 & exit 0"]'), 3))["exitCode"] == 0


async def test_a_command_that_ignores_sigterm_is_killed_after_the_grace() -> None:
    deaf = CommandHandler("deaf", ("sh", "-c", "trap '' TERM; while :; do sleep 1; done"))
    async with Runners(settings(deaf, modules=(), kill_grace_seconds=0.2)) as runners:
        assert await ended(start(runners, "deaf", timeout=0.2), 4) == TimedOut(0.2)


async def test_async_handlers_share_one_process_and_obey_a_cancel(tmp_path: Path) -> None:
    async with Runners(settings()) as runners:
        pair = [start(runners, "a_meet", folder=str(tmp_path), name=a, other=b) for a, b in ("ab", "ba")]
        assert [value(await ended(work)) for work in pair] == ["a", "b"]
        waiting = start(runners, "a_wait", mark=str(tmp_path / "m"))
        await until((tmp_path / "m").exists)
        waiting.stop(Cancelled())
        assert await ended(waiting, 2) == Cancelled()


async def test_two_hundred_megabytes_of_output_hurt_nobody() -> None:
    sizes: list[int] = []
    here = settings(on_output=lambda _work, _stream, line: sizes.append(len(line)))
    async with Runners(here) as runners:
        assert value(await ended(start(runners, "flood", megabytes=200), 15)) == 200
    assert sum(sizes) < 70_000, sys.getsizeof(sizes)
