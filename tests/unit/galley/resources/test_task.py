"""Task: its defaults, its times and its input."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import JsonValue, ValidationError

from galley.lanes import Lane
from galley.resources import Metadata, Task, TaskSpec

FULL: dict[str, Any] = {
    "apiVersion": "galley.dev/v1alpha1",
    "kind": "Task",
    "metadata": {"name": "cat", "namespace": "shop", "labels": {}, "annotations": {}},
    "spec": {
        "queueName": "images",
        "handler": "resize.cat_2",
        "input": {"path": "cat.jpg", "sizes": [1, 2.5, None, True, {"a": []}]},
        "priority": "low",
        "timeoutSeconds": 1,
        "retry": {
            "attempts": 1,
            "backoffSeconds": 0.0,
            "maxBackoffSeconds": 0.0,
            "crashes": 1,
            "backoff": None,
            "waitsSeconds": [1.0, 60.0],
            "jitter": 0.5,
            "rules": [{"failures": ["ValueError", "exit 3"], "then": "snooze", "afterSeconds": 30.0}],
        },
        "notBefore": "2026-01-01T00:00:00Z",
        "deadline": "2026-01-01T01:00:00.250000+01:00",
        "ttlSecondsAfterFinished": 0,
        "unique": {"key": "k", "until": "finished", "seconds": 60, "onConflict": "replace"},
        "key": "customer-7",
    },
}


def a_spec(**fields: Any) -> TaskSpec:
    return TaskSpec.model_validate({"queueName": "images", "handler": "resize", **fields})


def test_a_task_needs_a_queue_and_a_handler() -> None:
    spec = a_spec()
    assert (spec.input, spec.priority) == ({}, Lane.NORMAL)
    assert (spec.timeout_seconds, spec.retry, spec.not_before, spec.deadline) == (None, None, None, None)


def test_a_task_survives_being_written_and_read() -> None:
    task = Task.model_validate(FULL)
    written = task.model_dump(by_alias=True, mode="json")
    assert written == FULL
    assert Task.model_validate(written) == task


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T01:30:00+01:30", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T00:00:00.123456789Z", datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)),
    ],
)
def test_a_moment_is_read_as_rfc_3339_writes_it(text: str, moment: datetime) -> None:
    assert a_spec(notBefore=text).not_before == moment


@pytest.mark.parametrize(
    "wrong",
    [
        "2026-01-01T00:00:00", "2026-01-01 00:00:00Z", "2026-01-01", "tomorrow", "", "2026-02-30T00:00:00Z",
        "2026-01-01T00:00:60Z", "2026-01-01T00:00:00+25:00", "0000-01-01T00:00:00Z", 1767225600, True, 1.5,
        datetime(2026, 1, 1),  # noqa: DTZ001 - that it is naive is the point
    ],
)  # fmt: skip
def test_what_is_no_moment_everywhere_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError) as caught:
        a_spec(deadline=wrong)
    (error,) = caught.value.errors()
    assert error["loc"] == ("deadline",)
    assert "such as 2026-03-01T08:30:00Z" in error["msg"]


def test_times_built_in_python_keep_their_offset() -> None:
    at = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3)))
    spec = TaskSpec(queue_name="images", handler="resize", not_before=at)
    assert spec.model_dump(mode="json")["not_before"] == "2026-01-01T00:00:00-03:00"


@pytest.mark.parametrize("value", [None, "text", 2**70, 0.5, [], {}, [[{"a": None}]], "é\u2028"])
def test_any_json_is_an_input(value: JsonValue) -> None:
    assert a_spec(input=value).input == value


@pytest.mark.parametrize(
    "value", [float("nan"), [float("inf")], {1: 2}, b"bytes", object(), "\ud800", {"a": {1}}]
)
def test_what_json_cannot_say_is_no_input(value: object) -> None:
    with pytest.raises(ValidationError):
        a_spec(input=value)


def test_an_input_of_exactly_the_limit_is_taken() -> None:
    assert a_spec(input="x" * (512 * 1024 - 2)).input
    with pytest.raises(ValidationError, match="the limit is 524288; submit the task from Python"):
        a_spec(input="x" * (512 * 1024 - 1))


def test_a_task_is_built_in_python_by_field_names() -> None:
    task = Task(metadata=Metadata(name="cat"), spec=TaskSpec(queue_name="images", handler="resize"))
    assert task.model_dump(by_alias=True)["spec"]["queueName"] == "images"
    assert (task.api_version, task.kind, task.metadata.namespace) == (
        "galley.dev/v1alpha1",
        "Task",
        "default",
    )
