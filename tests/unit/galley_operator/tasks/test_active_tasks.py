import json
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.lanes import Lane
from galley.record import Record, State, Stored
from galley.task_status import Phase
from galley_operator.tasks.active_tasks import UNFINISHED, ActiveTask, ActiveTasks, shown_by
from galley_operator.tasks.report import (
    Admitted,
    AlreadyRan,
    Gone,
    Pending,
    Recorded,
    Rejected,
    Report,
    Unclear,
    Until,
)
from galley_operator.tasks.task_object import TaskObject
from tests.unit.galley_operator.intake.tasks import NOW

RUNNING = Recorded(Stored(Record(State.RUN, 1), 7))


def a_task_object(
    uid: str = "u1", version: str = "7", phase: str = "", name: str = "one", **spec: Any
) -> TaskObject:
    body = {
        "metadata": {
            "name": name, "namespace": "images", "uid": uid, "resourceVersion": version, "generation": 1,
            "creationTimestamp": "2026-03-01T08:00:00Z", "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {"queueName": "thumbs", "handler": "resize", **spec},
        "status": {"phase": phase, "conditions": [{"type": "Succeeded", "reason": phase}]} if phase else {},
    }  # fmt: skip
    return msgspec.json.decode(json.dumps(body), type=TaskObject)


def test_the_selector_names_each_phase_that_is_an_end() -> None:
    assert UNFINISHED == "status.phase!=Succeeded,status.phase!=Failed,status.phase!=Cancelled"


def take(tasks: ActiveTasks, seen: TaskObject, *, listed: bool = False) -> ActiveTask:
    """Return what is known once the reflector has passed an object on."""
    key = seen.metadata.namespace, seen.metadata.name
    now = tasks.keep(seen, None)
    before = tasks.get(key)
    if before is not None and before.uid != now.uid:
        tasks.gone(key, before)
    tasks.changed(key, now, listed=listed)
    known = tasks.get(key)
    assert known is not None
    return known


def test_a_new_task_is_kept_with_its_spec_and_where_it_goes() -> None:
    task = take(ActiveTasks(), a_task_object(priority="high", input={"a": 1}))
    assert (task.queue, task.lane, task.in_broker) == ("thumbs", Lane.HIGH, False)
    assert task.spec is not None
    assert json.loads(task.spec)["input"] == {"a": 1}
    assert task.address == TaskAddress("images", "thumbs", Lane.HIGH, Kind.DIRECT, "one")


@pytest.mark.parametrize("phase", ["Scheduled", "Queued", "Running", "Retrying"])
def test_a_task_that_is_in_the_broker_is_kept_without_its_spec(phase: str) -> None:
    task = take(ActiveTasks(), a_task_object(phase=phase))
    assert task.in_broker
    assert task.spec is None


def test_a_task_that_was_refused_once_is_kept_with_its_spec() -> None:
    assert not take(ActiveTasks(), a_task_object(phase=Phase.PENDING)).in_broker


def test_a_change_keeps_what_is_known_and_takes_the_new_version() -> None:
    tasks = ActiveTasks()
    task = take(tasks, a_task_object())
    assert tasks.take(task, RUNNING, NOW) is not None
    again = take(tasks, a_task_object(version="8", phase="Queued"))
    assert (again.version, again.recorded, again.spec) == ("8", True, None)
    assert again.shown == shown_by("Queued", "Queued", 0, "")


def test_what_is_done_about_a_task_that_is_gone_or_another_changes_nothing() -> None:
    tasks = ActiveTasks()
    first = take(tasks, a_task_object())
    second = take(tasks, a_task_object(uid="u2"))
    assert tasks.take(first, Rejected("R", "m"), NOW) is None
    assert tasks.written(first, "99", 0) is None
    assert tasks.get(second.key) is second
    tasks.gone(second.key, second)
    assert tasks.take(second, Admitted(), NOW) is None
    assert tasks.specs_bytes == 0


def test_specs_beyond_the_limit_are_left_to_be_read_again() -> None:
    tasks = ActiveTasks(specs_limit=3000)
    kept = [
        take(tasks, a_task_object(uid=f"u{number}", name=f"t{number}", input="x" * 1000))
        for number in range(4)
    ]
    assert [task.spec is not None for task in kept] == [True, True, False, False]
    for task in kept:
        tasks.take(task, Admitted(), NOW)
    assert tasks.specs_bytes == 0


class Heard:
    """Notes what a listener is told."""

    def __init__(self) -> None:
        self.new_ones: list[tuple[str, bool]] = []
        self.gone_ones: list[str] = []

    def new(self, task: ActiveTask, *, listed: bool) -> None:
        self.new_ones.append((task.uid, listed))

    def gone(self, task: ActiveTask) -> None:
        self.gone_ones.append(task.uid)


def test_a_listener_is_told_of_all_tasks_and_of_changes_for_as_long_as_it_listens() -> None:
    tasks, heard = ActiveTasks(), Heard()
    one = take(tasks, a_task_object())
    with tasks.told_to(heard):
        two = take(tasks, a_task_object(name="two", uid="u2"))
        take(tasks, a_task_object(name="two", uid="u2", version="9"))
        tasks.gone(one.key, one)
        tasks.gone(one.key, one)
    tasks.gone(two.key, two)
    assert heard.new_ones == [("u1", True), ("u2", False)]
    assert heard.gone_ones == ["u1"]
    assert len(tasks) == 0
    assert tasks.queues() == set()


def test_a_task_is_found_by_its_address_and_by_its_uid_once_that_is_known() -> None:
    tasks = ActiveTasks()
    task = take(tasks, a_task_object())
    old = TaskAddress("images", "thumbs", Lane.NORMAL, Kind.DECLARED, "u1")
    assert tasks.find(task.address) is task
    assert tasks.find(replace(task.address, queue="other")) is None
    assert tasks.find(old) is None
    assert not tasks.knows("images", "u1")
    now = tasks.take(replace(task, by_uid=True), Admitted(), NOW)
    assert now is not None
    assert now.address == old
    assert tasks.find(old) is now
    assert tasks.knows("images", "u1")
    assert [each.uid for each in tasks.of_queue(("images", "thumbs"))] == ["u1"]


@pytest.mark.parametrize(
    ("report", "in_broker", "ended", "told"),
    [
        (Admitted(), True, False, True),
        (RUNNING, True, False, True),
        (Recorded(Stored(Record(State.DONE, 1), 7)), True, True, True),
        (Recorded(Stored(Record(State.DONE, 1, uid="another"), 7)), False, False, False),
        (AlreadyRan(Stored(Record(State.DONE, 1, uid="another"), 7)), False, True, True),
        (Rejected("R", "m"), False, True, True),
        (Pending("R", "m", Until.ROOM), False, False, True),
        (Pending("R", "m", Until.PAUSE), False, False, True),
        (Unclear(), False, False, False),
        (Gone(), False, False, False),
    ],
)
def test_a_report_changes_what_is_known_of_a_task(
    report: Report, in_broker: bool, ended: bool, told: bool
) -> None:
    tasks = ActiveTasks()
    task = take(tasks, a_task_object())
    assert (tasks.take(task, report, NOW) is not None) is told
    known = tasks.get(task.key)
    assert known is not None
    assert (known.in_broker, known.ended, known.unsure) == (in_broker, ended, isinstance(report, Unclear))
    if ended:
        assert tasks.take(task, RUNNING, NOW) is None, "nothing comes after the end"


def test_an_error_says_nothing_about_a_task_that_is_in_the_broker() -> None:
    tasks = ActiveTasks()
    task = take(tasks, a_task_object(phase="Queued"))
    assert tasks.take(task, Pending("BrokerUnreachable", "m", Until.PAUSE), NOW) is None
    lost = tasks.take(task, Pending("QueueNotFound", "m", Until.QUEUE_CHANGES), NOW)
    assert lost is not None
    assert not lost.in_broker


def test_labels_are_kept_as_long_as_the_spec_and_counted_with_it() -> None:
    tasks = ActiveTasks()
    seen = a_task_object()
    labelled = replace(seen, metadata=replace(seen.metadata, labels={"team": "billing"}))
    known = take(tasks, labelled)
    assert known.labels == {"team": "billing"}
    before = tasks.specs_bytes
    relabelled = replace(seen, metadata=replace(seen.metadata, labels={"team": "a"}, resource_version="8"))
    assert take(tasks, relabelled).labels == {"team": "a"}
    assert tasks.specs_bytes == before - len("billing") + len("a")
    gone = tasks.take(known, Admitted(), NOW)
    assert gone is not None
    assert (gone.spec, gone.labels) == (None, None)
    assert take(tasks, labelled).labels is None
    assert tasks.specs_bytes == 0
