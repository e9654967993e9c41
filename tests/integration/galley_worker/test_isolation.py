"""Isolation: what a handler leaves in its process, starts or changes reaches no other task."""

import asyncio
import multiprocessing
import os
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from galley_worker.ending import Cancelled, Crashed, NotBegun, TimedOut
from galley_worker.errors import StartHookFailed
from galley_worker.runners.runners import Runners
from galley_worker.runners.settings import Line, RunnerSettings
from tests.integration.galley_worker.trials import alive, ended, failure, run, settings, start, until, value

MODULE = ("handlers_that_leak",)
pytestmark = pytest.mark.usefixtures("folder")


def leaky(**others: Any) -> RunnerSettings:
    return settings(modules=MODULE, **others)


def notes(folder: Path) -> list[tuple[str, int]]:
    """Return what handlers and hooks noted, with their processes."""
    file = folder / "notes"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(line.rpartition(" ")[0], int(line.rpartition(" ")[2])) for line in lines]


async def test_a_connection_that_a_module_opens_is_not_shared_and_its_threads_live(folder: Path) -> None:
    async with Runners(leaky()) as runners:
        pair = [
            start(runners, "meet_inode", folder=str(folder), name=one, other=other)
            for one, other in ("ab", "ba")
        ]
        first, second = [value(await ended(work)) for work in pair]
        assert first != second
        assert value(await run(runners, "thread_lives")) is True


async def test_hooks_run_in_each_process_and_an_idle_one_ends_in_order(folder: Path) -> None:
    async with Runners(leaky()) as runners:
        plain = value(await run(runners, "write_buffered", text="kept"))
        concurrent = value(await run(runners, "a_pid_of_loop"))
        assert (folder / "buffered").read_text() == ""
    assert (folder / "buffered").read_text() == "kept"
    seen = notes(folder)
    assert [what for what, process in seen if process == plain] == ["start", "stop", "atexit"]
    assert [what for what, process in seen if process == concurrent] == [
        "start", "async start", "async stop", "stop",
    ]  # fmt: skip


async def test_a_start_hook_that_raises_keeps_the_worker_from_starting(tmp_path: Path) -> None:
    (tmp_path / "bad_hook.py").write_text(
        "import galley\n@galley.on_start\ndef connect():\n    raise ValueError('no database')\n"
        "@galley.task(queue='trials')\ndef work(): ...\n"
    )
    with pytest.raises(StartHookFailed) as raised:
        async with Runners(RunnerSettings("trials", ("bad_hook",), (str(tmp_path),))):
            pass
    assert "bad_hook.connect" in str(raised.value)
    assert "ValueError: no database" in str(raised.value)
    assert "raise ValueError" in raised.value.trace


async def test_a_stop_hook_that_hangs_is_killed_and_the_log_says_so(tmp_path: Path) -> None:
    (tmp_path / "slow_end.py").write_text(
        "import galley, threading\n@galley.on_stop\ndef wait():\n    threading.Event().wait()\n"
        "@galley.task(queue='trials')\ndef work(): ...\n"
    )
    lines: list[Line] = []
    told = RunnerSettings("trials", ("slow_end",), (str(tmp_path),), leave_seconds=0.2, on_line=lines.append)
    async with asyncio.timeout(20), Runners(told) as runners:
        await run(runners, "work")
    assert [line for line in lines if "did not end within 0.2 s" in line.text]


@pytest.mark.parametrize(("look", "change"), [("look", "change"), ("a_look", "a_change")])
async def test_what_a_task_changes_in_its_process_is_put_back(look: str, change: str) -> None:
    async with Runners(leaky(concurrency=1)) as runners:
        before = value(await run(runners, look))
        assert before[0] == "of the hook"
        changed = value(await run(runners, change))
        assert changed[0] == "customer"
        assert all(one != other for one, other in zip(before, changed, strict=True))
        assert value(await run(runners, look)) == before


