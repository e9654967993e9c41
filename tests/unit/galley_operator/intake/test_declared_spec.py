import json
from datetime import UTC, datetime, timedelta

import pytest

from galley.envelope import INPUT_LIMIT
from galley.errors import InputInvalid, ManifestInvalid
from galley.resources import TaskSpec
from galley_operator.intake.declared_spec import DeclaredSpec, envelope_of, read_spec
from tests.unit.galley_operator.intake.tasks import CREATED, NOW


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
