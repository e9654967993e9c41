import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import Raw

from galley.declared import DeclaredSpec, envelope_of, key_of, read_spec, spec_of
from galley.envelope import INPUT_LIMIT, NO_INPUT, conflicts, digest_of
from galley.errors import InputInvalid, ManifestInvalid, SubmissionInvalid
from galley.lanes import Lane
from galley.resources import Task, TaskSpec
from galley.unique import Unique, wanted

CREATED = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


def test_the_fields_read_are_those_of_the_resource() -> None:
    aliases = {field.alias or name for name, field in TaskSpec.model_fields.items()}
    assert set(DeclaredSpec.__struct_encode_fields__) == aliases


def test_what_the_model_writes_is_read_as_it_was_meant() -> None:
    model = TaskSpec.model_validate(
        {
            "queueName": "thumbs", "handler": "resize", "input": {"width": 10}, "priority": "high",
            "timeoutSeconds": 5,
            "retry": {"attempts": 7, "backoffSeconds": 2.5, "maxBackoffSeconds": 60, "crashes": 1},
            "notBefore": "2026-03-01T09:00:00Z", "deadline": "2026-03-01T12:00:00+01:00",
        }
    )  # fmt: skip
    spec = read_spec("one", model.model_dump_json(by_alias=True, exclude_none=True).encode())
    assert json.loads(bytes(spec.input)) == {"width": 10}
    assert (spec.priority, spec.timeout_seconds) == (model.priority, 5)
    assert model.retry is not None
    assert spec.retry == model.retry.policy()
    assert (spec.not_before, spec.deadline) == (model.not_before, model.deadline)


def test_the_input_travels_as_it_is() -> None:
    spec = read_spec("one", b'{"queueName": "q", "handler": "h", "input": {"a":  1.50, "b": null}}')
    assert bytes(envelope_of(spec, CREATED, NOW).input) == b'{"a":  1.50, "b": null}'


def test_a_time_to_start_that_has_passed_is_no_time_to_wait_for() -> None:
    spec = read_spec("one", b'{"queueName": "q", "handler": "h", "notBefore": "2026-03-01T08:29:00Z"}')
    assert envelope_of(spec, CREATED, NOW).not_before is None
    before = datetime(2026, 3, 1, 8, 28, tzinfo=UTC)
    assert envelope_of(spec, CREATED, before).not_before == before + timedelta(minutes=1)


def test_a_task_counts_as_submitted_when_it_was_made() -> None:
    spec = read_spec("one", b'{"queueName": "q", "handler": "h"}')
    assert envelope_of(spec, CREATED, NOW).submitted_at == CREATED


def test_an_input_too_large_is_refused() -> None:
    spec = read_spec(
        "one", json.dumps({"queueName": "q", "handler": "h", "input": "x" * INPUT_LIMIT}).encode()
    )
    with pytest.raises(InputInvalid):
        envelope_of(spec, CREATED, NOW)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"queueName": 3, "handler": "h"}',
        b'{"queueName": "q", "handler": "h", "priority": "urgent"}',
        b"nothing",
    ],
)
def test_a_spec_the_definitions_should_have_refused_is_named(body: bytes) -> None:
    with pytest.raises(ManifestInvalid, match="Task one: spec") as raised:
        read_spec("one", body)
    assert "same version" in raised.value.hint


SPECS: list[dict[str, object]] = [
    {"queueName": "q", "handler": "h"},
    {"queueName": "q", "handler": "h", "input": {"b": [1.0, 2, -0.5, 1e30, 2**70], "a": None, "é": "\u2028"}},
    {"queueName": "q", "handler": "h", "timeoutSeconds": 5, "retry": {"attempts": 7, "backoffSeconds": 2}},
    {"queueName": "q", "handler": "h", "priority": "high", "ttlSecondsAfterFinished": 3},
    {"queueName": "q", "handler": "h", "notBefore": "2026-03-01T09:00:00Z"},
    {"queueName": "q", "handler": "h", "deadline": "2026-03-01T09:00:00Z"},
    {"queueName": "q", "handler": "other"},
    {"queueName": "q", "handler": "h", "input": 1},
    {"queueName": "q", "handler": "h", "input": True},
    {"queueName": "q", "handler": "h", "input": "1"},
]


def by_galley_apply(spec: dict[str, object]) -> DeclaredSpec:
    return spec_of(Task.model_validate({"metadata": {"name": "one"}, "spec": spec}))


def by_kubectl_apply(spec: dict[str, object]) -> DeclaredSpec:
    """Return the spec as an API server hands it on: fields in another order, whole numbers without a dot."""

    def stored(value: object) -> object:
        if isinstance(value, dict):
            return {name: stored(each) for name, each in sorted(value.items(), reverse=True)}
        if isinstance(value, list):
            return [stored(each) for each in value]
        if isinstance(value, float) and value == int(value) and abs(value) < 2**63:
            return int(value)
        return float(value) if isinstance(value, int) and abs(value) >= 2**63 else value

    defaulted = TaskSpec.model_validate(spec).model_dump(mode="json", by_alias=True, exclude_none=True)
    defaulted["input"] = stored(spec.get("input", {}))
    return read_spec("one", json.dumps(defaulted).encode())


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_has_one_digest_whichever_command_applied_it(spec: dict[str, object]) -> None:
    assert by_galley_apply(spec).digest == by_kubectl_apply(spec).digest
    task = envelope_of(by_kubectl_apply(spec), CREATED, NOW, "u1")
    assert (task.uid, task.digest) == ("u1", by_galley_apply(spec).digest)


