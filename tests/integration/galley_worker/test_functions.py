"""Plain functions: one child each."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from galley_worker.ending import Cancelled, Crashed, CutOff, NotBegun, Raised, Returned, TimedOut
from galley_worker.errors import ModuleImportFailed
from galley_worker.runners import pool
from galley_worker.runners.pool import STARTS, Pool
from galley_worker.runners.runners import SWEEP_SECONDS, Runners
from galley_worker.runners.settings import RunnerSettings
from tests.integration.galley_worker.trials import ended, failure, run, settings, start, until, value

pytestmark = pytest.mark.usefixtures("one_fork_server")


@pytest.fixture
async def runners() -> AsyncIterator[Runners]:
    async with Runners(settings()) as entered:
        yield entered


async def test_a_function_gets_its_input_by_name_and_its_result_comes_back(runners: Runners) -> None:
    assert {"add", "a_add"} <= runners.handlers
    assert value(await run(runners, "add", a=2, b=3)) == 5
    assert value(await run(runners, "add", a=2)) == 3


async def test_a_function_that_names_no_queue_is_a_handler_of_whichever_imports_it(tmp_path: Path) -> None:
    (tmp_path / "hello_plain.py").write_text(
        "from galley import task\n\n\n@task\ndef add(a: int, b: int) -> int:\n    return a + b\n"
    )
    async with Runners(RunnerSettings("jobs", ("hello_plain",), (str(tmp_path),))) as runners:
        assert runners.handlers == {"add"}
        assert value(await run(runners, "add", a=2, b=3)) == 5


DECORATED = """
import functools
from galley import task

