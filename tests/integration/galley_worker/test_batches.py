"""Handlers that take the inputs of several tasks: each task has an outcome of its own."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from galley import AsyncClient, Phase, TaskFailed, call
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley_worker.ending import (
    Cancelled,
    Crashed,
    CutOff,
    Finish,
    NotBegun,
    Raised,
    Returned,
    Snoozed,
    TimedOut,
)
from galley_worker.runners.execution import Execution
from galley_worker.runners.frames import Progressed, Saved
from galley_worker.runners.runners import Runners
from galley_worker.runners.settings import Line
from galley_worker.work import Work
from tests.integration.galley_worker.conftest import StartWorkers
from tests.integration.galley_worker.trials import ended, settings, until
from tests.integration.galley_worker.trials import start as begin_one
from tests.support.workers import a_task_queue

pytestmark = pytest.mark.usefixtures("one_fork_server")
LINES: list[Line] = []
REPORTS: list[tuple[str, Progressed | Saved]] = []


@pytest.fixture
async def runners() -> AsyncIterator[Runners]:
    LINES.clear()
    REPORTS.clear()
    described = settings(
        modules=("handlers_for_batches",), on_line=LINES.append, kill_grace_seconds=1.0,
        on_report=lambda work, report: REPORTS.append((work.task_id, report)),
    )  # fmt: skip
    async with Runners(described) as entered:
        yield entered


def begin(runners: Runners, handler: str, *items: Any, **named: Any) -> list[Execution]:
    name = {"double": "numbers", "misbehave": "words", "hang": "marks"}[handler.removeprefix("a_")]
    return [begin_one(runners, handler, **{name: item}, **named) for item in items]


async def ends(executions: list[Execution]) -> list[Finish]:
    found = [await ended(execution) for execution in executions]
    for execution in executions:
        if execution.batch is not None:
            execution.batch.settled(execution.batch)
    return found


@pytest.mark.parametrize("handler", ["double", "a_double"])
async def test_each_task_has_its_own_outcome(runners: Runners, handler: str) -> None:
    executions = begin(runners, handler, 1, 0, 7, 9, 8, 5)
    one, zero, later, unfit, never, five = await ends(executions)
    assert [msgspec.json.decode(each.result) for each in (one, five) if isinstance(each, Returned)] == [2, 10]
    assert isinstance(zero, Raised)
    assert (zero.failure.reason, zero.failure.message, zero.retryable) == (
        "HandlerRaised", "ValueError: zero", True,
    )  # fmt: skip
    assert isinstance(later, Raised)
    assert later.pause == 3.0
    assert isinstance(unfit, Raised)
    assert unfit.failure.reason == "ResultInvalid"
    assert isinstance(never, Raised)
    assert (never.failure.reason, never.retryable) == ("NonRetryable", False)
    assert not any(each.batch for each in (zero, later, unfit, never))
    assert runners.batch_sizes[handler] == {4: 1, 2: 1}
    assert (runners.capacity, runners.sharing) == (runners.slots, 0)

    await until(lambda: len(LINES) == 2)
    assert [len(line.work.members) for line in LINES if line.work] == [4, 2]
    ids = [execution.work.task_id for execution in executions]
    assert {name for name, report in REPORTS if isinstance(report, Saved)} == set(ids)
    assert {(name, report.text) for name, report in REPORTS if isinstance(report, Progressed)} == {
        (each, each) for each in ids
    }


@pytest.mark.parametrize("handler", ["double", "a_double"])
async def test_an_input_that_does_not_fit_fails_alone(runners: Runners, handler: str) -> None:
    executions = [*begin(runners, handler, 1, "x"), begin_one(runners, handler, other=1)]
    good, text, other = await ends(executions)
    assert isinstance(good, Returned)
    assert isinstance(text, Raised)
    assert isinstance(other, Raised)
    assert text.failure.reason == other.failure.reason == "InputInvalid"
    assert "'numbers', not other" in other.failure.message
    (alone,) = await ends(begin(runners, handler, "y"))
    assert isinstance(alone, Raised)


@pytest.mark.parametrize("handler", ["misbehave", "a_misbehave"])
async def test_what_ends_the_whole_batch_is_said_of_each_task(runners: Runners, handler: str) -> None:
    died = await ends(begin(runners, handler, ("fine", ""), ("kill", "")))
    assert died == [Crashed("signal 9 (SIGKILL)", 2)] * 2
    raised = await ends(begin(runners, handler, ("fine", ""), ("raise", ""), ("fine", "")))
    assert [each.batch for each in raised if isinstance(each, Raised)] == [3, 3, 3]


@pytest.mark.parametrize(
    ("word", "told"), [("short", "0 results for 2 inputs"), ("text", "a list with one result for each input")]
)
async def test_a_handler_that_returns_no_outcomes_fails_all(runners: Runners, word: str, told: str) -> None:
    for each in await ends(begin(runners, "misbehave", (word, ""), ("fine", ""))):
        assert isinstance(each, Raised)
        assert (each.failure.reason, each.retryable) == ("ResultInvalid", False)
        assert told in each.failure.message


async def test_a_cancellation_that_was_not_asked_for_is_told(runners: Runners) -> None:
    for each in await ends(begin(runners, "a_misbehave", ("cancel", ""), ("fine", ""))):
        assert isinstance(each, Raised)
        assert "not through Galley" in each.failure.message


@pytest.mark.parametrize("handler", ["hang", "a_hang"])
async def test_members_stop_one_by_one_and_the_last_one_stops_the_handler(
    runners: Runners, handler: str, tmp_path: Path
) -> None:
    marks = [str(tmp_path / "a"), str(tmp_path / "b")]
    first, second = begin(runners, handler, *marks)
    await until((tmp_path / "b").exists)
    carrier = first.batch
    assert carrier is not None
    first.stop(Cancelled())
    assert await ended(first) == Cancelled()
    assert not carrier.ending.done()
    second.stop(CutOff("drain"))
    assert await ended(second) == CutOff("drain")
    await asyncio.wait_for(asyncio.shield(carrier.ending), 20)


async def test_a_batch_that_takes_too_long_is_killed_and_a_hasty_member_ends_before(
    runners: Runners, tmp_path: Path
) -> None:
    marks = [str(tmp_path / "a"), str(tmp_path / "b")]
    hasty = begin(runners, "hang", marks[0], timeout=0.1)
    slow = begin(runners, "hang", marks[1], timeout=1.0)
    assert await ends(hasty) == [TimedOut(0.1)]
    assert await ends(slow) == [TimedOut(1.0, 2)]


async def test_a_task_that_is_to_be_apart_gets_the_handler_for_itself(runners: Runners) -> None:
    work = Work(
        "apart", "trials", "normal", "double", 2, Raw(b'{"numbers": 4}'), 30.0, datetime.now(UTC), apart=True
    )
    (other,) = begin(runners, "double", 1)
    execution = runners.start(work)
    await ends([other, execution])
    assert runners.batch_sizes["double"] == {1: 2}


async def test_works_of_another_handler_do_not_take_the_slot_of_a_batch(
    runners: Runners, tmp_path: Path
) -> None:
    gathered = begin(runners, "double", 1)
    rests = [begin_one(runners, "rest", mark=str(tmp_path / f"{number}")) for number in range(3)]
    assert [type(each.ended_as) for each in rests] == [type(None), NotBegun, NotBegun]
    assert runners.capacity == 2, "such works are not taken for a while"
    gathered += begin(runners, "double", 2)
    assert [type(each) for each in await ends(gathered)] == [Returned] * 2
    assert runners.batch_sizes["double"] == {2: 1}
    await until((tmp_path / "0").exists)
    assert rests[0].ended_as is None, "it has the other slot"
    later = begin(runners, "double", 3)
    await until(lambda: runners.capacity > 2 or later[0].ended_as is not None)
    await ends(later)
    rests[0].stop(CutOff("over"))
    await ended(rests[0])


async def test_a_handler_may_put_a_whole_batch_off_without_blame(runners: Runners) -> None:
    for each in await ends(begin(runners, "misbehave", ("snooze", ""), ("fine", ""))):
        assert isinstance(each, Snoozed)
        assert each.pause == 5.0


async def test_a_member_that_kills_the_batch_is_found_and_the_others_succeed(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path
) -> None:
    """A kill of the child costs each member one attempt; then each runs apart, and the cause dies alone."""
    queue = a_task_queue(
        namespace, "trials", worker={"modules": ["handlers_for_batches"], "concurrency": 2},
        retry={"attempts": 9, "crashes": 2, "backoffSeconds": 0.05, "maxBackoffSeconds": 0.1},
    )  # fmt: skip
    await ensure(client.broker, layout_of(queue, "tests"))
    mark = str(tmp_path / "sizes")
    handles = [
        await client.submit(call("trials", "four_misbehave", words=(word, mark if word == "kill" else "")))
        for word in ("fine", "kill", "fine", "fine")
    ]
    await start(queue, GALLEY_IMPORT_PATHS=str(Path(__file__).parent))
    for place in (0, 2, 3):
        await handles[place].result(within=60)
        history = (await handles[place].status()).history
        assert (history.crashes, history.errors, history.attempts[-1].batch) == (1, 0, 4)
    with pytest.raises(TaskFailed, match="KillsItsWorker"):
        await handles[1].result(within=60)
    status = await handles[1].status()
    assert (status.phase, status.history.crashes) == (Phase.FAILED, 3)
    assert [past.batch for past in status.history.attempts] == [4, 0, 0]
    assert (tmp_path / "sizes").read_text().split() == ["4", "1", "1"]
