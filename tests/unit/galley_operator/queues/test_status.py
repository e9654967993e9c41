from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from galley.backlog import Unknown, Usage
from galley.broker.errors import BrokerUnreachable, QueueConflict
from galley.resources import TaskQueue, TaskQueueStatus
from galley.resources.condition import Condition, Truth
from galley_operator.cluster.errors import RightsMissing
from galley_operator.errors import StorageQuotaExceeded
from galley_operator.events import FAILURES_SECONDS, Failures
from galley_operator.fleet.fleet import WorkerPhase, WorkerView, Workforce
from galley_operator.fleet.trouble import Trouble
from galley_operator.queues.conditions import WITHIN_QUOTA, Situation, conditions_of
from galley_operator.queues.status import occurrences, status_of
from galley_operator.tasks.known_queues import QueueObject

NOW = datetime(2026, 3, 1, 8, 30, 0, 123456, tzinfo=UTC)
CONFLICT = QueueConflict("GW_a_b", "installation 'other'", "it is not ours")
FORBIDDEN = RightsMissing(
    "patch",
    "deployments shop/galley-images",
    403,
    'deployments.apps "galley-images" is forbidden: User "system:serviceaccount:galley:operator" '
    'cannot patch resource "deployments" in API group "apps" in the namespace "shop"',
)
FINE = Situation(3, workforce=Workforce())


def worker(phase: WorkerPhase) -> WorkerView:
    return WorkerView("w", phase, 0, 4, NOW)


def found(situation: Situation) -> dict[str, tuple[str, str]]:
    return {each.type: (each.status.value, each.reason) for each in conditions_of(situation, (), NOW)}


def condition(situation: Situation, kind: str, before: tuple[Condition, ...] = ()) -> Condition:
    [one] = [each for each in conditions_of(situation, before, NOW) if each.type == kind]
    return one


@pytest.mark.parametrize(
    ("situation", "ready", "workers"),
    [
        (FINE, ("True", "Serving"), ("True", "ScaledToZero")),
        (replace(FINE, desired=2), ("True", "Serving"), ("True", "Starting")),
        (
            replace(FINE, workforce=Workforce((worker(WorkerPhase.STARTING),))),
            ("True", "Serving"),
            ("True", "Starting"),
        ),
        (
            replace(FINE, workforce=Workforce((worker(WorkerPhase.READY), worker(WorkerPhase.DRAINING)))),
            ("True", "Serving"),
            ("True", "WorkersReady"),
        ),
        (
            replace(FINE, trouble=Trouble("ImagePullFailed", "no such image"), desired=1),
            ("False", "ImagePullFailed"),
            ("False", "ImagePullFailed"),
        ),
        (
            replace(FINE, workforce=Unknown("no answer", NOW)),
            ("Unknown", "NotObserved"),
            ("Unknown", "NotObserved"),
        ),
        (replace(FINE, held=True, waiting=40), ("False", "Paused"), ("False", "Paused")),
        (replace(FINE, streams=CONFLICT), ("False", "QueueConflict"), ("True", "ScaledToZero")),
        (
            replace(FINE, streams=CONFLICT, workforce=None),
            ("False", "QueueConflict"),
            ("Unknown", "NoStreams"),
        ),
        (replace(FINE, children=FORBIDDEN), ("False", "RightsMissing"), ("False", "RightsMissing")),
    ],
)
def test_what_is_found_makes_the_conditions(
    situation: Situation, ready: tuple[str, str], workers: tuple[str, str]
) -> None:
    conditions = found(situation)
    assert conditions["Ready"] == ready
    assert conditions["WorkersAvailable"] == workers
    assert conditions["StreamsReady"][0] == ("False" if situation.streams else "True")


def test_a_queue_that_a_command_pauses_says_so_and_how_to_resume() -> None:
    message = condition(replace(FINE, held=True, waiting=40), "Ready").message
    assert message == (
        "`galley pause` holds this queue, so no task is started; `galley resume` ends that; 40 tasks wait"
    )


def test_a_condition_says_what_happened_to_what_and_what_to_do() -> None:
    message = condition(replace(FINE, children=FORBIDDEN), "Ready").message
    assert "cannot patch deployments shop/galley-images" in message
    assert FORBIDDEN.hint in message


def a_queue(workers: int | None = None, **worker: Any) -> TaskQueue:
    spec: dict[str, Any] = {"worker": {"modules": ["thumbs"], **worker}}
    if workers is not None:
        spec["scaling"] = {"workers": workers}
    return TaskQueue.model_validate({"metadata": {"name": "images", "namespace": "shop"}, "spec": spec})


def test_a_queue_without_any_handler_is_not_ready_and_says_what_to_add() -> None:
    ready = condition(replace(FINE, queue=a_queue(modules=[])), "Ready")
    assert (ready.status, ready.reason) == (Truth.FALSE, "HandlersMissing")
    assert "spec.worker.modules" in ready.message
    assert found(replace(FINE, queue=a_queue()))["Ready"] == ("True", "Serving")


@pytest.mark.parametrize(
    ("waiting", "workers", "says"),
    [
        (0, 0, "so no task is started; to resume: kubectl patch"),
        (1, 0, "1 task waits"),
        (40, 2, "40 tasks wait; 2 workers finish what runs"),
    ],
)
def test_a_paused_queue_says_so_and_how_to_resume_it(waiting: int, workers: int, says: str) -> None:
    there = Workforce((worker(WorkerPhase.READY),) * workers)
    paused = replace(FINE, queue=a_queue(0), waiting=waiting, workforce=there)
    for kind in ("Ready", "WorkersAvailable"):
        told = condition(paused, kind)
        assert (told.status, told.reason) == (Truth.FALSE, "Paused")
        assert says in told.message
        assert "kubectl patch taskqueue images --namespace shop --type=merge" in told.message


