"""One word for one thing: code speaks the words of the glossary in CONTRIBUTING.md."""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("sdk/galley", "operator/galley_operator", "worker-image/galley_worker", "local/galley_local")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

STRANGERS = {
    "job": "task", "jobs": "tasks",
    "enqueue": "submit", "enqueued": "submitted", "enqueues": "submits",
    "dequeue": "pull", "dequeued": "pulled",
    "dlq": "dead letter", "backpressure": "refusal",
}  # fmt: skip
"""Words others use, and ours for the same thing."""

BUCKETS = {"util", "utils", "helper", "helpers", "common", "base", "manager", "misc", "models"}


def _words(text: str) -> Iterator[str]:
    """Yield the words in a text or identifier, in lower case: `enqueueJob` has two."""
    for word in re.findall(r"[A-Za-z][A-Za-z_]*", text):
        yield word.lower()
        apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).lower()
        yield from (each for each in apart.split("_") if each != word.lower())


def _spoken(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every identifier, docstring and comment."""
    with path.open("rb") as source:
        for token in tokenize.tokenize(source.readline):
            if token.type in (tokenize.NAME, tokenize.COMMENT):
                yield token.start[0], token.string
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield getattr(node, "lineno", 1), ast.get_docstring(node) or ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_uses_no_strangers_words(path: Path) -> None:
    found = {
        f"line {line}: {word!r} is called {STRANGERS[word]!r} here"
        for line, text in _spoken(path)
        for word in _words(text)
        if word in STRANGERS
    }
    assert found == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_named_for_one_thing_and_says_which(path: Path) -> None:
    assert BUCKETS.isdisjoint(path.relative_to(ROOT).with_suffix("").parts)
    text = path.read_text("utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "it does not say what it is"


def test_strangers_are_found_in_names_of_any_spelling() -> None:
    assert {"job"} <= set(_words("jobTimeout"))
    assert {"enqueue"} <= set(_words("_enqueue_many"))
    assert not {"job", "task"} & set(_words("jobless"))
