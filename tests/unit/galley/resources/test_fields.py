"""What holds for each field of each resource."""

from enum import EnumType
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.alias_generators import to_camel

import galley.resources
from galley.resources import (
    DeclaredStatus,
    DeclaredWorkflowStatus,
    Task,
    TaskQueue,
    TaskQueueStatus,
    TaskSchedule,
    TaskScheduleStatus,
    Topic,
    TopicStatus,
    Workflow,
)
from galley.resources.description import descriptions
from galley.resources.meta import Part

NAMES: dict[str, Any] = {name: getattr(galley.resources, name) for name in galley.resources.__all__}
PARTS: list[type[BaseModel]] = [
    model for model in NAMES.values() if isinstance(model, type) and issubclass(model, Part)
]
FIELDS = [(part, name) for part in PARTS for name in part.model_fields]


def test_every_part_of_a_resource_is_a_public_name() -> None:
    more = (TaskSchedule, TaskScheduleStatus, Topic, TopicStatus, Workflow, DeclaredWorkflowStatus)
    kinds = (Task, TaskQueue, DeclaredStatus, TaskQueueStatus, *more)
    named = {name for kind in kinds for name in kind.model_json_schema()["$defs"]}
    public = {part.__name__ for part in PARTS}
    enums = {name for name, each in NAMES.items() if isinstance(each, EnumType)}
    others = {"Lane", "Phase", "JsonValue", "Overlap", "CatchUp", "Action", "OnFailure"}
    assert named - enums - others == public - {kind.__name__ for kind in kinds}


def test_the_public_names_are_these() -> None:
    assert set(galley.resources.__all__) == {
        "API_VERSION", "AccessMode", "Affinity", "Backoff", "ClaimSpec", "ClaimTemplate",
        "ClaimVolume", "Code",
        "Command", "Condition", "ConfigMapEnvSource", "ConfigMapKeyRef", "ConfigMapVolume",
        "DEFAULT_NAMESPACE", "DeclaredWorkflowStatus", "Workflow", "WorkflowSpec", "WorkflowStep",
        "DeclaredFailure", "DeclaredProgress", "DeclaredStatus",
        "EmptyDirVolume", "Encryption",
        "EnvironmentSource", "EnvironmentVariable", "EphemeralVolume", "GroupChange", "Handlers",
        "HttpHandler", "InitContainer", "InputAs",
        "KeyLimits", "StartRate", "KeyToPath", "LabelRequirement", "LaneStatus", "Limits",
        "LogLevel", "Medium", "Metadata", "NodeAffinity", "NodeSelector", "NodeSelectorTerm",
        "PodAffinity", "PodAffinityTerm", "PodResources", "Plaintext", "PodSelector", "PodTemplate",
        "PreferredNodes", "PullPolicy", "PullSecret", "Recycle", "Retention", "Retry",
        "RetryRule", "RetryBudget", "Circuit", "LifeEvents", "Scaling", "ScalingLimit", "ScalingMode",
        "ScalingStatus", "LaneScaling", "Minimum", "Weekday", "SecretEnvSource",
        "SecretKeyRef",
        "SecretVolume", "SecurityContext",
        "SelectorOperator", "StorageRequests", "StorageResources", "TaintEffect", "Task",
        "Then", "TaskQueue", "TaskQueueSpec", "TaskQueueStatus", "TaskSchedule", "TaskScheduleSpec",
        "TaskScheduleStatus", "TaskSpec", "TaskUnique", "TickStatus", "Toleration",
        "TolerationOperator", "Topic", "TopicRetention", "TopicSpec", "TopicStatus", "TopicSubscription",
        "TopologySpread", "Truth", "Unsatisfiable", "ValueFrom", "Volume",
        "VolumeMount", "WeightedPodAffinityTerm", "Worker", "WorkersStatus", "parse_manifests",
        "read_manifests",
    }  # fmt: skip


@pytest.mark.parametrize(("part", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_a_field_says_what_it_is_and_is_written_in_camel_case(part: type[BaseModel], name: str) -> None:
    field = part.model_fields[name]
    description = descriptions(part)[name]
    assert field.alias == to_camel(name)
    assert description.endswith(".")
    if name.endswith("_seconds"):
        assert "Seconds" in description


@pytest.mark.parametrize("part", PARTS)
def test_every_list_map_text_and_number_is_bounded(part: type[BaseModel]) -> None:
    unbounded = []
    for name, schema in part.model_json_schema().get("properties", {}).items():
        for shape in schema.get("anyOf", [schema]):
            unbounded += [f"{part.__name__}.{name}: {lack}" for lack in _lacking(shape)]
    assert unbounded == []


def _lacking(shape: dict[str, Any]) -> list[str]:
    needs = {
        "array": ["maxItems"], "object": ["maxProperties"], "integer": ["minimum", "maximum"],
        "number": ["minimum", "maximum"], "string": ["maxLength"],
    }.get(shape.get("type", ""), [])  # fmt: skip
    if "const" in shape or "enum" in shape or shape.get("format") == "date-time":
        return []
    return [need for need in needs if need not in shape]
