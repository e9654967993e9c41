"""Works that are stopped between their start and the moment they are written to a child never begin there."""

from pathlib import Path

import pytest

from galley_worker.ending import CutOff, Returned
from galley_worker.runners import commands
from galley_worker.runners.execution import Execution
from galley_worker.runners.runners import Runners
from galley_worker.runners.settings import CommandHandler
from tests.integration.galley_worker.trials import ended, run, settings, start, value

WHY = CutOff("its lease was lost in a freeze")


class Freeze:
    """Stops works just before they are written, as a worker does that finds it was frozen."""

    def __init__(self) -> None:
        self.lost: list[Execution] = []

    def stop(self) -> None:
        while self.lost:
            self.lost.pop().stop(WHY)


@pytest.mark.parametrize(("mark", "pid"), [("block", "pid"), ("a_wait", "a_pid")])
async def test_what_is_stopped_before_it_is_written_never_begins_and_costs_no_process(
    mark: str, pid: str, tmp_path: Path
) -> None:
    freeze = Freeze()
    async with Runners(settings(before_orders=freeze.stop, concurrency=1)) as runners:
        before = value(await run(runners, pid))
        freeze.lost = [start(runners, mark, mark=str(tmp_path / name)) for name in ("one", "two")]
        works = list(freeze.lost)
        assert [await ended(work) for work in works] == [WHY, WHY]
        assert value(await run(runners, pid)) == before
        assert not any(tmp_path.glob("*"))  # noqa: ASYNC240 - one look


async def test_one_of_several_is_stopped_and_the_others_run(tmp_path: Path) -> None:
    freeze = Freeze()
    async with Runners(settings(before_orders=freeze.stop, concurrency=1)) as runners:
        for _ in range(100):  # until the handler counts as quick, and several are given to a child at a time
            await run(runners, "add", a=1)
        works = [start(runners, "add", a=number) for number in range(4)]
        freeze.lost = [works[0], works[2]]
        endings = [await ended(work) for work in works]
        assert (endings[0], endings[2]) == (WHY, WHY)
        assert [value(endings[1]), value(endings[3])] == [2, 4]


TOUCH = CommandHandler("touch", ("touch",), "args")


def touch(runners: Runners, path: Path) -> Execution:
    return start(runners, "touch", raw=f'["{path}"]'.encode())


async def test_a_program_that_is_stopped_before_it_starts_never_starts(tmp_path: Path) -> None:
    freeze = Freeze()
    async with Runners(settings(TOUCH, modules=(), before_orders=freeze.stop, concurrency=1)) as runners:
        freeze.lost = [touch(runners, tmp_path / "one")]
        works = [*freeze.lost, touch(runners, tmp_path / "two")]
        assert await ended(works[0]) == WHY
        assert isinstance(await ended(works[1]), Returned)
        assert [path.name for path in tmp_path.glob("*")] == ["two"]  # noqa: ASYNC240 - one look


async def test_a_program_whose_start_took_long_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is frozen between its look and the start, in the thread that starts programs."""
    now, looks = 0.0, 0

    def seconds() -> float:
        nonlocal now
        now += 1.0  # each look at the clock finds that so much time has passed
        return now

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            work.stop(WHY)

    monkeypatch.setattr(commands, "uninterrupted", seconds)
    async with Runners(settings(TOUCH, modules=(), before_orders=look, concurrency=1)) as runners:
        work = touch(runners, tmp_path / "one")
        assert await ended(work) == WHY
        assert (looks, list(tmp_path.glob("*"))) == (3, [])  # noqa: ASYNC240 - one look
