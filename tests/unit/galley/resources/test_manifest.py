"""Manifests: what is read from files, and what a wrong one is told."""

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galley.errors import ManifestInvalid
from galley.lanes import Lane
from galley.resources import Task, TaskQueue, manifest, parse_manifests, read_manifests
from galley.resources.manifest import FILE_LIMIT, read_files
from galley.resources.problem import Explanation, explain
from tests.unit.galley.resources.wrong_manifests import LIST, QUEUE, TASK, WRONG, Wrong, indented
from tests.unit.galley.resources.wrong_pods import WRONG_PODS


@pytest.mark.parametrize("wrong", (WRONG | WRONG_PODS).values(), ids=WRONG | WRONG_PODS)
def test_a_wrong_manifest_is_refused_with_line_field_and_advice(wrong: Wrong) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        parse_manifests(wrong.text, "tasks.yaml")
    error = caught.value
    assert (error.line, error.field) == (wrong.line, wrong.field), str(error)
    assert wrong.problem in error.problem
    assert wrong.hint in error.hint
    assert error.hint
    place = f"tasks.yaml:{wrong.line}: " if wrong.line else "tasks.yaml: "
    assert str(error) == place + (f"{wrong.field}: " if wrong.field else "") + error.problem
    assert len(str(error) + error.hint) < 500
    jargon = r"Input should|pydantic|validation|\bdict\b|\btuple\b|\bstr\b|\bint\b|None\b|NoneType|<class"
    assert not re.search(jargon, error.problem + error.hint)


def test_all_problems_of_a_file_are_explained_at_once_by_line() -> None:
    text = f"{QUEUE}  zzz: 1\n  worker:\n    concurrency: 0\n---\n{TASK}  lane: 7\n---\nkind: Task\n"
    with pytest.raises(ManifestInvalid) as caught:
        parse_manifests(text, "tasks.yaml")
    first, others = caught.value, caught.value.others
    assert [(each.line, each.field) for each in (first, *others)] == [
        (6, "spec.zzz"), (8, "spec.worker.concurrency"), (17, "spec.lane"), (19, "apiVersion"),
    ]  # fmt: skip
    assert all(each.hint and not each.others for each in others)
    assert pickle.loads(pickle.dumps(first)).others[0].problem == others[0].problem


def test_the_problems_of_several_files_are_told_at_once(tmp_path: Path) -> None:
    good, first, second, absent = (tmp_path / f"{name}.yaml" for name in ("good", "a", "b", "absent"))
    good.write_text(TASK)
    first.write_text(TASK.replace("spec:", "sepc:"))
    second.write_text("a: [")
    with pytest.raises(ManifestInvalid) as caught:
        read_files([good, first, second, absent])
    told = {each.source for each in (caught.value, *caught.value.others)}
    assert told == {str(first), str(second), str(absent)}
    assert read_files([good]) == {good: read_manifests(good)}


