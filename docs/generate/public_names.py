"""`sdk/galley/public_names.py`: the module of each public name of `galley`.

They are written once in `galley/__init__.py`, as imports that only type checkers and editors carry out.
"""

import ast
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).parents[2] / "sdk/galley/__init__.py"

_HEAD: Final = '''"""The module of each public name of `galley`, imported when the name is first used."""

from typing import Final

MODULES: Final = {
'''


def modules(source: str) -> dict[str, str]:
    """Return the module of each name that the source imports `if TYPE_CHECKING`."""
    (block,) = (node for node in ast.parse(source).body if isinstance(node, ast.If) and _is_typing(node.test))
    found = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    return dict(sorted(found.items()))


def _is_typing(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def document() -> str:
    """Return the module."""
    found = modules(_SOURCE.read_text("utf-8"))
    return _HEAD + "".join(f'    "{name}": "{module}",\n' for name, module in found.items()) + "}\n"
