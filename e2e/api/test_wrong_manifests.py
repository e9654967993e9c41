"""What the models refuse, an API server refuses, and where we have the words, in the same ones.

The table is that of the models' own tests. Where the two differ is said here, case by case, so that a new
case has to be placed, and a cluster that starts to say something else is noticed.
"""

import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from e2e.api.conftest import CRDS
from e2e.api.dry_run import DryRun, dry_runs
from galley.resources import API_VERSION
from galley.resources.document import NotYaml, read_documents
from galley.resources.manifest import KINDS
from tests.support.api_server import ApiServer
from tests.unit.galley.resources.test_task import FULL as FULL_TASK
from tests.unit.galley.resources.test_task_queue import FULL as FULL_QUEUE
from tests.unit.galley.resources.wrong_manifests import WRONG, Wrong
from tests.unit.galley.resources.wrong_pods import WRONG_PODS

REQUIRED = ": Required value"
LEAST = "should be greater than or equal to"
MOST = "should be less than or equal to"
ONE_OF = ": Unsupported value: "
UNKNOWN = "strict decoding error: unknown field"
TYPE = "in body must be of type"

IN_ITS_OWN_WORDS = {
    # Numbers of parts that may be left out.
    "no task of a key at once": "should be greater than or equal to 1",
    "a rate of none": "should be greater than or equal to 1",
    "a rate in no time": "should be greater than or equal to 1",
    "no task of a queue at once": "should be greater than or equal to 1",
    "no start of a queue": "should be greater than or equal to 1",
    "a key of no weight": "should be greater than or equal to 1",
    "short retention of dead letters": "should be greater than or equal to 3600",
    # Metadata is Kubernetes' own.
    "no name": "name or generateName is required",
    "no metadata": "name or generateName is required",
    "metadata null": "name or generateName is required",
    "name a number": "cannot unmarshal number",
    "name a truth value": "cannot unmarshal bool",
    "name too long": "use 1 to 63 of",
    "label key": "metadata.labels: Invalid value",
    "label value": "metadata.labels: Invalid value",
    "annotations too long": "metadata.annotations: Too long",
    # Fields and their types.
    "field misspelt": UNKNOWN,
    "field in snake_case": UNKNOWN,
    "field of nowhere": UNKNOWN,
    "part of a pod that is not allowed": UNKNOWN,
    "wrong queue field": UNKNOWN,
    "code of nowhere": REQUIRED,
    "command without argv": REQUIRED,
    "secret without a key": REQUIRED,
    "folder without a limit": REQUIRED,
    "spread without places": REQUIRED,
    "volume of the node": UNKNOWN,
    "mount made shared": UNKNOWN,
    "init container with privileges": UNKNOWN,
    "worker with privileges": UNKNOWN,
    "worker that may be root": UNKNOWN,
    "neighbours in other namespaces": UNKNOWN,
    "no handler": REQUIRED,
    "no spec": REQUIRED,
    "lanes a text": f"{TYPE} array",
    "worker a list": f"{TYPE} object",
    "number in quotes": f"{TYPE} integer",
    "endless hexadecimal": f"{TYPE} integer",
    "overflowing": f"{TYPE} integer",
    "number a truth value": f"{TYPE} int32",
    "number with a fraction": f"{TYPE} int32",
    "number with a unit": f"{TYPE} integer",
    "argument a number": f"{TYPE} string",
    "variable a number": f"{TYPE} string",
    "secret that is there perhaps": f"{TYPE} boolean",
    "quantity with a fraction": f"{TYPE} integer,string",
    # Choices and bounds.
    "lane misspelt": ONE_OF,
    "input as a file": ONE_OF,
    "effect misspelt": ONE_OF,
    "pull policy misspelt": ONE_OF,
    "worker as root": LEAST,
    "no skew": LEAST,
    "memory in gigabytes": "should match",
    "lane unknown": ONE_OF,
    "no lanes": "should have at least 1 items",
    "command without words": "should have at least 1 items",
    "five lanes": "must have at most 4 items",
    "no slots": LEAST,
    "too many slots": MOST,
    "backoff below zero": LEAST,
    "crashes": MOST,
    "tiny backlog": LEAST,
    "short retention": LEAST,
    "timeout of zero": LEAST,
    "retry too often": MOST,
    "kept for less than nothing": LEAST,
    "quantity below zero": LEAST,
    "quantity in words": "should match",
    # Times.
    "no offset": "is not a time as RFC 3339 writes it; write date, time and offset from UTC",
    "no such month": "is not a time as RFC 3339 writes it; write date, time and offset from UTC",
    "time a number": f"{TYPE} string",
}
"""What the shape of a field refuses, and Kubernetes words itself."""

