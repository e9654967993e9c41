"""Code blocks in documents are valid: Python parses, manifests are accepted, commands exist."""

import argparse
import ast
import re
import shlex
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import galley
from galley.cli.command import PLUG_INS
from galley.cli.main import OWN_COMMANDS, load
from galley.resources.manifest import read_manifests

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("examples/**/README.md"))]
FENCE = re.compile(r"^```(?P<language>\w+)[^\n`]*\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of a page."""

    where: str
    body: str


def _blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for fence in FENCE.finditer(text):
            if fence["language"] in languages:
                line = text[: fence.start()].count("\n") + 1
                found.append(Block(f"{page.relative_to(ROOT)}:{line}", fence["body"]))
    assert len(found) > 5
    return found


@pytest.mark.parametrize("block", _blocks("python"), ids=lambda block: block.where)
def test_python_parses_and_uses_public_names(block: Block) -> None:
    tree = compile(block.body, block.where, "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "galley"
    }
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "galley"
        for alias in node.names
    }
    assert used | imported <= set(galley.__all__)


@pytest.mark.parametrize("block", _blocks("yaml"), ids=lambda block: block.where)
def test_manifests_are_accepted(block: Block, tmp_path: Path) -> None:
    documents = [each for each in yaml.safe_load_all(block.body) if each]
    if all("kind" not in each and set(each) == {"spec"} for each in documents):
        documents = [_a_queue(each["spec"]) for each in documents]
    ours = [each for each in documents if each.get("apiVersion") == "galley.dev/v1alpha1"]
    if ours:
        file = tmp_path / "manifest.yaml"
        file.write_text(yaml.safe_dump_all(ours))
        assert len(read_manifests(file)) == len(ours)


def _a_queue(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "galley.dev/v1alpha1", "kind": "TaskQueue", "metadata": {"name": "queue"}, "spec": spec,
    }  # fmt: skip


@cache
def _parsers() -> dict[str, argparse.ArgumentParser]:
    parsers = {}
    for entry in (*entry_points(group=PLUG_INS), *OWN_COMMANDS):
        command = load(entry)
        parsers[command.name] = argparse.ArgumentParser(exit_on_error=False)
        command.arguments(parsers[command.name])
    return parsers


def _options(parser: argparse.ArgumentParser) -> set[str]:
    found = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found |= {option for each in action.choices.values() for option in _options(each)}
    return found


@pytest.mark.parametrize("block", _blocks("sh", "console"), ids=lambda block: block.where)
def test_commands_of_galley_have_valid_arguments(block: Block) -> None:
    parsers = _parsers()
    for line in re.findall(r"^(?:\$ )?(galley .*)$", block.body, re.MULTILINE):
        words = shlex.split(line.split(" > ")[0], comments=True)
        assert words[1] in parsers, line
        parsers[words[1]].parse_args(words[2:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_within_sentences_have_options_that_exist(page: Path) -> None:
    parsers = _parsers()
    prose = FENCE.sub("", page.read_text("utf-8"))
    for command, rest in re.findall(r"`galley ([a-z]+(?:-[a-z]+)*)([^`]*)`", prose):
        assert command in parsers, command
        given = {word.partition("=")[0] for word in re.findall(r"(?<!\S)-{1,2}[a-z][^\s`]*", rest)}
        assert given <= _options(parsers[command]), f"galley {command}{rest}"
