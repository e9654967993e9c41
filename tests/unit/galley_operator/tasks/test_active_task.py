import json
from typing import Any

import msgspec
import pytest

from galley.lanes import Lane
from galley.task_status import Phase
from galley_operator.tasks.active_tasks import (
    UNFINISHED,
    ActiveTask,
    ActiveTasks,
    Keeper,
    TaskObject,
    shown_by,
)
from tests.unit.galley_operator.intake.tasks import an_active_task


def a_task_object(uid: str = "u1", version: str = "7", phase: str = "", **spec: Any) -> TaskObject:
    body = {
        "metadata": {
            "name": "one", "namespace": "images", "uid": uid, "resourceVersion": version, "generation": 1,
            "creationTimestamp": "2026-03-01T08:00:00Z", "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {"queueName": "thumbs", "handler": "resize", **spec},
        "status": {"phase": phase, "conditions": [{"type": "Succeeded", "reason": phase}]} if phase else {},
    }  # fmt: skip
    return msgspec.json.decode(json.dumps(body), type=TaskObject)


def test_the_selector_names_each_phase_that_is_an_end() -> None:
    assert UNFINISHED == "status.phase!=Succeeded,status.phase!=Failed,status.phase!=Cancelled"


def test_a_new_task_is_kept_with_its_spec_and_where_it_goes() -> None:
    task = Keeper().keep(a_task_object(priority="high", input={"a": 1}), None)
    assert (task.queue, task.lane, task.in_broker) == ("thumbs", Lane.HIGH, False)
    assert task.spec is not None
    assert json.loads(task.spec)["input"] == {"a": 1}
    assert str(task.address) == "images/thumbs/u1"


@pytest.mark.parametrize("phase", ["Scheduled", "Queued", "Running", "Retrying"])
def test_a_task_that_is_in_the_broker_is_kept_without_its_spec(phase: str) -> None:
    task = Keeper().keep(a_task_object(phase=phase), None)
    assert task.in_broker
    assert task.spec is None


def test_a_task_that_was_refused_once_is_kept_with_its_spec() -> None:
    assert not Keeper().keep(a_task_object(phase=Phase.PENDING), None).in_broker


def test_a_change_keeps_what_is_known_and_takes_the_new_version() -> None:
    keeper = Keeper()
    task = keeper.keep(a_task_object(), None)
    task.in_broker = task.recorded = True
    again = keeper.keep(a_task_object(version="8", phase="Queued"), task)
    assert again is task
    assert (task.version, task.recorded) == ("8", True)
    assert task.shown == shown_by("Queued", "Queued", 0, "")


def test_a_task_made_again_under_its_name_is_another() -> None:
    keeper = Keeper()
    task = keeper.keep(a_task_object(), None)
    assert keeper.keep(a_task_object(uid="u2"), task) is not task


def test_specs_beyond_the_limit_are_left_to_be_read_again() -> None:
    keeper = Keeper(specs_limit=3000)
    tasks = [keeper.keep(a_task_object(uid=f"u{number}", input="x" * 1000), None) for number in range(4)]
    assert [task.spec is not None for task in tasks] == [True, True, False, False]
    for task in tasks:
        keeper.drop_spec(task)
    assert keeper.specs_bytes == 0


def test_tasks_are_found_by_uid_and_by_queue_until_they_are_gone() -> None:
    tasks, seen, gone = ActiveTasks(Keeper()), list[str](), list[str]()
    tasks.on_new = lambda task, _listed: seen.append(task.uid)
    tasks.on_gone = lambda task: gone.append(task.uid)
    one, two = an_active_task(), an_active_task(uid="u2", name="two")
    for task in (one, two, one):
        tasks.changed(task.key, task, listed=False)
    assert seen == ["u1", "u2"]
    assert [task.uid for task in tasks.of_queue(("images", "thumbs"))] == ["u1", "u2"]
    tasks.gone(one.key, one)
    tasks.gone(one.key, one)
    assert gone == ["u1"]
    assert "u1" not in tasks
    tasks.gone(two.key, two)
    assert len(tasks) == 0
    assert list(tasks.of_queue(("images", "thumbs"))) == []
    assert tasks.namespaces() == set()


def test_a_task_takes_little_room() -> None:
    assert ActiveTask.__basicsize__ < 200