TAKEN = {
    "status": "a spec of null is one that is left out, and a status is the operator's to write",
    "number null": "null stands for the default",
    "input too large": "no rule can see the size of an input: the operator refuses it with a condition",
    "no part of an event": "the operator checks the parts of events, and refuses it with a condition",
}
"""What a cluster takes, and why."""


def of_one_resource() -> Iterator[tuple[str, Wrong, dict[str, Any]]]:
    """Yield the cases that are about a resource, and not about the file around it."""
    for name, wrong in (WRONG | WRONG_PODS).items():
        try:
            documents = list(read_documents(wrong.text))
        except NotYaml:
            continue
        if len(documents) == 1 and not documents[0].problems:
            value = documents[0].value
            if (
                isinstance(value, dict)
                and value.get("kind") in KINDS
                and value.get("apiVersion") == API_VERSION
            ):
                metadata = value.get("metadata")
                yield name, wrong, value | ({"metadata": _anywhere(metadata)} if "metadata" in value else {})


def _anywhere(metadata: Any) -> Any:
    """Return metadata without a namespace: a cluster would ask for that first."""
    return {key: word for key, word in (metadata or {}).items() if key != "namespace"}


CASES = {name: (wrong, value) for name, wrong, value in of_one_resource()}
IN_OUR_WORDS = sorted(CASES.keys() - IN_ITS_OWN_WORDS.keys() - TAKEN.keys())


@pytest.fixture(scope="module")
def dry_run(galley_api: ApiServer) -> Iterator[DryRun]:
    with dry_runs(galley_api, "default") as asked:
        yield asked


@pytest.mark.parametrize("name", IN_OUR_WORDS)
def test_what_a_model_refuses_a_cluster_refuses_in_the_same_words(dry_run: DryRun, name: str) -> None:
    wrong, value = CASES[name]
    answer = dry_run.create(value)
    assert answer.status == 422
    assert wrong.problem in answer.message
    assert wrong.hint in answer.message


@pytest.mark.parametrize("name", IN_ITS_OWN_WORDS)
def test_what_does_not_fit_its_field_is_refused_in_the_words_of_kubernetes(
    dry_run: DryRun, name: str
) -> None:
    _, value = CASES[name]
    answer = dry_run.create(value)
    assert not answer.taken
    assert IN_ITS_OWN_WORDS[name] in answer.message


@pytest.mark.parametrize("name", TAKEN)
def test_what_only_a_manifest_is_refused_for_a_cluster_takes(dry_run: DryRun, name: str) -> None:
    _, value = CASES[name]
    assert dry_run.create(value).message == ""


POKES: tuple[Any, ...] = (
    -1, 0, 1, 2, 0.5, 64, 301, 2**31, 2**53, 2**63, 1e300, True, False,
    "", " ", "a", "A", "7", "-a", "a-", "a.b", "a/b", "a b", "a:b", "a\0", "a\n", "é", "a.py", "é" * 63,
    "a" * 63, "a" * 64, "a" * 253, "a" * 254, "a" * 4096, "a" * 4097,
    "critical", "args", "Exists", "NoSchedule", "500m", "1Ki", "1e3", ".5", "GALLEY_X", "galley.dev/a",
    "2026-01-01T00:00:00Z", "2030-02-29T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01 00:00:00Z",
    "2026-01-01T00:00:00.0123456789Z", "2026-12-31T23:59:60Z", "2026-01-01t00:00:00z", "0000-01-01T00:00:00Z",
    "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00-23:59", "2026-01-01T00:00Z", "2026-01-01T00:00:00,5Z",
    "2026-06-31", "9999-12-31T23:59:59.999999999-12:00",
    [], ["a"], ["a", "a"], ["a"] * 65, [1], [" "], [{}],
    {}, {"a": "b"}, {"a b": "c"}, {"a": 1}, {"galley.dev/a": "b"}, {f"k{n}": "v" for n in range(33)},
)  # fmt: skip
"""Values that are right at some place and wrong at others."""

