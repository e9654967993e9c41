"""`public_names.py` of packages whose names are imported when they are first used.

The names are written once, in the package's `__init__.py`, as imports that only type checkers and editors
carry out.
"""

import ast
from pathlib import Path
from typing import Final

_SDK: Final = Path(__file__).parents[2] / "sdk"

_HEAD: Final = '''"""The module of each name of `{package}`, imported when the name is first used."""

from typing import Final

MODULES: Final = {{
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


def document(package: str) -> str:
    """Return the module for a package."""
    found = modules((_SDK / package.replace(".", "/") / "__init__.py").read_text("utf-8"))
    entries = (f'    "{name}": "{module}",\n' for name, module in found.items())
    return _HEAD.format(package=package) + "".join(entries) + "}\n"