async def test_what_fails_at_the_end_of_a_process_is_told_and_keeps_nothing_else_from_its_end(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad_end.py").write_text(
        "import galley, logging\nkept, full = [], []\n"
        "@galley.on_stop\ndef last():\n    raise ValueError('already closed')\n"
        "@galley.task(queue='trials')\ndef work(path: str):\n"
        "    full.append(open('/dev/full', 'w')), kept.append(open(path, 'w'))\n"
        "    full[0].write('lost'), kept[0].write('kept')\n"
        "    logging.getLogger('bad_end').warning('%d files', 'many')\n"
    )
    lines: list[Line] = []
    told = RunnerSettings("trials", ("bad_end",), (str(tmp_path),), on_line=lines.append)
    async with Runners(told) as runners:
        assert value(await run(runners, "work", path=str(folder / "kept"))) is None
    assert (folder / "kept").read_text() == "kept"
    said = [line.text for line in lines]
    assert "on_stop hook bad_end.last failed" in said
    assert "ValueError: already closed" in said
    assert "--- Logging error ---" in said


@pytest.mark.parametrize(("change", "look"), [("give_up", "see_rights"), ("a_give_up", "a_see_rights")])
async def test_a_process_in_which_a_change_cannot_be_put_back_runs_no_other_task(
    change: str, look: str
) -> None:
    async with Runners(leaky(concurrency=1)) as runners:
        before = value(await run(runners, look))
        # All at once, so that some wait in the process whose rights are given up.
        works = [start(runners, one) for one in (change, look, look, look)]
        changed, *others = [await ended(one) for one in works]
        process = value(changed)[0]
        assert value(changed) != [process, *before[1:]]
        seen = [value(one) for one in others if not isinstance(one, NotBegun)]
        seen.append(value(await run(runners, look)))
        assert process not in {one[0] for one in seen}
        assert [one[1:] for one in seen] == [before[1:]] * len(seen)


async def test_a_trace_function_that_raises_after_its_handler_fails_that_handler_alone() -> None:
    async with Runners(leaky(concurrency=1)) as runners:
        process = value(await run(runners, "see_rights"))[0]
        assert failure(await run(runners, "trace_badly")) == ("HandlerRaised", "RuntimeError: refused", True)
        assert value(await run(runners, "see_rights"))[0] == process


async def test_what_a_task_sets_of_its_event_loop_reaches_no_other_task() -> None:
    async with Runners(leaky(concurrency=1)) as runners:
        process = value(await run(runners, "a_see_rights"))[0]
        assert value(await run(runners, "a_spoil_loop")) == [None, None, False]
        assert value(await run(runners, "a_spoil_loop")) == [None, None, False]
        assert value(await run(runners, "a_end_threads")) == process
        # No loop gets its threads again, so another process runs the next one.
        assert value(await run(runners, "a_pid_in_thread")) != process


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("raise", 1), ("exit", 7)])
@pytest.mark.parametrize("handler", ["fork", "a_fork"])
async def test_a_copy_of_its_process_that_leaves_a_handler_ends_and_answers_nothing(
    handler: str, how: str, code: int
) -> None:
    lines: list[Line] = []
    async with Runners(leaky(concurrency=1, on_line=lines.append)) as runners:
        assert value(await run(runners, handler, how=how)) == code
        assert value(await run(runners, handler, how=how)) == code
    assert any("raised in a copy" in line.text for line in lines) == (how == "raise")


@pytest.mark.parametrize("handler", ["pool", "a_pool"])
async def test_each_task_in_turn_may_use_multiprocessing_as_a_program_does(handler: str) -> None:
    async with Runners(leaky(concurrency=1)) as runners:
        for method in (None, "forkserver", "forkserver", "spawn", None):
            used = method or multiprocessing.get_start_method()
            assert value(await run(runners, handler, method=method)) == [used, 1, 2]


async def test_a_signal_to_the_process_group_of_a_handler_reaches_its_process_alone() -> None:
    async with Runners(leaky(concurrency=1)) as runners:
        assert await run(runners, "signal_group") == Crashed("signal 15 (SIGTERM)")
        assert value(await run(runners, "fork", how="exit")) == 7


