import pytest

from galley.resources import TaskQueue
from galley_operator.autoscaler.signals import ScalingPolicy
from tests.unit.galley_operator.autoscaler.queues import POLICY


def test_the_policy_is_what_the_task_queue_asks_for() -> None:
    spec = {
        "scaling": {"minWorkers": 1, "maxWorkers": 7, "idleSeconds": 12},
        "worker": {"concurrency": 3},
    }
    queue = TaskQueue.model_validate({"metadata": {"name": "images"}, "spec": spec})
    assert ScalingPolicy.of(queue) == ScalingPolicy(min_workers=1, max_workers=7, slots=3, idle_seconds=12)


def test_a_fixed_number_holds_at_once_whatever_waits() -> None:
    spec = {"scaling": {"minWorkers": 1, "maxWorkers": 7, "workers": 0}, "worker": {"concurrency": 3}}
    queue = TaskQueue.model_validate({"metadata": {"name": "images"}, "spec": spec})
    assert ScalingPolicy.of(queue) == ScalingPolicy(min_workers=0, max_workers=0, slots=3, idle_seconds=0)


@pytest.mark.parametrize(("tasks", "workers"), [(0, 0), (1, 1), (4, 1), (5, 2), (400, 100)])
def test_each_task_has_a_slot(tasks: int, workers: int) -> None:
    assert POLICY.workers_for(tasks) == workers


@pytest.mark.parametrize(("wanted", "allowed"), [(0, 2), (2, 2), (3, 3), (5, 5), (6, 5)])
def test_a_number_is_brought_within_the_bounds(wanted: int, allowed: int) -> None:
    assert ScalingPolicy(2, 5, 4, 30).within(wanted) == allowed
