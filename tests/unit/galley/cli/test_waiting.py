"""What a client that waits for a task prints meanwhile."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from galley.address import Kind, TaskAddress
from galley.cli.waiting import LOOK_SECONDS, wait_for
from galley.handle import AsyncHandle
from galley.lanes import Lane
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley.cli.a_terminal import a_terminal, err

PROBLEM = "no handler 'x'"
TOLD = f"still waiting: {PROBLEM}\n"
RUNS = "still waiting: a worker can run it now\n"


class Handle:
    """Answers each look of a client that waits, and has a result after the last."""

    address = TaskAddress("default", "images", Lane.NORMAL, Kind.DIRECT, "one")
    id = address.id

    def __init__(self, problems: Sequence[str]) -> None:
        self._problems = list(problems)
        self._ended = asyncio.Event()

    async def progress(self) -> None:
        return None

    async def worker_problem(self) -> str:
        problem = self._problems.pop(0)
        if not self._problems:
            self._ended.set()
        return problem

    async def result(self, within: float | None) -> str:
        async with asyncio.timeout(within):
            await self._ended.wait()
        return "done"


@pytest.mark.parametrize(
    ("problems", "told"),
    [
        (["", ""], ""),
        ([PROBLEM, PROBLEM], TOLD),
        ([PROBLEM, ""], TOLD),
        ([PROBLEM, "", PROBLEM], TOLD),
        ([PROBLEM, "", "", ""], TOLD + RUNS),
        ([PROBLEM, "", "", PROBLEM], TOLD + RUNS + TOLD),
    ],
    ids=["none", "told once", "just ended", "a moment", "a worker runs it", "again"],
)
@in_virtual_time
async def test_a_problem_is_told_when_it_begins_and_when_it_is_surely_over(
    problems: list[str], told: str
) -> None:
    terminal = a_terminal()
    handle = cast("AsyncHandle[str]", Handle(problems))
    assert await wait_for(handle, 10 * LOOK_SECONDS, terminal) == "done"
    assert err(terminal) == told
