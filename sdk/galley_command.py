"""The command `galley`, before the package is imported: that takes a while, and Ctrl-C may come meanwhile."""

import gc
import sys

INTERRUPTED = 130


def main() -> int:
    """Import and run the command; returns its exit code."""
    gc.disable()  # imports leave no garbage, and looking for it takes an eighth of the start
    try:
        from galley.cli.main import main as run  # noqa: PLC0415 - what this module is for
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    gc.freeze()  # what is imported stays: the first collections would look at all of it
    gc.enable()
    return run()


if __name__ == "__main__":
    sys.exit(main())
