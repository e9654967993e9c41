"""Start a worker: `python -m galley_worker`, told by its environment (see `settings`)."""

import gc
import os
import signal
import sys

if __name__ == "__main__":
    # A container's first process ignores signals it has no handler for: without this one, a pod that is
    # ended while it still imports would wait for its whole grace.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    # A process that was forked with everything imported has nothing to be ahead of.
    begun = "galley_worker.main" in sys.modules
    gc.disable()  # imports leave no garbage, and looking for it takes an eighth of the start
    from galley_worker.head_start import head_start
    from galley_worker.runners.socket_folder import socket_folder

    with socket_folder(), head_start({} if begun else os.environ):
        from galley_worker.main import main

        gc.freeze()  # what is imported stays: the first collections would look at all of it
        gc.enable()
        code = main()
    sys.exit(code)
