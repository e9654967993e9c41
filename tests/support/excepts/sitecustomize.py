"""Notes which `except` branches of the product are entered, and which `suppress` calls suppress something.

Python imports it at its start (`make excepts`). Every process of a test run that has this folder in
PYTHONPATH adds a line to the file NOTED for each of them that it enters first. The compiled modules differ,
so PYTHONPYCACHEPREFIX must name COMPILED, a folder for them. It is also the sign to note: tests start
processes without the variables whose names begin with GALLEY_.
"""

import ast
import builtins
import os
import sys
from contextlib import AbstractContextManager, suppress
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, Final, TypeGuard

ROOT: Final = Path(__file__).parents[3]
PRODUCT: Final = tuple(f"{ROOT}/{each}/" for each in ("sdk", "operator", "worker-image", "gateway", "local"))
COMPILED: Final = ROOT / ".excepts/compiled"
NOTED: Final = ROOT / ".excepts/entered"
_entered: set[str] = set()


def _enter(place: str) -> None:
    if place not in _entered:
        _entered.add(place)
        with suppress(PermissionError):  # of a process that has become another user's
            noted = os.open(NOTED, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.write(noted, f"{place}\n".encode())
            os.close(noted)


class _Suppress:
    """A `suppress` that notes when it suppresses something."""

    def __init__(self, place: str, suppress: AbstractContextManager[None, bool]) -> None:
        self._place, self._suppress = place, suppress

    def __enter__(self) -> None:
        self._suppress.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        if suppressed := self._suppress.__exit__(kind, error, trace):
            _enter(self._place)
        return bool(suppressed)


def is_suppress(node: ast.AST) -> TypeGuard[ast.Call]:
    """Return whether it is a call of `contextlib.suppress`."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) in {"suppress", "contextlib.suppress"}


class _Branches(ast.NodeTransformer):
    def __init__(self, file: str) -> None:
        self._file = file

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        self.generic_visit(node)
        note = ast.Expr(self._call("__except_entered__", node))
        node.body.insert(0, ast.copy_location(note, node))
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return self._call("__suppress__", node, node) if is_suppress(node) else node

    def _call(self, name: str, at: ast.AST, *arguments: ast.expr) -> ast.Call:
        place = ast.Constant(f"{self._file}:{at.lineno}")  # type: ignore[attr-defined]
        call = ast.Call(ast.Name(name, ast.Load()), [place, *arguments], [])
        for each in (call, call.func, place):
            ast.copy_location(each, at)
        return call


_compiled = SourceFileLoader.source_to_code


def _compile(self: SourceFileLoader, data: Any, path: Any, **options: Any) -> CodeType:
    if str(path).startswith(PRODUCT):
        data = _Branches(os.path.relpath(path, ROOT)).visit(ast.parse(data))
    return _compiled(self, data, path, **options)


if sys.pycache_prefix == str(COMPILED):
    builtins.__except_entered__ = _enter  # type: ignore[attr-defined]
    builtins.__suppress__ = _Suppress  # type: ignore[attr-defined]
    SourceFileLoader.source_to_code = _compile  # type: ignore[assignment, method-assign]
