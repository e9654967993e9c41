"""Works for `async def` handlers that wait in their child behind those that run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from galley_worker.ending import Cancelled, NotBegun
from galley_worker.runners import pool
from galley_worker.runners.pool import Pool
from galley_worker.runners.process import HandlerProcess
from galley_worker.runners.runners import Runners
from tests.integration.galley_worker.trials import ended, run, settings, start, until, value

pytestmark = pytest.mark.usefixtures("one_fork_server")


def child_of(runners: Runners, *names: str) -> HandlerProcess:
    """Return the child of async handlers, which gets many works of these as if they were quick."""
    for name in names:
        runners._by_name[name][1].window = 33
    (child,) = [
        one
        for each in runners._runners
        if isinstance(each, Pool) and not each._plain
        for one in each.children
    ]
    return child


@contextmanager
def never_slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(pool, "SLOW_SECONDS", 3600.0)
        yield


async def test_no_more_run_at_a_time_than_may_and_none_sees_variables_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with never_slow(monkeypatch):
        async with Runners(settings(concurrency=2)) as runners:
            value(await run(runners, "a_add", a=1))
            child = child_of(runners, "a_together")
            works = [start(runners, "a_together", gate=str(tmp_path / "gate")) for _ in range(7)]
            await until(lambda: child.has_begun(works[1]))
            assert len(child.running) == 7
            assert not child.has_begun(works[2])
            (tmp_path / "gate").touch()
            ran = [value(await ended(work)) for work in works]
            assert max(together for together, _ in ran) == 2
            assert {left for _, left in ran} == {""}


async def test_one_that_waits_is_cancelled_and_never_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with never_slow(monkeypatch):
        async with Runners(settings(concurrency=1)) as runners:
            before = value(await run(runners, "a_pid"))
            child = child_of(runners, "a_wait", "a_pid")
            first = start(runners, "a_wait", mark=str(tmp_path / "first"))
            second = start(runners, "a_wait", mark=str(tmp_path / "second"))
            third = start(runners, "a_pid")
            await until(lambda: child.has_begun(first))
            assert len(child.running) == 3
            second.stop(Cancelled())
            assert await ended(second) == Cancelled()
            assert first.ended_as is None
            first.stop(Cancelled())
            assert value(await ended(third)) == before
            assert not (tmp_path / "second").exists()


async def test_those_behind_slow_ones_are_called_back(tmp_path: Path) -> None:
    async with Runners(settings(concurrency=1)) as runners:
        value(await run(runners, "a_add", a=1))
        child = child_of(runners, "a_wait", "a_add")
        slow = start(runners, "a_wait", mark=str(tmp_path / "slow"))
        behind = [start(runners, "a_add", a=number) for number in range(5)]
        assert len(child.running) == 6
        assert {type(await ended(work)) for work in behind} == {NotBegun}
        assert slow.ended_as is None


async def test_one_that_waited_for_its_whole_timeout_has_not_timed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with never_slow(monkeypatch):
        async with Runners(settings(concurrency=1, kill_grace_seconds=0.3)) as runners:
            value(await run(runners, "a_add", a=1))
            child = child_of(runners, "a_wait", "a_add")
            slow = start(runners, "a_wait", mark=str(tmp_path / "slow"))
            late = start(runners, "a_add", a=1, timeout=0.01)
            assert len(child.running) == 2
            looked_at = runners._looked_ahead_at
            await until(lambda: runners._looked_ahead_at > looked_at + 1.0)
            assert (slow.ended_as, late.ended_as) == (None, None)
            slow.stop(Cancelled())
            assert value(await ended(late)) == 2
