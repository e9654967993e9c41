"""Names of a package that are imported when they are first used (PEP 562).

A process that only runs a handler, or declares one, needs neither the client nor what that imports, which
would be most of the time it takes to start; a worker needs one of our resources.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions `__getattr__` and `__dir__` of a package.

    Type checkers must not see them: to these, any name would be one of the package.

    Args:
        package: its name.
        modules: the module of each name that is imported when it is used.
    """
    namespace = vars(sys.modules[package])

    def get(name: str) -> Any:
        module = modules.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = namespace[name] = getattr(importlib.import_module(module), name)
        return found

    return get, lambda: sorted({*namespace, *modules})
