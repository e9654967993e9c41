"""Start the gateway: `python -m galley_gateway`, told by its environment (see `settings`)."""

import gc
import signal
import sys

if __name__ == "__main__":
    # A container's first process ignores signals it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    gc.disable()  # imports leave no garbage, and looking for it takes an eighth of the start
    from galley_gateway.main import main

    gc.freeze()  # what is imported stays: the first collections would look at all of it
    gc.enable()
    sys.exit(main())
