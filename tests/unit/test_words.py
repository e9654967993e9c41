"""One word for one thing: code speaks the words of the glossary in CONTRIBUTING.md."""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.support.source import ROOT, SOURCES

STRANGERS = {
    "job": "task", "jobs": "tasks",
    "enqueue": "submit", "enqueued": "submitted", "enqueues": "submits",
    "dequeue": "pull", "dequeued": "pulled",
    "dlq": "dead letter", "backpressure": "refusal",
}  # fmt: skip
"""Words others use, and ours for the same thing."""

ODD = re.compile(
    r"(?:\b|_)(anew|ought|nobody|somebody|anybody|everybody|whoever|for ever|let in|lets in|told of)(?:\b|_)",
    re.IGNORECASE,
)
"""Words that readers stumble over: say it again with those of the field."""

WRITTEN = (
    "sdk", "operator", "worker-image", "local", "gateway", "docs", "charts", "examples", "benchmarks",
    "tools", "tests", "e2e",
)  # fmt: skip
LITERATURE = ROOT / "examples/folder/input"
KINDS = {".py", ".html", ".js", ".md", ".yaml", ".yml", ".json", ".tpl", ".txt", ".toml"}

DOCUMENTED = re.compile(r'(?:#.*\n)*r?"""\s*\S')
ANY_STRANGER = re.compile("|".join(STRANGERS), re.IGNORECASE)

BUCKETS = {"util", "utils", "helper", "helpers", "common", "base", "manager", "misc", "models"}


def _words(text: str) -> Iterator[str]:
    """Yield the words in a text or identifier, in lower case: `enqueueJob` has two."""
    for word in re.findall(r"[A-Za-z][A-Za-z_]*", text):
        yield word.lower()
        apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).lower()
        yield from (each for each in apart.split("_") if each != word.lower())


def _spoken(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of identifiers, docstrings and comments, if a module has one of the words."""
    if not ANY_STRANGER.search(path.read_text("utf-8")):
        return
    with path.open("rb") as source:
        for token in tokenize.tokenize(source.readline):
            if token.type in (tokenize.NAME, tokenize.COMMENT):
                yield token.start[0], token.string
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield getattr(node, "lineno", 1), ast.get_docstring(node) or ""


def test_modules_use_the_words_of_the_glossary() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}: {word!r} is called {STRANGERS[word]!r} here"
        for path in SOURCES
        for line, text in _spoken(path)
        for word in _words(text)
        if word in STRANGERS
    }
    assert found == set()


def _odd_words() -> dict[str, list[str]]:
    """Return the odd words of each text that people read, by its path."""
    paths = [path for folder in WRITTEN for path in (ROOT / folder).rglob("*") if path.suffix in KINDS]
    paths += [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile"]
    found = {}
    for path in paths:
        if LITERATURE in path.parents or "_build" in path.parts or path == Path(__file__):
            continue
        if words := ODD.findall(path.read_text("utf-8")):
            found[str(path.relative_to(ROOT))] = words
    return found


def test_nothing_is_said_in_odd_words() -> None:
    assert _odd_words() == {}


def test_modules_are_named_for_one_thing_and_say_which() -> None:
    buckets = {path for path in SOURCES if BUCKETS & set(path.relative_to(ROOT).with_suffix("").parts)}
    assert buckets == set()
    texts = {path: path.read_text("utf-8").strip() for path in SOURCES}
    # Nothing but comments stand before a docstring.
    silent = {path for path, text in texts.items() if text and not DOCUMENTED.match(text)}
    assert silent == set()
