"""An attempt that has to be alone waits for the others, others wait for it, and none waits for nothing."""

import asyncio

import pytest

from galley_worker.solitude import Solitude, patience
from tests.support.virtual_time import in_virtual_time


@in_virtual_time
async def test_others_begin_only_when_the_one_that_is_alone_has_ended() -> None:
    told: list[bool] = []
    solitude = Solitude(lambda: told.append(True))
    for _ in range(2):
        await solitude.enter()
    alone = asyncio.create_task(solitude.alone())
    await asyncio.sleep(1)
    other = asyncio.create_task(solitude.enter())
    await asyncio.sleep(1)
    assert (alone.done(), other.done(), solitude.closed) == (False, False, True)
    solitude.leave()
    await alone
    await asyncio.sleep(1)
    assert (other.done(), told) == (False, [])
    solitude.leave_alone()
    await other
    assert (solitude.closed, told) == (False, [True])


@in_virtual_time
async def test_two_that_have_to_be_alone_take_turns() -> None:
    solitude, order = Solitude(), []

    async def attempt(name: str) -> None:
        await solitude.enter()
        await solitude.alone()
        order.append(f"{name} begins")
        await asyncio.sleep(5)
        order.append(f"{name} ends")
        solitude.leave_alone()

    await asyncio.gather(attempt("one"), attempt("two"))
    assert order == ["one begins", "one ends", "two begins", "two ends"]
    await asyncio.wait_for(solitude.enter(), 1)


@pytest.mark.parametrize("holder", [True, False])
@in_virtual_time
async def test_one_that_is_cancelled_while_it_waits_lets_the_others_go_on(holder: bool) -> None:
    solitude = Solitude()
    for _ in range(3):
        await solitude.enter()
    first = asyncio.create_task(solitude.alone() if holder else asyncio.sleep(0))
    await asyncio.sleep(1)
    waiting = asyncio.create_task(solitude.alone())
    await asyncio.sleep(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    solitude.leave()  # that one
    solitude.leave()
    if holder:
        await asyncio.wait_for(first, 1)
        solitude.leave_alone()
    assert not solitude.closed
    await asyncio.wait_for(solitude.enter(), 1)


@in_virtual_time
async def test_one_that_waited_long_enough_gives_way_and_has_still_entered() -> None:
    told: list[bool] = []
    solitude = Solitude(lambda: told.append(True))
    for _ in range(2):
        await solitude.enter()
    assert not await solitude.alone(3)
    assert (solitude.closed, told) == (False, [True])
    solitude.leave()  # the neighbour: it is alone then, and need not wait
    assert await solitude.alone(3)
    solitude.leave_alone()
    await asyncio.wait_for(solitude.alone(), 1)


def test_patience_doubles_and_ends_in_one_that_waits_as_long_as_it_takes() -> None:
    assert [patience(before) for before in range(8)] == [1, 2, 4, 8, 16, 32, 64, None]
    assert patience(10**9) is None
