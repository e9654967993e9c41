"""Python files given to `galley dev`: how workers will import them, and what they declare."""

import ast
import asyncio
import importlib.util
import json
import re
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from galley.lanes import Lane
from galley.resources.meta import MODULE_PATTERN
from galley.topic import Subscribe
from galley_local.errors import FilesUnusable

Subscriptions = tuple[tuple[Subscribe, ...], Lane | None]
"""Those of a handler, and the lane of its tasks; None if it names none."""

_PROGRAM: Final = "__main__"

_IMPORT_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Module:
    """A Python file as workers import it."""

    path: Path
    """The file as it was given."""
    name: str
    import_paths: tuple[Path, ...]
    """Folders that are searched for it and for what it imports."""
    handlers: dict[str, list[str]]
    """Names of its handlers, by queue."""
    loaded: dict[str, str]
    """The modules in these folders that importing it loads, each with its file."""
    subscribes: dict[str, dict[str, Subscriptions]] = field(default_factory=dict)
    """By queue and handler, what it subscribes to."""
    anywhere: frozenset[str] = frozenset()
    """Names of the handlers that name no queue: each queue whose modules import it has them."""


async def read_module(path: Path) -> Module:
    """Import a file in another process and return what it declares.

    Raises:
        FilesUnusable: if workers cannot import it, or it declares no handlers.
    """
    file = path.parent.resolve() / path.name
    name, import_paths = _named(path, file)
    if not re.fullmatch(MODULE_PATTERN, name) or "." in file.stem or name == _PROGRAM:
        means = "the name of the running program" if name == _PROGRAM else "not the name of a Python module"
        raise FilesUnusable(
            f"{path} cannot be imported: {name!r} is {means}",
            "rename it: use the letters a to z, digits and _, and begin with a letter",
        )
    check_not_hidden(str(path), name, import_paths)
    module = await import_file(path, file, name, import_paths)
    if not module.handlers:
        raise FilesUnusable(
            f"{path} declares no handlers", "put @task on a function: from galley import task"
        )
    return module


async def import_file(path: Path, file: Path, name: str, import_paths: tuple[Path, ...]) -> Module:
    """Import a file in another process and return what it declares, which may be nothing.

    Args:
        path: what errors call it.
        file: the same, absolute.
        name: the name to import it by.
        import_paths: folders to search.

    Raises:
        FilesUnusable: if it does not import, or takes too long to.
    """
    found = await _discover(path, file, name, import_paths)
    if "error" in found:
        raise FilesUnusable(f"{path} does not import: {found['error']}", _hint(path, name, found))
    loaded = {module: where for module, where in found["loaded"].items() if "site-packages" not in where}
    subscribes = msgspec.convert(found["subscribes"], dict[str, dict[str, Subscriptions]])
    return Module(path, name, import_paths, found["queues"], loaded, subscribes, frozenset(found["anywhere"]))


def check_not_hidden(source: str, name: str, import_paths: Iterable[Path]) -> None:
    """Refuse a module of ours that has the name of an installed one: workers import that instead.

    Raises:
        FilesUnusable: naming the other module.
    """
    top = name.partition(".")[0]
    paths = tuple(import_paths)
    ours = next((place for folder in paths if (place := _in(folder, top)) is not None), None)
    if ours is None:
        return
    standard = top in {*sys.stdlib_module_names, "test"}
    kind = "Python's standard library" if standard else "an installed package"
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # a module that was loaded in an unusual way
        spec = None
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        return
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    if any(Path(place).exists() and Path(place).samefile(ours) for place in places):
        return
    raise FilesUnusable(
        f"{source}: the module {top!r} has the same name as a module of {kind}, which workers use themselves",
        f"rename {ours.name if ours.name != '__init__.py' else ours.parent.name}, for example to "
        f"{top}_tasks{'.py' if ours.name != '__init__.py' else ''}",
    )


def file_of(name: str, import_paths: Iterable[Path]) -> Path | None:
    """Return the file that is imported by a name, if it is in one of the folders."""
    *parents, last = name.split(".")
    return next((file for folder in import_paths if (file := _in(folder.joinpath(*parents), last))), None)


def _in(folder: Path, name: str) -> Path | None:
    # A package is preferred to a file of its name, as Python does.
    return next(
        (file for file in (folder / name / "__init__.py", folder / f"{name}.py") if file.is_file()), None
    )


def _named(path: Path, file: Path) -> tuple[str, tuple[Path, ...]]:
    """Return the name to import a file by, and the folders to search.

    A file that uses relative imports is imported as a part of its package, another one by its own name.
    """
    parts = [] if file.stem == "__init__" else [file.stem]
    root = file.parent
    while (root / "__init__.py").is_file() and root.name.isidentifier():
        parts.insert(0, root.name)
        root = root.parent
    beside = dict.fromkeys((file.parent, *([path.resolve().parent] if path.exists() else [])))
    if file.stem == "__init__" or (len(parts) > 1 and _relative(file)):
        return ".".join(parts), tuple(dict.fromkeys((root, *beside)))
    return file.stem, tuple(dict.fromkeys((*beside, root)))


def _relative(file: Path) -> bool:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError):
        return False  # importing it will say what is wrong
    return any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))


def _hint(path: Path, name: str, found: dict[str, Any]) -> str:
    if found["relative"]:
        return (
            "a relative import needs a package: add an empty __init__.py to each folder it goes through, or "
            "import without the leading dots"
        )
    if found["hint"]:
        return str(found["hint"])
    return f"for the whole traceback: python {path}" if "." not in name else f"look at the imports of {path}"


async def _discover(path: Path, file: Path, name: str, folders: tuple[Path, ...]) -> dict[str, Any]:
    # What the module starts may have the output, too, and go on: the end of a pipe would not come.
    with tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "galley_local.discover", name, str(file), *map(str, folders),
            stdin=asyncio.subprocess.DEVNULL, stdout=said, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_IMPORT_SECONDS):
                await process.wait()
        except TimeoutError:
            problem = f"{path} does not import within {_IMPORT_SECONDS:g} s"
            hint = "do such work in a handler, not where a module is imported"
            raise FilesUnusable(problem, hint) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        said.seek(0)
        answer = said.read()
    try:
        found: dict[str, Any] = json.loads(answer)
    except ValueError:
        raise FilesUnusable(
            f"{path} ended the process that imported it (exit code {process.returncode})",
            f"for what it prints: python {path}",
        ) from None
    return found
