"""Notes which `except` branches of the product are entered; Python imports it at its start (`make excepts`).

Every process of a test run that has this folder in PYTHONPATH adds a line to the file NOTED for each branch
it enters first. The compiled modules differ, so PYTHONPYCACHEPREFIX must name COMPILED, a folder for them. It
is also the sign to note: tests start processes without the variables whose names begin with GALLEY_.
"""

import ast
import builtins
import os
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, Final

ROOT: Final = Path(__file__).parents[3]
PRODUCT: Final = tuple(f"{ROOT}/{each}/" for each in ("sdk", "operator", "worker-image", "gateway", "local"))
COMPILED: Final = ROOT / ".excepts/compiled"
NOTED: Final = ROOT / ".excepts/entered"
_entered: set[str] = set()


def _enter(place: str) -> None:
    if place not in _entered:
        _entered.add(place)
        noted = os.open(NOTED, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(noted, f"{place}\n".encode())
        os.close(noted)


class _Branches(ast.NodeTransformer):
    def __init__(self, file: str) -> None:
        self._file = file

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        self.generic_visit(node)
        place = f"{self._file}:{node.lineno}"
        note = ast.parse(f"__except_entered__({place!r})").body[0]
        for each in ast.walk(note):
            ast.copy_location(each, node)
        node.body.insert(0, note)
        return node


_compiled = SourceFileLoader.source_to_code


def _compile(self: SourceFileLoader, data: Any, path: Any, **options: Any) -> CodeType:
    if str(path).startswith(PRODUCT):
        data = _Branches(os.path.relpath(path, ROOT)).visit(ast.parse(data))
    return _compiled(self, data, path, **options)


if sys.pycache_prefix == str(COMPILED):
    builtins.__except_entered__ = _enter  # type: ignore[attr-defined]
    SourceFileLoader.source_to_code = _compile  # type: ignore[assignment, method-assign]