def sleeping_below(process: int) -> list[int]:
    """Return the processes that the trial handlers of these tests left, by what they run."""
    nap = 100_000 + crc32(os.environb[b"TRIAL_FOLDER"]) % 900_000
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in {process, os.getpid()}:
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if line == b"sleep\x00%d\x00" % nap and alive(int(entry.name)):
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("how", ["child", "session", "daemon", "system", "fork"])
@pytest.mark.parametrize("handler", ["spawn", "a_spawn"])
async def test_a_process_that_a_task_leaves_ends_with_it_and_its_log_says_so(handler: str, how: str) -> None:
    before = set(sleeping_below(0))
    lines: list[Line] = []
    async with Runners(leaky(concurrency=1, on_line=lines.append)) as runners:
        work = start(runners, handler, how=how)
        process = value(await ended(work))
        await until(lambda: not set(sleeping_below(process)) - before)
        told = [line.work for line in lines if "the task left running" in line.text]
        assert told == [work.work]
        # The handlers' process is the same, and serves on.
        assert value(await run(runners, handler, how="nothing")) == process


@pytest.mark.parametrize("how", ["session", "daemon"])
@pytest.mark.parametrize("handler", ["spawn", "a_spawn"])
@pytest.mark.parametrize("end", ["time out", "cancel", "die"])
async def test_processes_end_with_an_attempt_that_is_killed(
    folder: Path, handler: str, how: str, end: str
) -> None:
    before = set(sleeping_below(0))
    async with Runners(leaky(concurrency=1, kill_grace_seconds=0.3)) as runners:
        timeout = 0.5 if end == "time out" else 30.0
        work = start(runners, handler, how=how, then="die" if end == "die" else "hang", timeout=timeout)
        await until(lambda: ("spawned" in [what for what, _ in notes(folder)]) or work.ending.done())
        if end == "cancel":
            work.stop(Cancelled())
        ending = await ended(work)
        expected = {"time out": TimedOut(0.5), "cancel": Cancelled(), "die": Crashed("exit code 5")}
        assert ending == expected[end]
        await until(lambda: not set(sleeping_below(0)) - before)


@pytest.mark.parametrize(("pid", "grow"), [("grow", "grow"), ("a_grow", "a_grow")])
async def test_a_process_is_replaced_once_it_is_too_large_and_no_task_is_lost(pid: str, grow: str) -> None:
    async with Runners(leaky(concurrency=1, recycle_bytes=150_000_000)) as runners:
        processes = [value(await run(runners, grow, megabytes=40)) for _ in range(9)]
        assert value(await run(runners, pid, megabytes=0)) > 0
    assert 2 < len(set(processes)) < 9


async def test_an_async_process_that_is_to_be_replaced_lets_its_tasks_end_and_keeps_none_waiting() -> None:
    async with Runners(leaky(concurrency=2, recycle_tasks=2)) as runners:
        slow = start(runners, "a_pid_after", seconds=8.0)
        quick = [value(await run(runners, "a_pid_after", seconds=0.0)) for _ in range(3)]
        assert not slow.ending.done()
        assert value(await ended(slow)) == quick[0]
        assert quick[1] == quick[2] != quick[0]


async def test_tasks_do_not_wait_for_those_of_an_async_process_that_takes_no_more() -> None:
    async with Runners(leaky(concurrency=2, recycle_tasks=2)) as runners:
        first = value(await run(runners, "a_pid_after", seconds=0.0))
        slow = start(runners, "a_pid_after", seconds=60.0)
        assert value(await ended(start(runners, "a_pid_after", seconds=0.0))) != first
        assert not slow.ending.done()
        slow.stop(Cancelled())
        assert await ended(slow) == Cancelled()


