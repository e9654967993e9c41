"""What the fork server imports before it forks, so that children start with their modules loaded.

It runs in the fork server, a process of its own in which nothing else lives: no event loop, no threads.
"""

import contextlib
import json
import os
import sys
from importlib.machinery import ModuleSpec

from galley_worker.runners.child import entry
from galley_worker.runners.child.death import die_with_parent


def preload() -> None:
    """Import the modules named in the environment, and end when the supervisor ends.

    A module that fails here fails again in the child, which tells the supervisor why.
    """
    die_with_parent()
    told = os.environ.pop(entry.PRELOAD, "")
    if not told:
        return
    modules, paths, main_path, main_name = json.loads(told)
    # multiprocessing has each child run the supervisor's main module again, unless it seems to be there.
    main = sys.modules["__main__"]
    main.__file__ = main_path
    main.__spec__ = ModuleSpec(main_name, None) if main_name else None
    sys.path[:0] = [path for path in paths if path not in sys.path]
    with contextlib.suppress(BaseException):
        entry.import_modules(modules)


preload()