def test_another_spec_has_another_digest() -> None:
    digests = [by_galley_apply(each).digest for each in SPECS]
    assert len(set(digests)) == len(digests)


def test_the_same_moment_has_the_same_digest_in_every_time_zone() -> None:
    here, there = (
        by_galley_apply({"queueName": "q", "handler": "h", "deadline": at}).digest
        for at in ("2026-03-01T09:00:00Z", "2026-03-01T10:00:00+01:00")
    )
    assert here == there


def test_how_long_the_object_is_kept_is_not_part_of_the_digest() -> None:
    plain: dict[str, object] = {"queueName": "q", "handler": "h"}
    assert by_galley_apply(plain).digest == by_galley_apply({**plain, "ttlSecondsAfterFinished": 9}).digest


def test_a_digest_without_rules_conflicts_only_with_other_work() -> None:
    declared = digest_of("h", NO_INPUT, Lane.HIGH)
    assert not conflicts(declared, digest_of("h", NO_INPUT))
    assert conflicts(declared, digest_of("h", Raw(b"1")))
    assert conflicts(declared, digest_of("h", NO_INPUT, Lane.LOW))
    assert not conflicts(declared, "")
    assert not conflicts("", declared)


def test_a_number_too_large_for_any_float_has_a_digest() -> None:
    assert digest_of("h", Raw(b"1" + b"0" * 400)) != digest_of("h", Raw(b"1" + b"0" * 401))


def test_a_unique_key_of_a_manifest_is_that_of_a_program() -> None:
    spec = {"queueName": "images", "handler": "resize", "input": {"n": 1}}
    keyed = {**spec, "unique": {"key": "k", "seconds": 60, "onConflict": "replace"}}
    asked = key_of(spec_of(Task.model_validate({"metadata": {"name": "one"}, "spec": keyed})))
    assert asked == wanted(Unique(key="k", until=60, on_conflict="replace"), "resize", Raw(b'{"n":1}'))
    plain = spec_of(Task.model_validate({"metadata": {"name": "one"}, "spec": spec}))
    assert key_of(plain) is None
    assert (
        plain.digest
        != spec_of(Task.model_validate({"metadata": {"name": "one"}, "spec": {**spec, "unique": {}}})).digest
    )


INPUT = {
    "customer": "ann", "id": 7, "deep": {"a-b": {"c": "x"}}, "none": None, "list": ["a"], "object": {},
    "half": 0.5, "yes": True, "empty": "", "large": "x" * 10_240,
}  # fmt: skip


def a_keyed_spec(key: str, given: Any = INPUT) -> DeclaredSpec:
    spec = {"queueName": "images", "handler": "resize", "input": given, "key": key}
    return spec_of(Task.model_validate({"metadata": {"name": "one"}, "spec": spec}))


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ("ann", "ann"),
        ("$", "$"),
        ("a${input.id}", "a${input.id}"),
        ("$${input.id}", "${input.id}"),
        ("${input.customer}", "ann"),
        ("${input.id}", "7"),
        ("${input.deep.a-b.c}", "x"),
    ],
)
def test_a_task_takes_its_key_from_its_input_where_it_asks_for_that(asked: str, key: str) -> None:
    assert envelope_of(a_keyed_spec(asked), NOW, NOW).key == key


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("${input.nowhere}", "input has no field 'nowhere'"),
        ("${input.customer.name}", "input.customer has no field 'name'"),
        ("${input.none}", "input.none is null"),
        ("${input.list}", "input.list is"),
        ("${input.object}", "input.object is"),
        ("${input.half}", "input.half is 0.5"),
        ("${input.yes}", "input.yes is True"),
        ("${input.empty}", "use a text that is not empty"),
        ("${input.large}", "10240 bytes, the limit is 256"),
    ],
)
def test_a_task_whose_input_has_no_key_where_it_says_is_refused(asked: str, problem: str) -> None:
    with pytest.raises(SubmissionInvalid) as refused:
        envelope_of(a_keyed_spec(asked), NOW, NOW)
    assert problem in f"{refused.value}; {refused.value.hint}"


def test_a_key_that_an_older_definition_let_pass_is_refused() -> None:
    with pytest.raises(SubmissionInvalid, match="names no part of the input"):
        envelope_of(DeclaredSpec("images", "resize", key="${x}"), NOW, NOW)
    with pytest.raises(SubmissionInvalid, match="input has no field 'x'"):
        envelope_of(a_keyed_spec("${input.x}", ["x"]), NOW, NOW)
