"""What every fleet must do, whatever its workers are.

An implementation says how to be tried by a `Trial`, and runs each of the rules with a new one:

    @pytest.mark.parametrize("rule", fleet.RULES, ids=fleet.name_of)
    async def test_process_fleet(rule: fleet.Rule, ...) -> None:
        await fleet.exercise(rule, make_trial)

where `make_trial(broken=...)` opens a fleet without workers; with `broken` its workers cannot come up.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import pytest

from galley_operator.errors import FleetRefused
from galley_operator.fleet.fleet import WorkerPhase, Workforce, removable
from tests.conformance.trial import (
    MakeTrial,
    Trial,
    all_ended,
    any_ready,
    busy,
    gone,
    named,
    names_of,
    no_worker,
    one,
    ready,
)
from tests.support.eventually import eventually

Rule: TypeAlias = Callable[[Trial], Awaitable[None]]


async def an_empty_fleet_has_no_worker(trial: Trial) -> None:
    assert await trial.fleet.observe() == Workforce()


async def who_is_asked_for_is_seen_at_once(trial: Trial) -> None:
    await trial.fleet.scale(2)
    seen = await trial.fleet.observe()
    assert len(seen.present) == 2
    assert len({worker.name for worker in seen.workers}) == 2


async def workers_come_up_idle_with_their_slots(trial: Trial) -> None:
    before = datetime.now(UTC)
    await trial.fleet.scale(2)
    for worker in await ready(trial, 2):
        assert (worker.busy, worker.slots) == (0, trial.slots)
        assert before - timedelta(seconds=1) <= worker.since <= datetime.now(UTC)
    assert (await trial.fleet.observe()).problem == ""


async def asking_for_what_is_there_changes_nothing(trial: Trial) -> None:
    await trial.fleet.scale(1)
    [worker] = await ready(trial, 1)
    await trial.fleet.scale(1)
    [same] = (await trial.fleet.observe()).workers
    assert (same.name, same.phase) == (worker.name, WorkerPhase.READY)


async def scaling_out_keeps_those_there(trial: Trial) -> None:
    await trial.fleet.scale(1)
    [first] = await ready(trial, 1)
    await trial.fleet.scale(3)
    assert first.name in {worker.name for worker in await ready(trial, 3)}


async def what_a_worker_runs_is_seen_and_gone_when_it_ended(trial: Trial) -> None:
    await trial.fleet.scale(1)
    await trial.hold()
    await trial.hold()
    await one(trial, lambda worker: worker.busy == 2)
    await trial.release()
    await one(trial, lambda worker: worker.busy == 0)
    await all_ended(trial, 2)


async def who_is_not_drained_is_not_removed(trial: Trial) -> None:
    await trial.fleet.scale(2)
    names = {worker.name for worker in await ready(trial, 2)}
    with pytest.raises(FleetRefused):
        await trial.fleet.scale(1)
    with pytest.raises(FleetRefused):
        await trial.fleet.scale(0)
    seen = await trial.fleet.observe()
    assert {worker.name for worker in seen.present} == names
    assert {worker.phase for worker in seen.present} == {WorkerPhase.READY}


async def only_the_drained_are_removed(trial: Trial) -> None:
    await trial.fleet.scale(3)
    drained, *others = await ready(trial, 3)
    await trial.fleet.drain([drained.name], 60)
    await named(trial, drained.name, removable)
    await trial.fleet.scale(2)
    assert {worker.name for worker in (await trial.fleet.observe()).present} == names_of(others)
    await eventually(lambda: gone(trial, drained.name), within=trial.patience)
    assert names_of(await ready(trial, 2)) == names_of(others)


async def removing_more_than_are_drained_removes_none(trial: Trial) -> None:
    await trial.fleet.scale(2)
    drained, _ = both = await ready(trial, 2)
    await trial.fleet.drain([drained.name], 60)
    await named(trial, drained.name, removable)
    with pytest.raises(FleetRefused):
        await trial.fleet.scale(0)
    assert names_of((await trial.fleet.observe()).present) == names_of(both)


async def a_drained_worker_takes_no_task(trial: Trial) -> None:
    await trial.fleet.scale(2)
    drained, other = await ready(trial, 2)
    await trial.fleet.drain([drained.name], 60)
    await named(trial, drained.name, lambda worker: worker.phase is WorkerPhase.DRAINING)
    for _ in range(trial.slots + 1):
        await trial.hold()
    await named(trial, other.name, lambda worker: worker.busy == trial.slots)
    # One task is left over, and only the drained worker has a slot for it.
    with pytest.raises(AssertionError, match="last seen"):
        await eventually(lambda: busy(trial, drained.name), within=2)
    await trial.release()
    await all_ended(trial, trial.slots + 1)


async def a_drained_worker_finishes_what_it_runs(trial: Trial) -> None:
    await trial.fleet.scale(1)
    await trial.hold()
    busy = await one(trial, lambda worker: worker.busy == 1)
    await trial.fleet.drain([busy.name], 60)
    await one(trial, lambda worker: worker.phase is WorkerPhase.DRAINING)
    with pytest.raises(FleetRefused):
        await trial.fleet.scale(0)
    assert (await one(trial, lambda worker: worker.busy is not None)).busy == 1
    await trial.release()
    await one(trial, removable)
    assert await trial.ended() == 1
    await trial.fleet.scale(0)
    await eventually(lambda: no_worker(trial), within=trial.patience)


async def a_drain_that_is_ended_leaves_a_worker_that_takes_tasks(trial: Trial) -> None:
    await trial.fleet.scale(1)
    [worker] = await ready(trial, 1)
    await trial.fleet.drain([worker.name], 60)
    await one(trial, lambda worker: worker.phase is WorkerPhase.DRAINING)
    await trial.hold()
    await trial.fleet.drain([worker.name], 0)
    assert (await one(trial, lambda worker: worker.busy == 1)).phase is WorkerPhase.READY
    await trial.release()
    await all_ended(trial, 1)


async def a_drain_ends_by_itself(trial: Trial) -> None:
    await trial.fleet.scale(1)
    [worker] = await ready(trial, 1)
    await trial.fleet.drain([worker.name], 2)
    await one(trial, lambda worker: worker.phase is WorkerPhase.DRAINING)
    await one(trial, lambda worker: worker.phase is WorkerPhase.READY)


async def a_drain_is_renewed_by_asking_again(trial: Trial) -> None:
    await trial.fleet.scale(1)
    [worker] = await ready(trial, 1)
    await trial.fleet.drain([worker.name], 2)
    await trial.fleet.drain([worker.name], 60)
    await one(trial, removable)
    with pytest.raises(AssertionError, match="last seen"):
        await eventually(lambda: any_ready(trial), within=3)


async def draining_none_or_unknown_workers_is_harmless(trial: Trial) -> None:
    await trial.fleet.drain([], 60)
    await trial.fleet.drain(["none-of-that-name"], 60)
    await trial.fleet.scale(1)
    [worker] = await ready(trial, 1)
    await trial.fleet.drain(["none-of-that-name"], 60)
    await trial.hold()
    assert (await one(trial, lambda worker: worker.busy == 1)).name == worker.name
    await trial.release()
    await all_ended(trial, 1)


async def who_dies_is_replaced(trial: Trial) -> None:
    await trial.fleet.scale(2)
    victim, other = await ready(trial, 2)
    await trial.kill(victim.name)

    async def young_again() -> bool:
        workers = (await trial.fleet.observe()).present
        fresh = [worker for worker in workers if worker.since > victim.since and worker.name != other.name]
        return len(fresh) == 1 and {worker.phase for worker in workers} == {WorkerPhase.READY}

    await eventually(young_again, within=3 * trial.patience)
    assert other.name in names_of((await trial.fleet.observe()).present)
    assert len((await trial.fleet.observe()).present) == 2


async def many_at_once_agree_on_the_last_number(trial: Trial) -> None:
    await asyncio.gather(
        *(trial.fleet.scale(3) for _ in range(5)), *(trial.fleet.observe() for _ in range(5))
    )
    assert len((await trial.fleet.observe()).present) == 3
    assert len(await ready(trial, 3)) == 3


async def who_cannot_come_up_is_said_with_the_reason(trial: Trial) -> None:
    await trial.fleet.scale(2)

    async def failed() -> Workforce | None:
        seen = await trial.fleet.observe()
        assert len(seen.present) == 2, "more than asked for"
        return seen if all(worker.phase is WorkerPhase.FAILED for worker in seen.present) else None

    seen = await eventually(failed, within=trial.patience)
    assert seen is not None
    assert seen.problem


async def who_cannot_come_up_can_go_at_once(trial: Trial) -> None:
    await trial.fleet.scale(1)
    await one(trial, lambda worker: worker.phase is WorkerPhase.FAILED)
    await trial.fleet.scale(0)
    assert (await trial.fleet.observe()).present == ()
    await eventually(lambda: no_worker(trial), within=trial.patience)


BROKEN: tuple[Rule, ...] = (
    who_cannot_come_up_is_said_with_the_reason,
    who_cannot_come_up_can_go_at_once,
)
RULES: tuple[Rule, ...] = (
    an_empty_fleet_has_no_worker,
    who_is_asked_for_is_seen_at_once,
    workers_come_up_idle_with_their_slots,
    asking_for_what_is_there_changes_nothing,
    scaling_out_keeps_those_there,
    what_a_worker_runs_is_seen_and_gone_when_it_ended,
    who_is_not_drained_is_not_removed,
    only_the_drained_are_removed,
    removing_more_than_are_drained_removes_none,
    a_drained_worker_takes_no_task,
    a_drained_worker_finishes_what_it_runs,
    a_drain_that_is_ended_leaves_a_worker_that_takes_tasks,
    a_drain_ends_by_itself,
    a_drain_is_renewed_by_asking_again,
    draining_none_or_unknown_workers_is_harmless,
    who_dies_is_replaced,
    many_at_once_agree_on_the_last_number,
    *BROKEN,
)


def name_of(rule: Rule) -> str:
    """Return a rule's claim, for the id of its test."""
    return getattr(rule, "__name__", repr(rule))


async def exercise(rule: Rule, make_trial: MakeTrial) -> None:
    """Try one rule on a new fleet."""
    async with make_trial(broken=rule in BROKEN) as trial:
        await rule(trial)
