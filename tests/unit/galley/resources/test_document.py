"""YAML documents: what their values are, and the lines of their fields."""

import json
from pathlib import Path
from typing import Any

import pytest

from galley.resources.document import DEPTH_LIMIT, NotYaml, read_documents

AS_KUBECTL = json.loads((Path(__file__).parent / "kubectl_scalars.json").read_text())
"""Scalars as `sigs.k8s.io/yaml` v1.6.0 and kubectl's JSON decoder read them, or refused by them."""


@pytest.mark.parametrize("written", AS_KUBECTL)
def test_a_scalar_is_read_as_kubectl_reads_it(written: str) -> None:
    (document,) = read_documents(f"a: {written}")
    expected = AS_KUBECTL[written]
    assert bool(document.problems) == expected.get("refused", False)
    if "value" in expected:
        assert isinstance(document.value, dict)
        read = document.value["a"]
        assert (read, type(read)) == (expected["value"], type(expected["value"]))


@pytest.mark.parametrize(
    ("key", "meaning"), [("y", "true"), ("off", "false"), ("1", "1"), ("1e3", "1000"), ("~", "null")]
)
def test_a_key_that_is_not_text_is_refused_with_the_quotes_that_help(key: str, meaning: str) -> None:
    (document,) = read_documents(f"{key}: 1")
    (problem,) = document.problems
    assert f"which without quotes means {meaning}" in problem.problem
    assert problem.hint == f'put the key in quotes: "{key}"'
    (mended,) = read_documents(f'"{key}": 1')
    assert (mended.value, mended.problems) == ({key: 1}, [])


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-01-01", "2026-01-01"),
        ("2026-01-01 10:00:00", "2026-01-01 10:00:00"),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("1e3", 1000),
        ("-1E-2", -0.01),
        ("9" * 5000, "9" * 5000),
        ("1.5", 1.5),
        ("1_000", 1000),
        ("017", 15),
        ("-0x1f", -31),
        ("0b11", 3),
        ("'017'", "017"),
        ("!!str 1e3", "1e3"),
        ("yes", True),
        ("Off", False),
        ("y", True),
        ("~", None),
        ("", None),
        ("=", "="),
        ("v1.2.3", "v1.2.3"),
        ("100000000000000000000", 10**20),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_a_scalar_is_what_kubectl_and_json_make_of_it(written: str, read: object) -> None:
    (document,) = read_documents(f"a: {written}")
    value: Any = document.value
    assert (value, document.problems) == ({"a": read}, [])
    assert type(value["a"]) is type(read)


@pytest.mark.parametrize("written", ["!!int a", "!!float a", "!!bool a", "!!set {a}", ".nan"])
def test_a_scalar_that_cannot_be_read_is_a_problem(written: str) -> None:
    (document,) = read_documents(f"b: 1\na: {written}")
    (problem,) = document.problems
    assert (problem.line, problem.field) == (2, "a")
    assert problem.hint


MERGED = "x: &x {a: 1, b: 2}\nz: &z {a: 7, c: 8}\nu: &u {<<: *x, d: 4}\nv: {%s}"


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ("<<: *x, a: 3", {"a": 3, "b": 2}),
        ("<<: [*x, *z]", {"a": 1, "b": 2, "c": 8}),
        ("<<: *x, <<: *z", {"a": 7, "b": 2, "c": 8}),
        ("<<: *u", {"a": 1, "b": 2, "d": 4}),
        ("e: 5, <<: {f: 6}", {"e": 5, "f": 6}),
        ("'<<': *x", {"<<": {"a": 1, "b": 2}}),
        ("e: <<", {"e": "<<"}),
    ],
)
def test_mappings_are_merged_as_kubectl_merges_them(fields: str, read: object) -> None:
    (document,) = read_documents(MERGED % fields)
    assert isinstance(document.value, dict)
    assert (document.value["v"], document.problems) == (read, [])


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("<<: 3", "merges what is not a mapping"),
        ("<<: ~", "merges what is not a mapping"),
        ("<<: [[*x]]", "merges what is not a mapping"),
        ("<<: [*x, 3]", "merges what is not a mapping"),
        ("a: 3, <<: *x", "merges 'a', which is set before it, at line 4"),
        ("<<: *x, a: 3, a: 4", "is set twice, first at line 4"),
    ],
)
def test_a_merge_that_is_not_one_or_not_clear_is_refused(fields: str, problem: str) -> None:
    (document,) = read_documents(MERGED % fields)
    assert [each.problem for each in document.problems] == [problem]


def test_a_mapping_that_merges_itself_is_stopped() -> None:
    with pytest.raises(NotYaml, match="levels deep"):
        list(read_documents("a: &a {<<: *a}"))


def test_all_problems_of_a_document_are_found() -> None:
    (document,) = read_documents("a: .inf\nb: {1: 2}\nc: 1\nc: 2\n")
    assert [(problem.line, problem.field) for problem in document.problems] == [(1, "a"), (2, "b"), (4, "c")]


def test_a_field_is_found_at_its_key_and_an_entry_at_its_start() -> None:
    (document,) = read_documents("# note\na:\n  b:\n  - c: |\n      x\n    d: 1\n  - e\n")
    expected = {
        ("a",): 2, ("a", "b"): 3, ("a", "b", 0): 4, ("a", "b", 0, "d"): 6, ("a", "b", 1): 7,
        ("a", "missing"): 2, ("a", "b", 0, "missing", "too"): 4, ("a", "b", 9): 3, ("missing",): 2,
    }  # fmt: skip
    assert {place: document.line_of(place) for place in expected} == expected


def test_lines_count_through_the_whole_file() -> None:
    assert [
        document.line_of(()) for document in read_documents("a: 1\n---\n# note\n\nb: 1\n---\n---\nc: 1\n")
    ] == [1, 5, 8]


def test_nesting_up_to_the_limit_is_read() -> None:
    assert list(read_documents("[" * DEPTH_LIMIT + "]" * DEPTH_LIMIT))
    with pytest.raises(NotYaml):
        list(read_documents("[" * (DEPTH_LIMIT + 1) + "]" * (DEPTH_LIMIT + 1)))


def test_aliases_that_reach_deeper_than_the_text_are_stopped() -> None:
    chain = "- &a0 []\n" + "".join(f"- &a{number} [*a{number - 1}]\n" for number in range(1, 5000))
    with pytest.raises(NotYaml, match="levels deep"):
        list(read_documents(chain))
