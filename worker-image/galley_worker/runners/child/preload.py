"""What the fork server imports before it forks.

Galley's own modules and what they import, and the modules that the queue chooses to preload. It runs in the
fork server, a process of its own with no event loop and no threads.
"""

import contextlib
import importlib
import json
import os
import sys
import threading
import warnings
from functools import partial
from importlib.machinery import ModuleSpec

from galley_worker.runners.child import entry
from galley_worker.runners.child.kernel import adopt_orphans, die_with_parent
from galley_worker.runners.child.streams import STREAMS


def preload() -> None:
    """Import the modules named in the environment, and end when the supervisor ends.

    A module that fails here fails again in the child, which tells the supervisor why.
    """
    die_with_parent()
    # What a child leaves when it dies becomes a child of this process, where the supervisor finds it.
    adopt_orphans()
    os.register_at_fork(before=partial(_import_client, os.getpid()))
    warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")
    told = os.environ.pop(entry.PRELOAD, "")
    if not told:
        return
    modules, paths, main_path, main_name = json.loads(told)
    # multiprocessing has each child run the supervisor's main module again, unless it seems to be there.
    main = sys.modules["__main__"]
    main.__file__ = main_path
    main.__spec__ = ModuleSpec(main_name, None) if main_name else None
    if not modules:
        return
    sys.path[:0] = [path for path in paths if path not in sys.path]
    # A preloaded module may keep what is `sys.stderr` now, so it gets the streams that children redirect.
    STREAMS.install()
    with contextlib.suppress(BaseException):
        entry.import_modules(modules)
    entry.threads_lost = [
        thread.name for thread in threading.enumerate() if thread is not threading.main_thread()
    ]


def _import_client(server: int) -> None:
    """Import the client before the next child is made, if an earlier one had to: most need none of it."""
    if entry.client_used[0] and os.getpid() == server:
        importlib.import_module("galley.sync_client")


preload()
