"""The load a queue had, from the records of its tasks."""

import json
from datetime import datetime

import pytest

from galley.address import Kind, TaskAddress
from galley.cli.main import main
from galley.lanes import Lane
from galley.task_status import Phase, TaskStatus
from galley_local.simulation.recorder import trace_lines
from tests.unit.galley_operator.autoscaler.queues import at


def a_task(
    submitted: float, started: float | None, ended: float | None, due: float | None = None
) -> TaskStatus:
    def moment(second: float | None) -> datetime | None:
        return None if second is None else at(second)

    return TaskStatus(
        TaskAddress("default", "images", Lane.HIGH, Kind.DIRECT, f"t{submitted}"), Phase.SUCCEEDED,
        submitted_at=at(submitted), started_at=moment(started), ended_at=moment(ended), due_at=moment(due),
    )  # fmt: skip


def test_tasks_that_ended_are_in_the_order_they_became_due() -> None:
    tasks = [a_task(10, 11, 11.5), a_task(0, 30, 32, due=30), a_task(12, 12, None), a_task(13, None, 14)]
    assert [json.loads(line) for line in trace_lines(tasks, at(0))] == [
        {"at": 0, "seconds": 0.5, "lane": "high"},
        {"at": 20, "seconds": 2, "lane": "high"},
    ]
    assert len(trace_lines(tasks, at(11))) == 1
    assert trace_lines(tasks, at(31)) == []


@pytest.mark.parametrize("since", ["1", "x", "1w", "-1h", "1h30m"])
def test_a_time_that_is_none_is_refused(since: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record-trace", "images", f"--since={since}"]) == 2
    assert "is no time" in capsys.readouterr().err
