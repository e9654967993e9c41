"""Specs of objects that an API server keeps and no model takes."""

import pytest
from msgspec import Raw
from pydantic import BaseModel

from galley.errors import ManifestInvalid
from galley.resources import TaskQueueSpec
from galley.resources.schedule_status import TaskScheduleStatus
from galley.resources.task_schedule import TaskScheduleSpec
from galley.resources.topic import TopicSpec
from galley.resources.workflow import WorkflowSpec
from galley_operator.cluster.kept_object import KeptObject, ObjectMetadata


@pytest.mark.parametrize("model", [TaskQueueSpec, TaskScheduleSpec, TopicSpec, WorkflowSpec])
@pytest.mark.parametrize(
    "spec", [b'{"input":' + b"[" * 250 + b"]" * 250 + b"}", b"[]", b"7", b"", b"\xff", b"null"]
)
def test_a_spec_that_cannot_be_read_is_refused_with_a_hint(model: type[BaseModel], spec: bytes) -> None:
    thing = KeptObject(metadata=ObjectMetadata(name="a", namespace="b", uid="c"), spec=Raw(spec))
    with pytest.raises(ManifestInvalid) as refused:
        thing.spec_as(model, "Thing")
    assert refused.value.hint
    assert "Thing a" in str(refused.value)


@pytest.mark.parametrize("status", [b"[]", b"7", b'{"conditions": 5}', b"\xff"])
def test_a_status_that_cannot_be_read_counts_as_none(status: bytes) -> None:
    metadata = ObjectMetadata(name="a", namespace="b", uid="c")
    thing = KeptObject(metadata=metadata, spec=Raw(b"{}"), status=Raw(status))
    assert thing.status_as(TaskScheduleStatus) == TaskScheduleStatus()
