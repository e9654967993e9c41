from datetime import UTC, datetime

from msgspec import Raw

from galley_worker.ending import Cancelled, Crashed, CutOff, Finish
from galley_worker.runners.blame import blame
from galley_worker.runners.execution import Execution, Service
from galley_worker.work import Work


def executions(count: int) -> list[Execution]:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    works = [
        Work(f"t{number}", "trials", "normal", "add", 1, Raw(b"{}"), 30.0, now) for number in range(count)
    ]
    return [Execution(work, Service(), lambda _: None) for work in works]


def ending(execution: Execution) -> Finish | None:
    return execution.ended_as


async def test_the_one_whose_code_ran_crashed_and_its_neighbours_are_handed_back() -> None:
    culprit, other = executions(2)
    assert blame([culprit, other], culprit, "exit code 9", ours=False) == []
    assert ending(culprit) == Crashed("exit code 9")
    assert isinstance(ending(other), CutOff)


async def test_none_crashed_in_a_child_that_the_worker_killed() -> None:
    holder, cancelled = executions(2)
    cancelled.because = Cancelled()
    assert blame([holder, cancelled], holder, "killed", ours=True) == []
    assert ending(cancelled) == Cancelled()
    assert isinstance(ending(holder), CutOff)


async def test_those_that_may_have_caused_it_are_suspects() -> None:
    both = executions(2)
    assert blame(both, None, "exit code 9", ours=False) == both
    assert [ending(each) for each in both] == [None, None]


async def test_one_that_was_alone_caused_it() -> None:
    (alone,) = executions(1)
    assert blame([alone], None, "exit code 9", ours=False) == []
    assert ending(alone) == Crashed("exit code 9")