async def test_log_lines_carry_level_logger_and_task_also_from_threads_and_asyncio_tasks() -> None:
    lines: list[Line] = []
    async with Runners(leaky(concurrency=6, log_level="INFO", on_line=lines.append)) as runners:
        works = [start(runners, "speak", text=f"p{n}", thread=bool(n % 2)) for n in range(4)]
        works += [start(runners, "a_speak", text=f"a{n}", how=("thread", "task")[n % 2]) for n in range(6)]
        for work in works:
            assert value(await ended(work)) is None
    texts = [[line.text for line in lines if line.work is work.work] for work in works]
    assert texts == [[f"info p{n}"] for n in range(4)] + [[f"a{n}"] for n in range(6)]
    records = {(line.level, line.logger) for line in lines if line.stream == "log"}
    assert records == {(20, "handlers_that_leak"), (30, "handlers_that_leak")}


@pytest.mark.parametrize("recycle_tasks", [None, 1], ids=["the same process", "a process each"])
@pytest.mark.parametrize(("handler", "named"), [("speak", {}), ("a_speak", {"how": "debug"})])
async def test_handlers_log_all_as_long_as_they_are_told_to(
    handler: str, named: dict[str, Any], recycle_tasks: int | None
) -> None:
    lines: list[Line] = []
    async with Runners(leaky(concurrency=1, recycle_tasks=recycle_tasks, on_line=lines.append)) as runners:
        texts = []
        for text, on in (("a", None), ("b", True), ("c", True), ("d", False), ("e", None), ("f", True)):
            if on is not None:
                runners.log_all(on)
            work = start(runners, handler, text=text, **named)
            assert value(await ended(work)) is None
            texts.append([line.text for line in lines if line.work is work.work])
    both = [[f"debug {text}", f"info {text}"] for text in "abcdef"]
    assert texts == [both[0][1:], both[1], both[2], both[3][1:], both[4][1:], both[5]]


@pytest.mark.parametrize("how", ["detach", "reconfigure", "close", "none", "dup2", "fdopen", "fileno"])
async def test_a_handler_that_spoils_its_streams_spoils_those_of_no_other(how: str) -> None:
    lines: list[Line] = []
    async with Runners(leaky(concurrency=1, on_line=lines.append)) as runners:
        assert value(await run(runners, "trick", how=how)) is None
        work = start(runners, "say_both", text="grün")
        assert value(await ended(work)) is None
        await until(lambda: {"grün", "raw grün"} <= {line.text for line in lines})
    assert {line.work.task_id for line in lines if line.work} == {work.work.task_id}


async def test_a_line_without_end_is_shown_while_its_handler_waits() -> None:
    lines: list[Line] = []
    async with Runners(leaky(on_line=lines.append)) as runners:
        work = start(runners, "ask", prompt="ready? ")
        await until(lambda: [line.text for line in lines if line.work is work.work] == ["ready? "])
        work.stop(Cancelled())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("lying", "LyingClass"), ("attributes", "NoAttributes"), ("keyword", "Keyword"),
        ("group", "ExceptionGroup: several (2 sub-exceptions) [ValueError: a; ExceptionGroup: b ("),
    ],
)  # fmt: skip
async def test_an_exception_of_any_form_is_a_failure_with_a_readable_message(how: str, message: str) -> None:
    async with Runners(leaky()) as runners:
        reason, told, retryable = failure(await run(runners, "explode", how=how))
        assert (reason, retryable) == ("HandlerRaised", True)
        assert told.startswith(message)


async def test_a_handler_that_stops_the_event_loop_stops_no_other() -> None:
    async with Runners(leaky(concurrency=4)) as runners:
        process = value(await run(runners, "a_pid_of_loop"))
        neighbour = start(runners, "a_pid_after", seconds=1.0)
        for how in ("exit in a task", "stop"):
            assert value(await run(runners, "a_explode", how=how)) == "went on"
        assert "Cannot close a running event loop" in failure(await run(runners, "a_explode", how="close"))[1]
        assert "not through Galley" in failure(await run(runners, "a_explode", how="cancelled"))[1]
        assert value(await ended(neighbour)) == process
