"""Output: whose a line is, and how much of it there may be."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from galley_worker.ending import NotBegun
from galley_worker.runners.runners import Runners
from galley_worker.runners.settings import Line, RunnerSettings
from galley_worker.work import Work
from tests.integration.galley_worker.trials import ended, run, settings, start, until, value

pytestmark = pytest.mark.usefixtures("one_fork_server")


class Lines:
    """What was forwarded, by task."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str, str]] = []

    def take(self, line: Line) -> None:
        self.all.append((line.work.task_id if line.work else "", line.stream, line.text))

    def of(self, work: Work, stream: str = "stdout") -> list[str]:
        return [line for task, its, line in self.all if task == work.task_id and its == stream]

    def settings(self, **others: Any) -> RunnerSettings:
        return settings(on_line=self.take, **others)


async def test_a_line_belongs_to_the_attempt_that_wrote_it_and_to_its_stream() -> None:
    lines = Lines()
    async with Runners(lines.settings()) as runners:
        works = [start(runners, "say", text=f"word {number}") for number in range(20)]
        loud = start(runners, "say", text="woe", stream="stderr")
        for work in (*works, loud):
            await ended(work)
    for number, work in enumerate(works):
        assert lines.of(work.work) == [f"word {number}"]
    assert lines.of(loud.work, "stderr") == ["woe"]


async def test_all_an_attempt_wrote_is_forwarded_before_its_ending() -> None:
    lines = Lines()
    async with Runners(lines.settings()) as runners:
        for number in range(20):
            work = start(runners, "chatter", text=f"n{number}", number=50)
            await ended(work)
            assert lines.of(work.work) == [f"n{number} {line}" for line in range(50)]


async def test_lines_of_queued_works_are_told_apart() -> None:
    lines = Lines()
    async with Runners(lines.settings(concurrency=1)) as runners:
        while runners.capacity < 9:
            await asyncio.gather(*(ended(start(runners, "maybe_slow")) for _ in range(50)))
        works = [start(runners, "chatter", text=f"n{number}", number=10) for number in range(9)]
        for number in range(9):
            while isinstance(await ended(works[number]), NotBegun):
                # On a busy machine a quick one may look slow, and those behind it are sent back.
                works[number] = start(runners, "chatter", text=f"n{number}", number=10)
    for number, work in enumerate(works):
        assert lines.of(work.work) == [f"n{number} {line}" for line in range(10)]


async def test_async_handlers_that_write_parts_of_lines_do_not_mingle(tmp_path: Path) -> None:
    lines = Lines()
    async with Runners(lines.settings()) as runners:
        pair = [
            start(runners, "a_say", text=one, folder=str(tmp_path), name=one, other=other)
            for one, other in ("ab", "ba")
        ]
        for work in pair:
            await ended(work)
    for one, work in zip("ab", pair, strict=True):
        assert "".join(lines.of(work.work)) == f"{one} begins, {one} ends"


async def test_what_bypasses_python_counts_for_the_handler_that_runs() -> None:
    lines = Lines()
    async with Runners(lines.settings()) as runners:
        work = start(runners, "say_raw", text="raw\n")
        await ended(work)
        await until(lambda: lines.of(work.work) == ["raw"])


async def test_two_hundred_megabytes_of_output_harm_no_other_task_and_the_loss_is_told() -> None:
    lines = Lines()
    async with Runners(lines.settings()) as runners:
        work = start(runners, "flood", megabytes=200)
        assert value(await run(runners, "add", a=1)) == 2
        assert value(await ended(work)) == 200
    assert sum(map(len, lines.of(work.work))) < 70_000
    limit, total = 64 * 1024, 200 * 1024 * 1024
    assert lines.of(work.work, "galley") == [
        f"output limit reached: what follows the first {limit} bytes is dropped",
        f"{total - limit} bytes of output dropped after the first {limit}",
    ]


async def test_a_line_that_never_ends_comes_in_pieces() -> None:
    lines = Lines()
    async with Runners(lines.settings()) as runners:
        work = start(runners, "flood", megabytes=1, newline=False)
        assert value(await ended(work)) == 1
    pieces = lines.of(work.work)
    assert [len(piece) for piece in pieces[:8]] == [8192] * 8
    assert "dropped" in lines.of(work.work, "galley")[-1]