@pytest.mark.parametrize(("workers", "mode"), [(None, "Automatic"), (3, "Fixed"), (0, "Paused")])
def test_what_decides_on_the_number_of_workers_is_in_the_status(workers: int | None, mode: str) -> None:
    situation = replace(FINE, queue=a_queue(workers))
    status = status_of("images", situation, None, None, None, TaskQueueStatus(), NOW)
    assert status.scaling_mode == mode


@pytest.mark.parametrize(
    ("situation", "says"),
    [
        (replace(FINE, waiting=3), "3 tasks wait, the first worker is about to start"),
        (FINE, "the next task starts one"),
        (replace(FINE, desired=2), "the first of 2 workers is starting"),
        (replace(FINE, workforce=Workforce((worker(WorkerPhase.READY),))), "tasks are accepted and run"),
    ],
)
def test_a_queue_that_is_ready_says_whether_workers_are_there(situation: Situation, says: str) -> None:
    assert says in condition(situation, "Ready").message


QUEUE = QueueObject("shop", "images", "uid-1", 3, a_queue())
BROKEN = replace(FINE, trouble=Trouble("ImagePullFailed", "no such image"), desired=1)


def status(situation: Situation) -> TaskQueueStatus:
    return TaskQueueStatus(conditions=conditions_of(situation, (), NOW))


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        (None, FINE, []),
        (FINE, FINE, []),
        (None, BROKEN, [("ImagePullFailed", "no such image", True)]),
        (FINE, BROKEN, [("ImagePullFailed", "no such image", True)]),
        (BROKEN, replace(BROKEN, trouble=Trouble("ImagePullFailed", "no such image, again")), []),
        (BROKEN, replace(BROKEN, trouble=Trouble("WorkerCrashed", "x")), [("WorkerCrashed", "x", True)]),
        (FINE, replace(FINE, workforce=Unknown("no answer", NOW)), []),
    ],
)
def test_a_queue_that_stops_being_ready_is_worth_a_warning(
    before: Situation | None, after: Situation, events: list[tuple[str, str, bool]]
) -> None:
    earlier = status(before) if before is not None else TaskQueueStatus()
    made = occurrences(QUEUE, status(after), earlier)
    assert [(each.reason, each.note, each.warning) for each in made] == events


def test_a_queue_that_is_ready_again_is_worth_an_event() -> None:
    [event] = occurrences(QUEUE, status(FINE), status(BROKEN))
    assert (event.reason, event.warning) == ("Ready", False)


def test_failed_tasks_are_counted_together_for_a_minute() -> None:
    failures = Failures(None)
    assert failures.take(7, 0.0) == 0  # they may be from last week
    assert failures.take(10, 1.0) == 3
    assert failures.take(12, 2.0) == 0
    assert failures.take(13, 1.0 + FAILURES_SECONDS) == 3
    assert failures.take(2, 200.0) == 0  # old ones have expired
    assert failures.take(3, 201.0) == 1
    assert Failures(7).take(9, 0.0) == 2


def test_a_condition_names_the_generation_it_was_found_for() -> None:
    assert {each.observed_generation for each in conditions_of(FINE, (), NOW)} == {3}


def test_the_time_of_a_condition_is_that_of_its_last_change() -> None:
    earlier = conditions_of(FINE, (), NOW - timedelta(hours=1))
    same = condition(replace(FINE, workforce=Workforce((worker(WorkerPhase.READY),))), "Ready", earlier)
    assert same.last_transition_time == NOW.replace(microsecond=0) - timedelta(hours=1)
    other = condition(replace(FINE, streams=BrokerUnreachable("nats://x", "no connection")), "Ready", earlier)
    assert other.status is Truth.FALSE
    assert other.last_transition_time == NOW.replace(microsecond=0)


def test_conditions_of_others_are_left_to_them() -> None:
    foreign = Condition(type="Audited", status=Truth.TRUE, reason="Yes", last_transition_time=NOW)
    kinds = {each.type for each in conditions_of(FINE, (foreign,), NOW)}
    assert kinds == {"Ready", "StreamsReady", "WorkersAvailable", "WithinQuota", "ScalingActive"}


@pytest.mark.parametrize(
    ("usage", "truth", "reason", "says"),
    [
        ((), Truth.UNKNOWN, "NotObserved", "not known yet"),
        ((Usage("backlog", 10, 100), Usage("laterBytes", 5, 100)), Truth.TRUE, "Room", "leaves room"),
        ((Usage("backlog", 100, 100),), Truth.FALSE, "QueueFull", "limits.backlog is used up (100 of 100)"),
        ((Usage("deadLetterBytes", 98, 100),), Truth.FALSE, "QueueFull", "failed tasks stay in the backlog"),
    ],
)
def test_a_queue_says_which_of_its_limits_is_used_up(
    usage: tuple[Usage, ...], truth: Truth, reason: str, says: str
) -> None:
    found = condition(replace(FINE, usage=usage), WITHIN_QUOTA)
    assert (found.status, found.reason) == (truth, reason)
    assert says in found.message


def test_a_queue_that_asks_for_too_much_says_so() -> None:
    error = StorageQuotaExceeded("shop/images", "namespaceBytes", 5, 10, 12)
    for kind in ("Ready", "StreamsReady", WITHIN_QUOTA):
        found = condition(replace(FINE, streams=error), kind)
        assert (found.status, found.reason) == (Truth.FALSE, "StorageQuotaExceeded")
        assert "sets aside 10 bytes beside 5 of the others" in found.message
