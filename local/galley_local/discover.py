"""Tells what handlers a Python file declares: `python -m galley_local.discover FILE`.

In a process of its own, so that what the file does at its import does not happen to `galley dev`.
"""

import contextlib
import importlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from galley.errors import GalleyError
from galley.registry import REGISTRY


def discover(path: Path) -> dict[str, Any]:
    """Import the file; returns `queues` (queue -> handler names), or `error` and `hint`."""
    sys.path.insert(0, str(path.parent))
    try:
        # What it prints must not be taken for our answer.
        with contextlib.redirect_stdout(sys.stderr):
            importlib.import_module(path.stem)
    except BaseException as error:
        return {"error": _place(path, error), "hint": getattr(error, "hint", "")}
    return {"queues": {queue: sorted(REGISTRY.of_queue(queue)) for queue in REGISTRY.queues()}}


def _place(path: Path, error: BaseException) -> str:
    """Return what happened, with the innermost line of the file itself that was running."""
    what = str(error) if isinstance(error, GalleyError) else f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {type(error).__name__}: {error.msg}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"line {own[-1].lineno}: {what}" if own else what


if __name__ == "__main__":
    print(json.dumps(discover(Path(sys.argv[1]).resolve())))