def test_of_very_many_problems_ten_are_explained_and_the_others_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Explaining each of 200,000 unknown fields took a minute."""
    explained = []

    def counted(*arguments: Any) -> Explanation:
        explained.append(arguments)
        return explain(*arguments)

    monkeypatch.setattr(manifest, "explain", counted)
    unknown = "".join(f"  field{number}: 1\n" for number in range(5_000))
    with pytest.raises(ManifestInvalid, match=r"tasks.yaml:8: spec.field0: there is no such field") as caught:
        parse_manifests(TASK + unknown, "tasks.yaml")
    assert "(and 4999 more problems in this file)" in caught.value.hint
    assert [each.field for each in caught.value.others] == [f"spec.field{number}" for number in range(1, 10)]
    assert len(explained) == 10


RIGHT = {
    "a queue of one line": (QUEUE.replace("spec:\n", ""), ["TaskQueue/images"]),
    "a task": (TASK, ["Task/cat"]),
    "documents in their order": (
        f"---\n{TASK}---\n# nothing here\n---\n{QUEUE}  lanes: [low]\n...\n",
        ["Task/cat", "TaskQueue/images"],
    ),
    "a list": (
        LIST + indented(TASK) + indented(QUEUE + "  lanes: [low]\n"),
        ["Task/cat", "TaskQueue/images"],
    ),
    "a list inside a list": (LIST + indented(LIST + indented(TASK)), ["Task/cat"]),
    "a list as kubectl prints it": (
        LIST + indented(TASK) + "metadata: {resourceVersion: ''}\n",
        ["Task/cat"],
    ),
    "JSON": (
        (
            '{"apiVersion": "galley.dev/v1alpha1", "kind": "Task", "metadata": {"name": "cat"},'
            '\n "spec": {"queueName": "images", "handler": "resize"}}'
        ),
        ["Task/cat"],
    ),
    "the same name in two kinds": (
        TASK + "---\n" + QUEUE.replace("images", "cat") + "  lanes: [low]\n",
        ["Task/cat", "TaskQueue/cat"],
    ),
    "the same name in two namespaces": (
        TASK + "---\n" + TASK.replace("name: cat", "name: cat\n  namespace: b"),
        ["Task/cat", "Task/cat"],
    ),
    "aliases": (TASK + "  input: {a: &a [1], b: *a}\n", ["Task/cat"]),
    "Windows line ends": (TASK.replace("\n", "\r\n"), ["Task/cat"]),
}


@pytest.mark.parametrize(("text", "names"), RIGHT.values(), ids=RIGHT)
def test_a_right_manifest_is_read(text: str, names: list[str]) -> None:
    resources = parse_manifests(text, "tasks.yaml")
    assert [f"{resource.kind}/{resource.metadata.name}" for resource in resources] == names


def test_every_field_of_a_manifest_arrives() -> None:
    text = (
        TASK
        + "  input: {path: cat.jpg, width: 200}\n  priority: high\n"
        + "  timeoutSeconds: 9\n  retry: {attempts: 1}\n"
        + "  notBefore: 2026-01-01T00:00:00Z\n  deadline: 2026-01-01T00:00:00-00:30\n"
    )
    (task,) = parse_manifests(text, "tasks.yaml")
    assert isinstance(task, Task)
    assert task.spec.input == {"path": "cat.jpg", "width": 200}
    assert (task.spec.priority, task.spec.timeout_seconds) == (Lane.HIGH, 9)
    assert task.spec.retry is not None
    assert task.spec.retry.attempts == 1
    assert task.spec.not_before is not None
    assert task.spec.deadline is not None
    assert (task.spec.deadline - task.spec.not_before).total_seconds() == 1800


SLIPS = [
    "\n",
    "  ",
    "- ",
    ": ",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "!!",
    "'",
    '"',
    "|",
    "\t",
    "~",
    "<<: ",
    "---\n",
    "?",
]


@settings(max_examples=200, derandomize=True)
@given(
    st.sampled_from([QUEUE + "  lanes: [low]\n", TASK + "  input: {a: [1]}\n", LIST + indented(TASK)]),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 8), st.sampled_from(SLIPS)), max_size=4),
)
def test_slips_of_the_pen_end_in_a_manifest_or_in_advice(
    text: str, slips: list[tuple[int, int, str]]
) -> None:
    for at, cut, slip in slips:
        text = text[:at] + slip + text[at + cut :]
    advice = None
    try:
        assert parse_manifests(text, "tasks.yaml")
    except ManifestInvalid as error:
        advice = error
    if advice is not None:
        assert advice.problem
        assert advice.hint
        assert 1 <= advice.line <= len(text.splitlines()) + 1


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "queue.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + QUEUE.encode() + b"  timeoutSeconds: 7\n")
    (queue,) = read_manifests(path)
    assert isinstance(queue, TaskQueue)
    assert queue.spec.timeout_seconds == 7


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: caf\xe9\n")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (FILE_LIMIT + 1))
    below_a_file = latin / "x.yaml"
    expected = {
        tmp_path / "missing.yaml": (0, "there is no such file"),
        tmp_path: (0, "is a folder"),
        latin: (2, "byte 0xe9"),
        large: (0, "larger than 4 MiB"),
        below_a_file: (0, "cannot be read: Not a directory"),
    }
    for path, (line, problem) in expected.items():
        with pytest.raises(ManifestInvalid) as caught:
            read_manifests(path)
        assert caught.value.source == str(path)
        assert caught.value.line == line
        assert problem in caught.value.problem
        assert caught.value.hint
