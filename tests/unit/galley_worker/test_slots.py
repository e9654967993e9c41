"""Slots: what a batch takes of them, and what that tells the autoscaler of the time of a task."""

from dataclasses import dataclass
from typing import Any, cast

from galley_worker.runners.runners import Runners
from galley_worker.slots import Changes, WorkerSlots


@dataclass
class Shared:
    """How works share slots."""

    capacity: int = 2
    slots: int = 2
    batched: bool = True
    sharing: int = 0
    waiting: int = 0
    changing: Any = None


def test_a_batch_takes_one_slot_and_only_while_its_handler_runs() -> None:
    now = [0.0]
    runners = Shared()
    slots = WorkerSlots(cast("Runners", runners), 2, Changes(), lambda: now[0])
    for _ in range(10):
        slots.take()
    runners.capacity, runners.sharing, runners.waiting = 11, 9, 1
    assert (slots.taken, slots.free, slots.brisk) == (1, 1, False)

    now[0] = 5.0
    runners.changing()
    assert slots.busy_seconds == 0.0, "it was only gathered"
    runners.waiting = 0
    now[0] = 7.0
    runners.changing()
    runners.sharing = 10
    for _ in range(10):
        slots.leave()
    runners.sharing = 0
    assert slots.busy_seconds / slots.done == 0.2


def test_a_worker_that_only_settles_is_not_idle() -> None:
    runners = Shared(sharing=3)
    slots = WorkerSlots(cast("Runners", runners), 2, Changes())
    for _ in range(3):
        slots.take()
    assert slots.taken == 1


def test_a_worker_is_supplied_while_half_of_what_it_takes_ahead_is_under_way() -> None:
    runners = Shared(slots=10, batched=False)
    slots = WorkerSlots(cast("Runners", runners), 2, Changes())
    supplied = []
    for _ in range(8):
        slots.take()
        supplied.append(slots.supplied)
    assert supplied == [False] * 6 + [True] * 2
    runners.slots = 2
    assert slots.supplied
    for _ in range(6):
        slots.leave()
    assert not slots.supplied
    runners.batched = True
    slots.take()
    assert not slots.supplied, "what a batch has room for is not waited with"
