from galley.lanes import Lane
from galley_operator.intake.turns import Gates, Turns
from galley_operator.tasks.active_tasks import ActiveTask, ActiveTasks
from galley_operator.tasks.report import Pending, Until
from tests.unit.galley_operator.intake.tasks import an_active_task

QUEUE = ("images", "thumbs")
FULL = Pending("QueueFull", "its backlog has 5 of 5 tasks", Until.ROOM)
UNKNOWN = Pending("QueueNotFound", "there is no TaskQueue thumbs", Until.QUEUE_CHANGES)


def some_tasks(count: int, lane: Lane = Lane.NORMAL) -> list[ActiveTask]:
    return [an_active_task(name=f"{lane}-{number}", lane=lane) for number in range(count)]


def test_nothing_waits_where_nothing_was_refused() -> None:
    gates = Gates()
    assert not gates.wait_at(an_active_task())
    assert gates.let_through() == []


def test_one_refusal_shuts_the_gate_for_the_queue_and_for_no_other() -> None:
    gates = Gates()
    first, second = some_tasks(2)
    gates.park(first, FULL)
    assert gates.wait_at(second)
    assert not gates.wait_at(an_active_task(queue="other"))
    assert len(gates) == 2


def test_few_are_let_through_at_first_and_more_while_none_is_refused() -> None:
    gates = Gates()
    tasks = some_tasks(100)
    gates.park(tasks[0], FULL)
    for task in tasks[1:]:
        gates.wait_at(task)
    counts = []
    while keys := gates.let_through():
        counts.append(len(keys))
        for task in tasks:
            if task.key in keys:
                assert not gates.wait_at(task)
                gates.leave(task)
    assert counts == [1, 4, 16, 64, 15]
    assert not gates.wait_at(tasks[0]), "the gate is open again"


def test_a_refusal_begins_again_with_one() -> None:
    gates = Gates()
    tasks = some_tasks(20)
    gates.park(tasks[0], FULL)
    for task in tasks[1:]:
        gates.wait_at(task)
    (first,) = gates.let_through()
    gates.leave(next(task for task in tasks if task.key == first))
    for key in gates.let_through():
        gates.park(next(task for task in tasks if task.key == key), FULL)
    assert len(gates.let_through()) == 1


def test_the_next_are_let_through_when_those_before_are_decided() -> None:
    gates = Gates()
    first, second = some_tasks(2)
    gates.park(first, FULL)
    gates.wait_at(second)
    assert len(gates.let_through()) == 1
    assert gates.let_through() == []


def test_higher_lanes_are_let_through_first() -> None:
    gates = Gates()
    low, high = some_tasks(1, Lane.LOW), some_tasks(1, Lane.HIGH)
    gates.park(low[0], FULL)
    gates.wait_at(high[0])
    assert gates.let_through() == [high[0].key]


def test_a_queue_that_changed_is_tried_by_all_who_wait_for_it() -> None:
    gates = Gates()
    tasks = some_tasks(3)
    gates.park(tasks[0], UNKNOWN)
    gates.park(tasks[1], UNKNOWN)
    assert not gates.wait_at(tasks[2]), "its own case may be another"
    assert gates.let_through() == [], "time alone changes nothing"
    assert gates.open(QUEUE) == [tasks[0].key, tasks[1].key]
    assert gates.open(QUEUE) == []


def test_a_task_that_is_gone_waits_no_longer() -> None:
    gates = Gates()
    first, second = some_tasks(2)
    gates.park(first, FULL)
    gates.wait_at(second)
    gates.leave(first)
    assert gates.let_through() == [second.key]


async def test_a_task_behind_a_shut_gate_is_told_what_the_one_before_was_told() -> None:
    tasks, told = ActiveTasks(), list[tuple[str, Pending]]()
    turns = Turns(tasks, lambda task, report: told.append((task.name, report)))
    for name in ("first", "second", "other"):
        task = an_active_task(name=name, uid=name, queue="free" if name == "other" else "thumbs")
        tasks.changed(task.key, task, listed=False)
        turns.add(task.key)
    assert await turns.next() == ("images", "first")
    turns.done(("images", "first"), FULL)
    assert await turns.next() == ("images", "other")
    assert told == [("second", FULL)]
