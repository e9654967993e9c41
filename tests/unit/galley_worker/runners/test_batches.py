"""Batches: when one is complete, which slots it takes, and how its members end."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import Raw

from galley.batching import Batch
from galley.record import Failure
from galley_worker.ending import Cancelled, Crashed, CutOff, Finish, NotBegun, Raised, Returned, TimedOut
from galley_worker.runners.batches import Batches
from galley_worker.runners.execution import Carrier, Execution, Service
from galley_worker.work import Work
from tests.support.virtual_time import in_virtual_time

DONE = Returned(Raw(b"null"))


class Pool:
    """What batches are handed to; the test plays the children."""

    def __init__(self) -> None:
        self.got: list[Carrier] = []

    def submit(self, execution: Execution) -> None:
        assert isinstance(execution, Carrier)
        self.got.append(execution)

    def stop(self, execution: Execution) -> None:
        assert execution.because is not None
        execution.end(execution.because)


class Desk:
    """Batches in front of such a pool."""

    def __init__(self, size: int = 3, wait_ms: int = 100, slots: int = 9) -> None:
        self.pool, self.told = Pool(), [0, 0]
        self.now = 0.0
        self.batches = Batches(Batch(size, wait_ms), self.pool, slots, lambda: self.now, self.tell)  # type: ignore[arg-type]

    def tell(self, *, before: bool) -> None:
        self.told[before] += 1

    def submit(self, number: int = 1, **changes: Any) -> Execution:
        work = Work(f"t{number}", "q", "normal", "h", 1, Raw(b"{}"), 30.0, datetime.now(UTC), **changes)
        execution = Execution(work, Service(), self.batches.stop)
        self.batches.submit(execution)
        return execution

    def settle(self, carrier: Carrier) -> None:
        for _ in carrier.members:
            carrier.settled(carrier)


async def turn() -> None:
    """Let callbacks of futures run."""
    for _ in range(3):
        await asyncio.sleep(0)


def ids(carrier: Carrier) -> list[str]:
    return [work.task_id for work in carrier.work.members]


async def test_the_last_member_completes_a_batch_and_it_takes_one_slot() -> None:
    desk = Desk()
    first = desk.submit(1)
    assert (desk.batches.gathers, desk.batches.sharing, desk.batches.room) == (1, 0, 2)
    assert desk.told[False] == 1, "the first one makes room for more"
    desk.submit(2)
    assert (desk.batches.gathers, desk.batches.sharing, desk.batches.room) == (1, 1, 1)
    desk.submit(3)
    assert [ids(carrier) for carrier in desk.pool.got] == [["t1", "t2", "t3"]]
    assert (desk.batches.gathers, desk.batches.sharing, desk.batches.room) == (0, 2, 0)
    assert not first.ending.done()

    desk.pool.got[0].end(DONE)
    await turn()
    assert first.ending.result() == DONE
    assert desk.batches.sharing == 3, "what is only settled takes no slot"
    desk.settle(desk.pool.got[0])
    assert desk.batches.sharing == 0
    assert desk.batches.sizes == {3: 1}


@in_virtual_time
async def test_a_batch_goes_on_its_way_when_its_first_member_has_waited_enough() -> None:
    desk = Desk(wait_ms=100)
    desk.submit(1)
    await asyncio.sleep(0.06)
    desk.submit(2)
    assert not desk.pool.got
    await asyncio.sleep(0.05)
    assert [ids(carrier) for carrier in desk.pool.got] == [["t1", "t2"]]
    desk.submit(3)
    await asyncio.sleep(0.2)
    assert [ids(carrier) for carrier in desk.pool.got] == [["t1", "t2"], ["t3"]]


async def test_settling_frees_the_slots_of_two_batches_at_most() -> None:
    desk = Desk(size=2)
    for number in range(6):
        desk.submit(number)
    for carrier in desk.pool.got:
        carrier.end(DONE)
    await turn()
    assert desk.batches.sharing == 4


async def test_a_task_that_is_to_be_apart_shares_no_batch() -> None:
    desk = Desk()
    desk.submit(1)
    desk.submit(2, apart=True)
    desk.submit(3)
    desk.submit(4)
    assert [ids(carrier) for carrier in desk.pool.got] == [["t2"], ["t1", "t3", "t4"]]


async def test_a_member_that_is_stopped_before_leaves_the_others() -> None:
    desk = Desk()
    first, second = desk.submit(1), desk.submit(2)
    first.stop(Cancelled())
    assert first.ending.result() == Cancelled()
    assert desk.batches.gathers == 1
    second.stop(CutOff("drain"))
    assert second.ending.result() == CutOff("drain")
    assert (desk.batches.gathers, desk.pool.got) == (0, [])


async def test_a_member_that_is_stopped_meanwhile_does_not_stop_the_others() -> None:
    desk = Desk(size=2)
    first, second = desk.submit(1), desk.submit(2)
    (carrier,) = desk.pool.got
    first.stop(Cancelled())
    assert first.ending.result() == Cancelled()
    assert not carrier.ending.done()
    second.stop(Cancelled())
    assert carrier.ending.done(), "without any member left, the handler is stopped"


async def test_a_member_with_less_time_than_its_batch_ends_by_itself() -> None:
    desk = Desk(size=2)
    slow = desk.submit(1)
    work = Work("t2", "q", "normal", "h", 1, Raw(b"{}"), 5.0, datetime.now(UTC))
    hasty = Execution(work, Service(), desk.batches.stop)
    desk.batches.submit(hasty)
    (carrier,) = desk.pool.got
    assert carrier.work.timeout == 30.0
    assert desk.batches.sweep(100.0) == [], "it has not begun"
    carrier.started_at = 10.0
    assert desk.batches.sweep(14.0) == []
    assert desk.batches.sweep(15.5) == [hasty]
    hasty.stop(TimedOut(5.0))
    assert desk.batches.sweep(16.0) == []
    assert not slow.ending.done()


FAILURE = Failure("HandlerRaised", "x")


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (Crashed("signal 9"), Crashed("signal 9", 2)),
        (TimedOut(99.0), TimedOut(30.0, 2)),
        (Raised(FAILURE, retryable=False), Raised(FAILURE, retryable=False, batch=2)),
        (CutOff("drain"), CutOff("drain")),
        (NotBegun("slow"), NotBegun("slow")),
    ],
)
async def test_what_ends_a_batch_ends_each_member(ending: Finish, expected: Finish) -> None:
    desk = Desk(size=2)
    members = [desk.submit(1), desk.submit(2)]
    desk.pool.got[0].end(ending)
    await turn()
    assert [member.ending.result() for member in members] == [expected, expected]


async def test_the_size_of_one_is_no_batch_in_a_history() -> None:
    desk = Desk(size=1)
    member = desk.submit(1)
    desk.pool.got[0].end(Crashed("signal 9"))
    await turn()
    assert member.ending.result() == Crashed("signal 9", 0)


async def test_what_is_gathered_at_the_end_has_not_begun() -> None:
    desk = Desk()
    member = desk.submit(1)
    await desk.batches.close("the worker stops")
    assert member.ending.result() == NotBegun("the worker stops")
    assert desk.batches.slow(0.0) == desk.batches.release(0.0) == 0
    await Desk().batches.close("nothing gathered")


@in_virtual_time
async def test_the_next_batch_fills_while_every_slot_has_one_and_follows_it() -> None:
    desk = Desk(size=3, slots=1)
    for number in range(3):
        desk.submit(number)
    (first,) = desk.pool.got
    assert (desk.batches.sharing, desk.batches.room) == (2, 3), "three may come ahead of a slot"
    desk.submit(3)
    assert (desk.batches.gathers, desk.batches.sharing, desk.batches.room) == (0, 3, 2)
    await asyncio.sleep(1)
    assert len(desk.pool.got) == 1, "it waits for the slot"
    for number in (4, 5, 6):
        desk.submit(number)
    assert desk.batches.room == 0, "it is full, and one came late"
    first.end(DONE)
    await turn()
    assert [ids(carrier) for carrier in desk.pool.got[1:]] == [["t3", "t4", "t5"]]
    desk.pool.got[1].end(DONE)
    await turn()
    await asyncio.sleep(1)
    assert [ids(carrier) for carrier in desk.pool.got[2:]] == [["t6"]]


@in_virtual_time
async def test_nothing_is_gathered_behind_a_batch_that_turns_out_slow() -> None:
    desk = Desk(size=2, slots=1)
    desk.submit(1)
    desk.submit(2)
    desk.pool.got[0].started_at = 1.0
    desk.now = 1.5
    desk.submit(3)
    await asyncio.sleep(1)
    assert len(desk.pool.got) == 1
    desk.now = 2.5
    assert desk.batches.sweep(desk.now) == []
    assert len(desk.pool.got) == 2, "the pool gives it back, for another worker"
    assert desk.batches.room == 0
