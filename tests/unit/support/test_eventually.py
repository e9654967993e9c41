import asyncio
from itertools import count

import pytest

from tests.support.eventually import eventually
from tests.support.virtual_time import in_virtual_time


async def test_it_returns_the_first_truthy_value_of_a_plain_function() -> None:
    numbers = count()
    assert await eventually(lambda: next(numbers), within=1) == 1


async def test_it_waits_for_a_coroutine_function() -> None:
    numbers = count()

    async def third() -> str:
        return "third" if next(numbers) == 2 else ""

    assert await eventually(third, within=1) == "third"


async def test_a_failed_assertion_is_not_yet() -> None:
    numbers = count()

    def settled() -> bool:
        assert next(numbers) > 1, "too early"
        return True

    assert await eventually(settled, within=1)


async def test_what_was_seen_last_is_told_when_time_is_up() -> None:
    def number_of_workers() -> int:
        return 0

    with pytest.raises(AssertionError, match=r"number_of_workers: not within 0\.02 s; last seen: 0"):
        await eventually(number_of_workers, within=0.02)


@in_virtual_time
async def test_who_would_wait_for_20_seconds_waits_for_60() -> None:
    with pytest.raises(AssertionError, match="never: not within 60 s"):
        await eventually(lambda: False, within=20, why="never")
    with pytest.raises(AssertionError, match="never: not within 19 s"):
        await eventually(lambda: False, within=19, why="never")


async def test_a_condition_that_hangs_is_cut_off() -> None:
    async def never() -> bool:
        never_set: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        return await never_set

    with pytest.raises(AssertionError, match="the condition never returned"):
        await eventually(never, within=0.02)


async def test_a_condition_that_swallows_its_cancellation_is_cut_off_as_well() -> None:
    async def deaf() -> bool:
        try:
            await asyncio.sleep(0.03)
        except asyncio.CancelledError:
            return False
        return False

    with pytest.raises(AssertionError, match="deaf: not within"):
        await eventually(deaf, within=0.02)


async def test_other_errors_are_not_waited_out() -> None:
    def broken() -> bool:
        raise KeyError("typo")

    with pytest.raises(KeyError, match="typo"):
        await eventually(broken, within=1)
