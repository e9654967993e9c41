"""Workflow manifests: what becomes of inputs, and what is refused."""

from typing import Any

import msgspec
import pytest

from galley.errors import ManifestInvalid
from galley.resources import Workflow, parse_manifests
from galley.resources.workflow import graph_of
from galley.workflow.plan import compiled
from galley.workflow.result import Partial, StepResult


def manifest(*steps: dict[str, Any], name: str = "order", **spec: Any) -> str:
    steps = tuple({"queueName": "texts", "handler": "words"} | step for step in steps)
    body = {
        "apiVersion": "galley.dev/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"steps": steps, **spec},
    }  # fmt: skip
    return msgspec.json.encode(body).decode()


def read(text: str) -> Workflow:
    (workflow,) = parse_manifests(text, "order.json")
    assert isinstance(workflow, Workflow)
    return workflow


def test_an_argument_that_names_a_result_is_that_result_and_all_else_stays() -> None:
    given = {
        "whole": "${steps.pay.result}",
        "part": "${steps.pay.result.receipt.lines[2]}",
        "text": "$${steps.pay.result}",
        "price": "$5",
        "deep": {"list": [1, "${other}"]},
    }
    workflow = read(manifest({"name": "pay"}, {"name": "send", "input": given, "dependsOn": ["pay"]}))
    call, after = graph_of(workflow.spec).steps["send"]
    assert call.partial == Partial(  # type: ignore[union-attr]
        holes=(
            ("whole", StepResult("pay")),
            ("part", StepResult("pay", ("receipt", "lines", 2))),
        )
    )
    assert msgspec.json.decode(call.input) == {  # type: ignore[union-attr]
        "text": "${steps.pay.result}", "price": "$5", "deep": {"list": [1, "${other}"]},
    }  # fmt: skip
    assert after == ("pay",)


def test_a_step_depends_on_the_steps_whose_results_it_is_passed() -> None:
    workflow = read(manifest({"name": "last", "input": {"a": "${steps.first.result}"}}, {"name": "first"}))
    work = compiled(graph_of(workflow.spec))
    assert [draft.name for draft in work.first] == ["first"]
    assert work.queue == "texts"


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (({"name": "a", "dependsOn": ["a"]},), "depends on itself"),
        (({"name": "a", "dependsOn": ["b"]}, {"name": "b", "dependsOn": ["a"]}), "cycle: a after b after a"),
        (({"name": "a", "dependsOn": ["b"]},), "depends on step 'b', which is not there"),
        (({"name": "a", "input": {"x": "${steps.b.result}"}},), "depends on step 'b', which is not there"),
        (({"name": "a"}, {"name": "a"}), "has two steps 'a'"),
        (({"name": "a"}, {"name": "b", "input": {"x": "${steps.a}"}}), "which names no result"),
        (({"name": "a"}, {"name": "b", "input": {"x": "${env.HOME}"}}), "which names no result"),
        (({"name": "a"}, {"name": "b", "input": {"x": "${steps.a.result} "}}), "which names no result"),
        (({"name": "a"}, {"name": "b", "input": {"x": "see ${steps.a.result}"}}), "inside an argument"),
        (({"name": "a"}, {"name": "b", "input": {"x": ["${steps.a.result}"]}}), "inside an argument"),
        (({"name": "a"}, {"name": "b", "input": ["${steps.a.result}"]}), "inside an argument"),
        (({"name": "a", "input": {"x": "y" * 300_000}},), "the limit is 262144"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_with_the_step(steps: tuple[dict[str, Any], ...], says: str) -> None:
    with pytest.raises(ManifestInvalid) as refused:
        read(manifest(*steps))
    assert says in str(refused.value)
    assert refused.value.hint


def test_there_is_a_most_of_steps_and_of_a_name() -> None:
    with pytest.raises(ManifestInvalid, match="1000"):
        read(manifest(*({"name": f"s{number}"} for number in range(1001))))
    with pytest.raises(ManifestInvalid, match="more than 39 characters"):
        read(manifest({"name": "a"}, name="n" * 40))
