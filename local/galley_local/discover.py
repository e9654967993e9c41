"""Imports a module and prints what it declares: `python -m galley_local.discover MODULE FILE FOLDER...`.

With a file alone, the module has its name, and its folder is where imports are found.

It runs in a separate process, so that import side effects do not reach `galley dev`.
"""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import msgspec

from galley.errors import GalleyError
from galley.registry import REGISTRY


def discover(module: str, file: Path, folders: list[str]) -> dict[str, Any]:
    """Import the module.

    Returns:
        `queues` (queue -> names of its handlers), `anywhere` (names of those that name no queue), `loaded`
        (module -> file, of those in the folders) and `subscribes` (queue -> name of a handler -> its
        subscriptions, and its lane);
        or `error`, `hint`, and whether it is about a `relative` import.
    """
    sys.path[:0] = folders
    try:
        importlib.import_module(module)
    except BaseException as error:
        return {
            "error": _place(file, error), "hint": getattr(error, "hint", ""),
            "relative": isinstance(error, ImportError) and "relative import" in str(error),
        }  # fmt: skip
    found = {queue: REGISTRY.of_queue(queue) for queue in REGISTRY.queues()}
    subscribes = {
        queue: {
            name: [msgspec.to_builtins(handler.subscribes), handler.lane]
            for name, handler in handlers.items()
            if handler.subscribes
        }
        for queue, handlers in found.items()
    }
    queues = {queue: sorted(handlers) for queue, handlers in found.items()}
    handlers = [handler for of_queue in found.values() for handler in of_queue.values()]
    anywhere = sorted({handler.name for handler in handlers if handler.any_queue})
    return {"queues": queues, "anywhere": anywhere, "loaded": _loaded(folders), "subscribes": subscribes}


def _loaded(folders: list[str]) -> dict[str, str]:
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and any(Path(file).is_relative_to(folder) for folder in folders):
            found[name] = file
    return found


def _place(file: Path, error: BaseException) -> str:
    """Return the error with the innermost line of the file itself."""
    what = str(error) if isinstance(error, GalleyError) else f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        where = "" if error.filename in {str(file), None} else f"{error.filename}, "
        line = "" if error.lineno is None else f"line {error.lineno}: "  # as of a file with null bytes
        return f"{where}{line}{type(error).__name__}: {error.msg}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"line {own[-1].lineno}: {what}" if own else what


if __name__ == "__main__":
    module, *places = sys.argv[1:]
    path = Path(places[0] if places else module).resolve()
    # The output of the module, and of what it starts, must not be mixed with the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump(discover(module if places else path.stem, path, places[1:] or [str(path.parent)]), answer)
    answer.close()
