"""No log call passes a key that `logging` or our JSON lines reserve.

`logging` raises `KeyError` for a reserved key of `extra`, inside the very call that reports an error.
"""

import ast
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.source import ROOT, SOURCES

LOGGING: Final = [path for path in SOURCES if path != ROOT / "sdk/galley/logs.py"]

RESERVED: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
WRITTEN_FIRST: Final = frozenset({"time", "level", "event"})
ON_PURPOSE: Final = {"worker-image/galley_worker/journal.py": ["time"]}
"""The start of an attempt has the time at which its lease was checked, and not that of the line."""
"""Keys every JSON line begins with; a key of the same name would replace them."""

_LEVELS: Final = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})


def _keys(tree: ast.Module, node: ast.expr) -> Iterator[str]:
    """Yield the keys a dictionary expression may have, looked up in its module where it is named."""
    match node:
        case ast.Dict():
            for key, value in zip(node.keys, node.values, strict=True):
                if key is None:
                    yield from _keys(tree, value)
                else:
                    assert isinstance(key, ast.Constant), f"a computed key: {ast.unparse(node)}"
                    yield str(key.value)
        case ast.BinOp(left, ast.BitOr(), right) | ast.IfExp(_, left, right):
            yield from _keys(tree, left)
            yield from _keys(tree, right)
        case ast.Call(func) if not isinstance(func, ast.Lambda):
            yield from _named(tree, func)
        case _:
            yield from _named(tree, node)


def _named(tree: ast.Module, node: ast.expr) -> Iterator[str]:
    """Yield the keys of whatever in the module has the name of a variable, an attribute or a function."""
    name = node.attr if isinstance(node, ast.Attribute) else ast.unparse(node)
    found: list[ast.expr] = []
    for each in ast.walk(tree):
        match each:
            case ast.Assign(targets=[ast.Subscript(target, key)]) if ast.unparse(target).endswith(name):
                assert isinstance(key, ast.Constant), f"a computed key: {ast.unparse(each)}"
                yield str(key.value)
            case ast.Assign(targets=[target], value=value) if ast.unparse(target).endswith(name):
                found.append(value)
            case ast.AugAssign(target=target, value=value) if ast.unparse(target).endswith(name):
                found.append(value)
            case ast.AnnAssign(target=target, value=ast.Dict() as keys) if ast.unparse(target).endswith(name):
                found.append(keys)
            case ast.FunctionDef(name=defined) if defined == name:
                found += [
                    inner.value for inner in ast.walk(each) if isinstance(inner, ast.Return) and inner.value
                ]
    assert found, f"keys of a log call are not visible in its module: {ast.unparse(node)}"
    for value in found:
        yield from _keys(tree, value)


def _log_calls(tree: ast.Module) -> Iterator[tuple[ast.Call, ast.expr]]:
    """Yield each log call with keys, and the expression that gives them."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr in _LEVELS:
            yield from ((node, each.value) for each in node.keywords if each.arg == "extra")
        elif isinstance(node.func, ast.Name) and node.func.id == "log_often":
            yield node, node.args[3]


def clashes(source: str) -> list[str]:
    """Return what is wrong with the log calls of a module."""
    if "extra=" not in source and "log_often" not in source:
        return []
    tree = ast.parse(source)
    return [
        f"line {call.lineno}: {key}"
        for call, keys in _log_calls(tree)
        for key in _keys(tree, keys)
        if key in RESERVED | WRITTEN_FIRST
    ]


@pytest.mark.parametrize("path", LOGGING, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_log_call_passes_a_reserved_key(path: Path) -> None:
    found = [clash.partition(": ")[2] for clash in clashes(path.read_text("utf-8"))]
    assert found == ON_PURPOSE.get(str(path.relative_to(ROOT)), [])


@pytest.mark.parametrize(
    "source",
    [
        'log.info("x", extra={"name": 1})',
        'log.log(10, "x", extra=dict_ | {"args": 1})\ndict_ = {}',
        'def about():\n    return {"a": 1} if x else {"module": 2}\nlog.error("", extra={**about(), "b": 2})',
        'keys = {"a": 1}\nkeys |= {"lineno": 1}\nlog_often(log, 20, "x", keys)',
        'log.warning("x", extra={"event": 1})',
        'keys: dict[str, int] = {"a": 1}\nkeys["process"] = 1\nlog.info("x", extra=keys)',
        'keys: dict[str, int] = {"module": 1}\nkeys["b"] = 1\nlog.info("x", extra=keys)',
        'class A:\n    def b(self):\n        return {"msg": 1}\nlog.info("", extra=self.b())',
    ],
)
def test_a_reserved_key_is_found_wherever_it_comes_from(source: str) -> None:
    assert len(clashes(source)) == 1


def test_keys_that_cannot_be_seen_are_not_passed_over() -> None:
    with pytest.raises(AssertionError, match="not visible"):
        clashes('def f(keys):\n    log.info("x", extra=keys)')