ONLY_MODELS = ("timeZone",)
"""What the API server cannot judge, having no list of time zones: the operator refuses it in a condition."""


def _places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the way to each value in a value, itself included."""
    yield place
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        yield from _places(inner, (*place, key))


def _poked(value: Any, place: tuple[str | int, ...], poke: Any) -> Any:
    """Return a manifest with the value at one place replaced."""
    if not place:
        return poke
    step, *rest = place
    poked = value.copy()
    poked[step] = _poked(value[step], tuple(rest), poke)
    return poked


@cache
def _schema(kind: str) -> Any:
    """Return what the definition of a kind says of its `spec`."""
    for file in CRDS.glob("*.yaml"):
        definition = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)  # the other one takes a second
        if definition["spec"]["names"]["kind"] == kind:
            return definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    raise AssertionError(kind)


def _alone(full: dict[str, Any], part: tuple[str | int, ...]) -> dict[str, Any]:
    """Return a manifest with one part, and those that a rule of the definition compares with it.

    The API server judges the others on their own, at four times what it costs to judge one.
    """
    manifest = deepcopy(full)
    owner, schema = manifest["spec"], _schema(full["kind"])
    for step in part[1:]:
        rules = [each["rule"] for each in schema.get("x-kubernetes-validations", ())]
        compared = [set(re.findall(r"\bself\.(\w+)", rule)) for rule in rules]
        kept = {step, *schema.get("required", ())}.union(*(names for names in compared if step in names))
        for key in owner.keys() - kept:
            del owner[key]
        owner, schema = owner[step], schema["properties"][step]
    return manifest


def _refusal(manifest: dict[str, Any]) -> str:
    try:
        KINDS[manifest["kind"]].model_validate(manifest, by_alias=True, by_name=False)
    except ValidationError as error:
        return str(error)
    return ""


def _parts() -> Iterator[tuple[str, dict[str, Any], tuple[str | int, ...]]]:
    """Yield the parts of both kinds that are tried together, each with the manifest it belongs to."""
    for full in (FULL_QUEUE, FULL_TASK):
        spec = full["spec"]
        worker = spec.get("worker", {})
        template = worker.get("template", {})
        parts: list[tuple[str | int, ...]] = [("spec", key) for key in spec if key not in ("worker", "input")]
        parts += [("spec", "worker", key) for key in worker if key != "template"]
        parts += [("spec", "worker", "template", key) for key in template]
        for part in parts:
            yield f"{full['kind']}-{part[-1]}", full, part


PARTS = list(_parts())


@pytest.mark.parametrize(("full", "part"), [each[1:] for each in PARTS], ids=[each[0] for each in PARTS])
def test_models_and_cluster_judge_alike_wherever_a_value_is_replaced(
    dry_run: DryRun, full: dict[str, Any], part: tuple[str | int, ...]
) -> None:
    full = _without_nulls(full | {"metadata": {"name": "a"}})
    assert dry_run.create(full).message == ""
    alone = _alone(full, part)
    assert dry_run.create(alone).message == ""
    apart = []
    inside: Any = full
    for step in part:
        inside = inside[step]
    for place in _places(inside, part):
        for poke in POKES:
            refusal, answer = _refusal(_poked(full, place, poke)), dry_run.create(_poked(alone, place, poke))
            if bool(refusal) == answer.taken and not (refusal and place[-1] in ONLY_MODELS):
                apart.append(f"{'.'.join(map(str, place))} = {str(poke)[:60]!r}: {refusal or answer.message}")
    assert apart == []


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
