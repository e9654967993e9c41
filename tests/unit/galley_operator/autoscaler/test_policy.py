from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from galley.resources import TaskQueue
from galley.resources.task_queue import Minimum
from galley_operator.autoscaler.decide import decide
from galley_operator.autoscaler.signals import ScalingPolicy
from tests.unit.galley_operator.autoscaler.queues import POLICY, a_backlog, seen, workers


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


WEEKDAYS = {"days": ["Mon", "Tue", "Wed", "Thu", "Fri"], "start": "08:00", "end": "18:00"}
NIGHT = {"days": ["Fri"], "start": "22:00", "end": "06:00"}


def hours(**given: Any) -> Minimum:
    return Minimum.model_validate({"minWorkers": 2, **given})


@pytest.mark.parametrize(
    ("given", "when", "holds"),
    [
        (WEEKDAYS, "2026-11-27T08:00", True),
        (WEEKDAYS, "2026-11-27T17:59", True),
        (WEEKDAYS, "2026-11-27T18:00", False),
        (WEEKDAYS, "2026-11-28T12:00", False),
        (WEEKDAYS | {"timeZone": "Europe/Berlin"}, "2026-11-27T07:30", True),
        (WEEKDAYS | {"timeZone": "Europe/Berlin"}, "2026-07-24T06:30", True),
        (NIGHT, "2026-11-27T22:00", True),
        (NIGHT, "2026-11-28T05:59", True),
        (NIGHT, "2026-11-28T06:00", False),
        (NIGHT, "2026-11-28T22:00", False),
        (NIGHT, "2026-11-27T05:00", False),
    ],
)
def test_hours_hold_by_their_own_clock(given: dict[str, Any], when: str, holds: bool) -> None:
    assert hours(**given).holds(datetime.fromisoformat(when).replace(tzinfo=UTC)) is holds


def test_the_highest_minimum_that_holds_counts_and_never_more_than_the_most() -> None:
    noon = datetime(2026, 11, 27, 12, tzinfo=UTC)
    both = replace(POLICY, minimums=(hours(**WEEKDAYS), hours(**WEEKDAYS | {"minWorkers": 3})))
    assert both.at(noon).min_workers == 3
    assert both.at(noon.replace(hour=19)).min_workers == 0
    assert replace(both, max_workers=2).at(noon).min_workers == 2
    assert replace(both, min_workers=4).at(noon).min_workers == 4
    decision = decide(seen(a_backlog(), workers()), both, None, noon)
    assert (decision.scale_to, decision.desired) == (3, 3)
    assert "at least 3" in decision.reason


def test_a_fixed_number_knows_no_hours() -> None:
    spec = {"scaling": {"workers": 1, "minimums": [WEEKDAYS | {"minWorkers": 3}]}}
    queue = TaskQueue.model_validate({"metadata": {"name": "images"}, "spec": spec})
    assert ScalingPolicy.of(queue).minimums == ()


@pytest.mark.parametrize(
    "wrong", [{"start": "8:00"}, {"timeZone": "Mars"}, {"days": []}, {"days": ["Mon", "Mon"]}]
)
def test_hours_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        hours(**WEEKDAYS | wrong)
