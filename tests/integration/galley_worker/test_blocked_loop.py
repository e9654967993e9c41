"""A handler that blocks the event loop pays for it; its neighbours do not."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from galley_worker.ending import CutOff, TimedOut
from galley_worker.runners.execution import Execution
from galley_worker.runners.runners import Runners
from galley_worker.runners.settings import Line, RunnerSettings
from tests.integration.galley_worker.test_isolation import notes
from tests.integration.galley_worker.trials import ended, run, settings, start, until, value

pytestmark = pytest.mark.usefixtures("folder")


def leaky(**others: Any) -> RunnerSettings:
    return settings(modules=("handlers_that_leak",), **others)


@pytest.mark.parametrize(("handler", "more"), [
    ("a_block", {"seconds": 600}),
    ("a_block", {"seconds": 0, "in_c": True}),
    ("a_block_in_a_task", {"seconds": 600}),
])  # fmt: skip
async def test_the_handler_that_blocks_times_out_and_what_had_begun_is_handed_back(
    folder: Path, handler: str, more: dict[str, Any]
) -> None:
    async with Runners(leaky(concurrency=4, kill_grace_seconds=60.0)) as runners:
        await run(runners, "a_pid_of_loop")
        begun = start(runners, "a_nap", seconds=600, timeout=20.0)
        await until(lambda: "nap" in [what for what, _ in notes(folder)])
        hog = start(runners, handler, timeout=4.0, **more)
        await until(lambda: "block" in [what for what, _ in notes(folder)])
        unbegun = start(runners, "a_nap", seconds=0.0, timeout=3.0)
        assert await ended(hog) == TimedOut(4.0)
        innocent = await ended(begun)
        assert isinstance(innocent, CutOff)
        assert hog.work.task_id in innocent.why
        # It had not begun, so it simply runs in another process, and its time counts from there.
        assert value(await ended(unbegun)) == "rested"
    assert [what for what, _ in notes(folder)].count("nap") == 2


async def test_no_other_task_times_out_while_the_loop_is_blocked_and_new_ones_run_elsewhere(
    folder: Path,
) -> None:
    lines: list[Line] = []
    async with Runners(leaky(concurrency=4, on_line=lines.append)) as runners:
        process = value(await run(runners, "a_pid_of_loop"))
        hog = start(runners, "a_block", seconds=3.0)
        await until(lambda: "block" in [what for what, _ in notes(folder)])
        # Its time counts from when it first runs, which is after the block.
        queued = start(runners, "a_nap", seconds=0.1, timeout=2.5)
        await until(lambda: any("blocks the event loop" in line.text for line in lines))
        assert value(await run(runners, "a_pid_of_loop")) != process
        assert not hog.ending.done()
        assert value(await ended(queued)) == "rested"
        assert value(await ended(hog)) == "blocked"
    told = [line.work for line in lines if "blocks the event loop" in line.text]
    assert told == [hog.work]


async def test_many_neighbours_of_a_handler_that_blocks_all_end_well(folder: Path) -> None:
    async def outcome(execution: Execution) -> object:
        return await ended(execution)

    async with Runners(leaky(concurrency=8)) as runners:
        await run(runners, "a_pid_of_loop")
        quick = [start(runners, "a_nap", seconds=0.05, timeout=20.0) for _ in range(3)]
        hog = start(runners, "a_block", seconds=600, timeout=3.0)
        quick += [start(runners, "a_nap", seconds=0.05, timeout=20.0) for _ in range(4)]
        endings = await asyncio.gather(*map(outcome, quick))
        assert await outcome(hog) == TimedOut(3.0)
    for ending in endings:
        assert isinstance(ending, CutOff) or value(ending) == "rested"  # type: ignore[arg-type]
    assert [value(ending) for ending in endings[3:]] == ["rested"] * 4  # type: ignore[arg-type]
