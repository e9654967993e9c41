import asyncio

import pytest

from galley_operator.key_queue import Backoff, KeyQueue


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_key_added_twice_is_looked_at_once() -> None:
    queue: KeyQueue[str] = KeyQueue(Clock())
    queue.add("a")
    queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_a_key_added_while_it_is_looked_at_comes_again_after_that() -> None:
    queue: KeyQueue[str] = KeyQueue(Clock())
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("b")
    assert await queue.get() == "b"
    queue.done("a")
    assert await queue.get() == "a"


async def test_what_is_new_comes_before_what_was_there_at_the_start() -> None:
    queue: KeyQueue[str] = KeyQueue(Clock())
    queue.add("old", patient=True)
    queue.add("new")
    assert [await queue.get(), await queue.get()] == ["new", "old"]


async def test_a_key_for_later_comes_when_its_time_has_come() -> None:
    clock = Clock()
    queue: KeyQueue[str] = KeyQueue(clock)
    queue.add_later("a", 10)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.01)
    clock.now = 10
    assert await queue.get() == "a"


async def test_a_key_for_later_is_looked_at_once_however_often_it_was_asked_for() -> None:
    clock = Clock()
    queue: KeyQueue[str] = KeyQueue(clock)
    for seconds in (60, 10, 30, 20):
        queue.add_later("a", seconds)
    assert len(queue) == 1
    clock.now = 10
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0
    queue.add_later("a", 100)
    clock.now = 60
    queue.add("b")
    assert await queue.get() == "b"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.01)


async def test_who_waits_hears_of_a_new_key_at_once() -> None:
    queue: KeyQueue[str] = KeyQueue(asyncio.get_running_loop().time)
    queue.add_later("late", 1000)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await asyncio.wait_for(waiting, 1) == "a"


async def test_a_key_that_is_due_while_it_is_looked_at_is_not_given_to_another() -> None:
    clock = Clock()
    queue: KeyQueue[str] = KeyQueue(clock)
    queue.add("a")
    assert await queue.get() == "a"
    queue.add_later("a", 1)
    clock.now = 2
    queue.add("b")
    assert await queue.get() == "b"
    queue.done("a")
    assert await queue.get() == "a"


def test_each_failure_doubles_the_pause_up_to_the_longest() -> None:
    backoff: Backoff[str] = Backoff(lambda: 1.0, first=0.1, longest=1.0)
    assert [backoff.after_failure("a") for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff.after_failure("b") == 0.1
    backoff.forget("a")
    assert backoff.after_failure("a") == 0.1


def test_pauses_are_spread_between_their_half_and_all_of_them() -> None:
    backoff: Backoff[str] = Backoff(lambda: 0.0, first=1.0)
    assert backoff.after_failure("a") == 0.5


def test_many_failures_are_no_number_too_large() -> None:
    backoff: Backoff[str] = Backoff(lambda: 1.0)
    assert [backoff.after_failure("a") for _ in range(2000)][-1] == 60.0