def hiding(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

class Adding:
    async def __call__(self, a: int) -> int:
        return a + 1

class Service:
    def __init__(self, step: int) -> None:
        self.step = step
    def add(self, a: int) -> int:
        return a + self.step
    @task
    @staticmethod
    def static(a: int) -> int:
        return a + 1

@task
@hiding
async def hidden(a: int) -> int:
    return a + 1

@task(name="hidden-lambda")
@lambda function: lambda **named: function(**named)
async def twice_hidden(a: int) -> int:
    return a + 1

@task
@functools.lru_cache
def cached(a: int) -> int:
    return a + 1

task(name="object")(Adding())
task(name="method")(Service(1).add)
task(name="partial")(functools.partial(lambda a, b: a + b, b=1))
"""


async def test_whatever_task_accepts_runs(tmp_path: Path) -> None:
    (tmp_path / "decorated.py").write_text(DECORATED)
    async with Runners(RunnerSettings("jobs", ("decorated",), (str(tmp_path),))) as runners:
        names = {"hidden", "hidden-lambda", "cached", "object", "method", "static", "partial"}
        assert runners.handlers == names
        assert {name: value(await run(runners, name, a=1)) for name in names} == dict.fromkeys(names, 2)


async def test_an_unknown_handler_is_refused_with_the_ones_known(runners: Runners) -> None:
    reason, message, retryable = failure(await run(runners, "resize"))
    assert (reason, retryable) == ("HandlerNotFound", False)
    assert "'resize'" in message
    assert "a_add, a_cancel_others" in message


@pytest.mark.parametrize("raw", [b"[1]", b"null", b"3", b"not json", b'"text"', b'{"a":1,"c":2}', b"{}"])
@pytest.mark.parametrize("handler", ["add", "a_add"])
async def test_input_that_does_not_fit_is_never_tried_again(
    runners: Runners, handler: str, raw: bytes
) -> None:
    reason, message, retryable = failure(await run(runners, handler, raw=raw))
    assert (reason, retryable) == ("InputInvalid", False)
    assert "(a: int, b: int = 1) -> int" in message


async def test_an_exception_comes_back_with_its_name_and_the_users_part_of_the_traceback(
    runners: Runners,
) -> None:
    ending = await run(runners, "fail", kind="plain")
    assert failure(ending) == ("HandlerRaised", "ValueError: no such picture", True)
    assert isinstance(ending, Raised)
    assert "handlers_for_runners.py" in ending.failure.traceback
    assert "runners/child" not in ending.failure.traceback


@pytest.mark.parametrize("handler", ["fail", "a_fail"])
async def test_a_handler_can_say_that_no_attempt_will_do(runners: Runners, handler: str) -> None:
    ending = await run(runners, handler, kind="never")
    assert failure(ending) == ("NonRetryable", "Unreadable: a poem", False)
    assert isinstance(ending, Raised)
    assert "raise Unreadable" in ending.failure.traceback


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("exit", "SystemExit: 3"), ("interrupt", "KeyboardInterrupt"), ("base", "Deep: deep"),
        ("hostile", "Hostile: (its message cannot be read)"),
        ("half", "ValueError: half a pair: \\ud83d"),
        ("type", "TypeError: object of type 'int' has no len()"),
    ],
)  # fmt: skip
async def test_whatever_a_handler_raises_its_child_lives_on(
    runners: Runners, kind: str, message: str
) -> None:
    before = value(await run(runners, "pid"))
    assert failure(await run(runners, "fail", kind=kind)) == ("HandlerRaised", message, True)
    assert value(await run(runners, "pid")) == before


async def test_message_and_traceback_are_bounded(runners: Runners) -> None:
    ending = await run(runners, "fail", kind="long")
    assert isinstance(ending, Raised)
    assert len(ending.failure.message) <= 1000
    assert len(ending.failure.traceback.encode()) <= 8192


@pytest.mark.parametrize("what", ["object", "nan"])
async def test_a_result_that_is_not_json_is_never_tried_again(runners: Runners, what: str) -> None:
    ending = await run(runners, "give", what=what)
    assert (failure(ending)[0], failure(ending)[2]) == ("ResultInvalid", False)


@pytest.mark.parametrize(
    ("how", "detail"), [("exit", "exit code 3"), ("signal", "signal 9 (SIGKILL)")]
)  # fmt: skip
async def test_a_process_that_dies_is_a_crash_of_its_work_alone(
    runners: Runners, how: str, detail: str, tmp_path: Path
) -> None:
    other = start(runners, "meet", folder=str(tmp_path), name="a", other="b")
    assert await run(runners, "die", how=how) == Crashed(detail)
    assert value(await run(runners, "meet", folder=str(tmp_path), name="b", other="a")) == "b"
    assert value(await ended(other)) == "a"


async def test_functions_run_side_by_side_up_to_the_concurrency(runners: Runners, tmp_path: Path) -> None:
    works = [
        start(runners, "meet", folder=str(tmp_path), name=name, other=other) for name, other in ("ab", "ba")
    ]
    waiting = start(runners, "pid")
    assert [value(await ended(work)) for work in works] == ["a", "b"]
    ending = await ended(waiting)
    assert isinstance(ending, NotBegun) or value(ending) > 0


async def test_a_warm_child_is_used_again_the_last_one_first(runners: Runners) -> None:
    pids = {value(await run(runners, "pid")) for _ in range(10)}
    assert len(pids) == 1


async def test_children_are_replaced_after_as_many_tasks_as_set() -> None:
    async with Runners(settings(recycle_tasks=3, concurrency=1)) as runners:
        pids = [value(await run(runners, "pid")) for _ in range(7)]
    assert [len(set(pids[:3])), len(set(pids[3:6])), len(set(pids))] == [1, 1, 3]


@pytest.mark.parametrize("handler", ["block", "ignore_sigterm", "block_in_c"])
async def test_a_timeout_kills_the_process(runners: Runners, handler: str, tmp_path: Path) -> None:
    work = start(runners, handler, mark=str(tmp_path / "m"), timeout=0.3)
    assert await ended(work) == TimedOut(0.3)
    assert value(await run(runners, "add", a=1)) == 2


async def test_a_running_function_is_killed_when_cancelled(runners: Runners, tmp_path: Path) -> None:
    mark = tmp_path / "m"
    work = start(runners, "block", mark=str(mark))
    await until(mark.exists)
    work.stop(Cancelled())
    work.stop(CutOff("a second reason comes too late"))
    assert await ended(work) == Cancelled()


async def test_a_work_that_waits_can_be_stopped_and_never_runs(runners: Runners, tmp_path: Path) -> None:
    blocked = [start(runners, "block", mark=str(tmp_path / name)) for name in "ab"]
    waiting = start(runners, "block", mark=str(tmp_path / "c"))
    await until(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())
    waiting.stop(CutOff("drain"))
    # Unless it was released before, for another worker to run.
    assert isinstance(await ended(waiting), CutOff | NotBegun)
    for work in blocked:
        work.stop(Cancelled())
        assert await ended(work) == Cancelled()
    assert not (tmp_path / "c").exists()


async def test_stopping_what_has_ended_changes_nothing(runners: Runners) -> None:
    work = start(runners, "add", a=1)
    first = await ended(work)
    work.stop(Cancelled())
    assert await ended(work) is first
    assert isinstance(first, Returned)


async def test_quick_works_are_queued_in_few_children_and_called_back_from_behind_a_slow_one() -> None:
    async with Runners(settings(concurrency=2)) as runners:
        assert runners.capacity == 2
        while runners.capacity < 18:
            for work in [start(runners, "maybe_slow") for _ in range(50)]:
                ending = await ended(work)
                # On a busy machine a quick one can look slow, and what waits behind it goes back.
                assert isinstance(ending, NotBegun) or value(ending) == 0.0
        slow = start(runners, "maybe_slow", seconds=30.0)
        behind = [start(runners, "maybe_slow") for _ in range(8)]
        for work in behind:
            ending = await ended(work)
            while isinstance(ending, NotBegun):
                # The other process looked slow, too: its turn comes again.
                ending = await ended(start(runners, "maybe_slow"))
            assert value(ending) == 0.0
        assert not slow.ending.done()
        await until(lambda: runners.capacity <= 2 + runners._ahead)
        slow.stop(Cancelled())
        assert await ended(slow) == Cancelled()


def plain_pool(runners: Runners) -> Pool:
    return next(one for one in runners._runners if isinstance(one, Pool) and one._plain)


async def test_children_are_begun_few_at_a_time_until_each_slot_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "RELEASE_SECONDS", 0.0)
    async with Runners(settings(concurrency=6)) as runners:
        plain = plain_pool(runners)
        works = [start(runners, "block", mark=str(tmp_path / "first"))]
        await until((tmp_path / "first").exists)
        works += [start(runners, "block", mark=str(tmp_path / str(number))) for number in range(5)]
        assert plain._expected == STARTS
        assert plain.release(time.monotonic()) == 0, "there is a slot for each"
        await until(lambda: len(list(tmp_path.iterdir())) == 6)
        assert [work.ended_as for work in works] == [None] * 6


async def test_children_that_are_long_in_starting_do_not_hold_up_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Runners(settings(concurrency=6)) as runners:
        plain = plain_pool(runners)
        begun: list[object] = []
        monkeypatch.setattr(plain._starter, "begin", begun.append)
        for _ in range(6):
            start(runners, "block")
        assert len(begun) == STARTS
        await until(lambda: len(begun) == 5)


async def test_a_new_worker_soon_knows_how_quick_its_handlers_are() -> None:
    now = 1000.0
    async with Runners(settings(concurrency=2), clock=lambda: now) as runners:
        _, service = runners._by_name["add"]
        slots = []
        for _ in range(5):
            service.observe(0.0)
            now += 0.04
            runners._look()
            slots.append(runners.slots)
        assert slots == [6, 10, 18, 34, 34]
        service.observe(1.0)
        now += 0.04
        runners._look()
        assert runners.slots == 34, "from then on it is looked at as often as timeouts"
        now += 2 * SWEEP_SECONDS
        runners._look()
        assert runners.slots == 2


async def test_a_work_that_waits_behind_a_slow_one_is_released_and_not_timed_out() -> None:
    async with Runners(settings(concurrency=1)) as runners:
        first = start(runners, "maybe_slow", seconds=1.0, timeout=5.0)
        second = start(runners, "maybe_slow", seconds=0.1, timeout=0.0)
        assert isinstance(await ended(second), NotBegun)
        assert not first.ending.done(), "released while the slow one runs"
        assert value(await ended(first)) == 1.0


async def test_async_works_that_wait_behind_slow_ones_are_released(tmp_path: Path) -> None:
    async with Runners(settings(concurrency=2)) as runners:
        slow = [start(runners, "a_wait", mark=str(tmp_path / name)) for name in ("one", "two")]
        await until(lambda: all((tmp_path / name).exists() for name in ("one", "two")))
        assert isinstance(await ended(start(runners, "a_add", a=1)), NotBegun)
        assert not any(work.ending.done() for work in slow)


@pytest.mark.parametrize("handler", ["add", "a_add"])
async def test_works_whose_child_gets_no_processor_are_not_released(
    handler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "STARVED_SECONDS", 3600.0)
    async with Runners(settings(concurrency=1)) as runners:
        value(await run(runners, handler, a=1))
        (child,) = [
            one for each in runners._runners if isinstance(each, Pool) for one in each.children if one.sent
        ]
        os.kill(child.pid, signal.SIGSTOP)
        works = [start(runners, handler, a=number) for number in range(3)]
        looked_at = runners._looked_ahead_at
        await until(lambda: runners._looked_ahead_at > looked_at + 3 * SWEEP_SECONDS)
        assert [work.ended_as for work in works] == [None] * 3
        os.kill(child.pid, signal.SIGCONT)
        assert [value(await ended(work)) for work in works] == [1, 2, 3]


async def test_of_many_works_in_a_dead_child_the_one_that_ran_crashed_and_none_ran_twice(
    tmp_path: Path,
) -> None:
    mark = tmp_path / "runs"
    async with Runners(settings(concurrency=1)) as runners:
        while runners.capacity < 9:
            for work in [start(runners, "die_if", mark=str(tmp_path / "warm"), number=0) for _ in range(40)]:
                ending = await ended(work)
                assert isinstance(ending, NotBegun) or value(ending) == 0  # a busy machine is slow
        works = [start(runners, "die_if", mark=str(mark), number=number) for number in range(9)]
        endings = [await ended(work) for work in works]
    assert endings[3] == Crashed("exit code 9")
    assert [value(ending) for ending in endings[4:]] == [4, 5, 6, 7, 8]
    for number, ending in enumerate(endings[:3]):
        # It had ended, but its answer may have been lost with the process: its task is handed back.
        assert isinstance(ending, CutOff) or value(ending) == number
    assert sorted(mark.read_text().split()) == list("012345678")


@pytest.mark.parametrize(
    ("how", "detail"),
    [
        ("closes", "exit code 70: its socket is gone; a handler may have closed file descriptors of others"),
        ("closes all", "exit code 1"),
        ("garbage", "it wrote garbage to the worker's socket (signal 9 (SIGKILL))"),
    ],
)  # fmt: skip
async def test_a_handler_that_spoils_the_connection_crashes_alone(
    runners: Runners, how: str, detail: str
) -> None:
    assert await run(runners, "sabotage", how=how) == Crashed(detail)
    assert value(await run(runners, "add", a=1)) == 2


@pytest.mark.parametrize(("pid", "waits"), [("pid", "block"), ("a_pid", "a_wait")])
async def test_a_process_that_misses_a_part_of_what_its_worker_says_ends(
    runners: Runners, pid: str, waits: str, tmp_path: Path
) -> None:
    """A handler may read what is not meant for it, so that the rest is no order any more."""
    work = start(runners, waits, mark=str(tmp_path / "begun"))
    await until((tmp_path / "begun").exists)
    pools = [one for one in runners._runners if isinstance(one, Pool)]
    [process] = [child for one in pools for child in one.children if child.running]
    assert process._transport is not None
    process._transport.write(b"the rest of an order")
    ending = await ended(work)
    assert isinstance(ending, Crashed)
    assert "exit code 70" in ending.detail
    await process.gone
    assert process.memory() == 0
    assert value(await run(runners, pid)) != process.pid


async def test_answers_never_reach_a_connection_that_got_the_number_of_ours(
    runners: Runners, tmp_path: Path
) -> None:
    strangers: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        strangers.put_nowait(await reader.read())
        writer.close()

    address = str(tmp_path / "socket")
    async with await asyncio.start_unix_server(listen, address):
        ending = await run(runners, "sabotage", how="reuses", address=address)
        assert isinstance(ending, Crashed)
        assert await asyncio.wait_for(strangers.get(), 30) == b""
    assert value(await run(runners, "add", a=1)) == 2


@pytest.mark.parametrize("how", ["silent", "moves", "threads", "forks"])
async def test_what_a_handler_leaves_behind_no_other_task_notices(how: str) -> None:
    lines: list[str] = []
    here = settings(concurrency=1, on_line=lambda line: lines.append(line.text))
    async with Runners(here) as runners:
        before = value(await run(runners, "folder"))
        assert value(await run(runners, "litter", how=how)) == how
        assert value(await run(runners, "folder")) == before
        await run(runners, "say", text="still heard")
        await run(runners, "say_raw", text="raw too\n")
        await until(lambda: "still heard" in lines and "raw too" in lines)


async def test_stdin_is_empty(runners: Runners) -> None:
    assert value(await run(runners, "read_stdin")) == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import no_such_thing\n", "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("x = 1\nraise SystemExit('no')\n", "SystemExit: no"),
        ("def (:\n", "SyntaxError"),
        ("import os\nos._exit(4)\n", "its process"),
    ],
)
async def test_a_module_that_does_not_import_is_named_with_file_line_and_error(
    tmp_path: Path, text: str, problem: str
) -> None:
    name = f"broken_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    told = settings(modules=(name,))
    with pytest.raises(ModuleImportFailed) as raised:
        async with Runners(type(told)("trials", (name,), (str(tmp_path),))):
            pass
    assert name in str(raised.value)
    assert problem in str(raised.value)
    assert raised.value.hint
    if "_exit" not in text:
        assert f"{name}.py:{text.count(chr(10))}" in str(raised.value)


async def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ModuleImportFailed, match="module 'no_such_module' does not import"):
        async with Runners(settings(modules=("no_such_module",))):
            pass


TYPED = """
from dataclasses import dataclass
from datetime import date, timedelta
from galley import task

@dataclass
class Stay:
    day: date
    nights: int = 1

@task
def leave(stay: Stay) -> date:
    return stay.day + timedelta(days=stay.nights)

@task
async def nights(stays: list[Stay]) -> set[int]:
    return {stay.nights for stay in stays}
"""


async def test_arguments_arrive_as_annotated(tmp_path: Path) -> None:
    (tmp_path / "typed_handlers.py").write_text(TYPED)
    async with Runners(RunnerSettings("jobs", ("typed_handlers",), (str(tmp_path),))) as runners:
        assert value(await run(runners, "leave", stay={"day": "2026-02-28", "nights": 2})) == "2026-03-02"
        assert value(await run(runners, "nights", stays=[{"day": "2026-02-28"}])) == [1]
        for handler, wrong in (("leave", {"stay": {"day": "soon"}}), ("nights", {"stays": [{"nights": 1}]})):
            reason, message, retryable = failure(await run(runners, handler, **wrong))
            assert (reason, retryable) == ("InputInvalid", False)
            assert message.startswith("the input does not fit the handler: argument 'stay")


async def test_a_handler_that_cancels_all_tasks_of_its_loop_fails_those_that_had_not_begun(
    runners: Runners,
) -> None:
    await run(runners, "a_add", a=1)
    # Given to the process together, so that the second has not begun when the first one cancels it.
    first, second = start(runners, "a_cancel_others"), start(runners, "a_add", a=1)
    assert value(await ended(first)) == 1
    reason, message, retryable = failure(await ended(second, within=10))
    assert (reason, retryable) == ("HandlerRaised", True)
    assert "cancelled by code in its own process" in message
