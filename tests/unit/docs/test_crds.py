"""What the definitions of our kinds say, without an API server."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml

from docs.generate import crds
from docs.generate.crds import KINDS, TASK_QUEUES, TASKS, Kind, manifest, template

definition = cache(crds.definition)
"""None of these tests changes what it reads."""


def version_of(kind: Kind) -> dict[str, Any]:
    (version,) = definition(kind)["spec"]["versions"]
    return dict(version)


def spec_of(kind: Kind) -> dict[str, Any]:
    return dict(version_of(kind)["schema"]["openAPIV3Schema"]["properties"]["spec"])


def test_people_call_our_kinds_by_short_names() -> None:
    names = {kind.model.__name__: definition(kind)["spec"]["names"] for kind in KINDS}
    assert {kind: each["shortNames"] for kind, each in names.items()} == {
        "TaskQueue": ["tq"], "Task": ["tk"], "TaskSchedule": ["tsch"], "Topic": ["tpc"],
        "Workflow": ["wf"],
    }  # fmt: skip
    assert {each["plural"] for each in names.values()} == {
        "taskqueues", "tasks", "taskschedules", "topics", "workflows"
    }  # fmt: skip
    assert {word for each in names.values() for word in each["categories"]} == {"galley"}


def test_a_task_needs_a_spec_with_queue_and_handler_and_a_queue_needs_nothing() -> None:
    assert version_of(TASKS)["schema"]["openAPIV3Schema"]["required"] == ["spec"]
    assert spec_of(TASKS)["required"] == ["queueName", "handler"]
    assert "required" not in version_of(TASK_QUEUES)["schema"]["openAPIV3Schema"]
    assert spec_of(TASK_QUEUES)["default"] == {}


def test_the_spec_of_a_task_is_immutable_as_a_whole() -> None:
    rule, *_ = spec_of(TASKS)["x-kubernetes-validations"]
    assert (rule["rule"], rule["reason"]) == ("self == oldSelf", "FieldValueForbidden")


def test_unfinished_tasks_of_a_queue_can_be_selected() -> None:
    assert version_of(TASKS)["selectableFields"] == [
        {"jsonPath": ".spec.queueName"},
        {"jsonPath": ".status.phase"},
    ]


def test_only_a_queue_can_be_scaled() -> None:
    assert version_of(TASK_QUEUES)["subresources"]["scale"] == {
        "specReplicasPath": ".spec.scaling.workers",
        "statusReplicasPath": ".status.workers.replicas",
        "labelSelectorPath": ".status.workers.selector",
    }
    assert version_of(TASKS)["subresources"] == {"status": {}}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_each_column_and_path_is_a_field_of_the_schema(kind: Kind) -> None:
    whole = version_of(kind)["schema"]["openAPIV3Schema"]
    scale = version_of(kind)["subresources"].get("scale", {}).values()
    for path in [*(column.path for column in kind.columns), *kind.selectable, *scale]:
        if path.startswith(".metadata.") or "[?(" in path:
            continue
        found = whole
        for step in path.strip(".").split("."):
            found = found["properties"][step]
        assert found["type"] in {"string", "integer", "number"}, path


def _fields(schema: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        yield f"{place}.{name}", field
        yield from _fields(field.get("items", field), f"{place}.{name}")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_kubectl_can_explain_each_field(kind: Kind) -> None:
    whole = version_of(kind)["schema"]["openAPIV3Schema"]
    assert whole["description"].endswith(".")
    fields = dict(_fields(whole, kind.plural))
    assert len(fields) > 20
    assert [place for place, field in fields.items() if not field.get("description", "").endswith(".")] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_the_chart_brings_the_same_definition_and_may_leave_it_out_or_behind(kind: Kind) -> None:
    text = template(kind)
    assert text.startswith("{{- if .Values.crds.enabled }}\n")
    assert text.endswith("{{- end }}\n")
    assert "helm.sh/resource-policy: keep" in text
    plain = "".join(line for line in text.splitlines(keepends=True) if "{{-" not in line)
    read = yaml.safe_load(plain)
    assert read["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert read == yaml.safe_load(manifest(kind)) == definition(kind)
