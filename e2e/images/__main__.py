"""Builds images by hand: `python -m e2e.images [NAME...]` prints the archive of each."""

import argparse
import os
import sys
from collections.abc import Sequence

from e2e.cluster.errors import CannotRunHere, ClusterError
from e2e.images import previous
from e2e.images.build import NAMES, archives


def main(words: Sequence[str] | None = None) -> int:
    """Build what the command line names, or all, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m e2e.images",
        description="Builds the images of this repository, and those of the release before, without docker; "
        "prints an archive each.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES), choices=[[], *NAMES])
    options = parser.parse_args(words)
    try:
        for name, archive in archives(options.names or NAMES).items():
            sys.stdout.write(f"{name} {archive}\n")
        if not options.names:
            _previous()
    except ClusterError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _previous() -> None:
    try:
        for archive in previous.archives():
            sys.stdout.write(f"{previous.VERSION} {archive}\n")
    except CannotRunHere as error:
        sys.stderr.write(f"release {previous.VERSION} is not built: {error}\n")


if __name__ == "__main__":
    os.umask(0o022)  # containers read some of what is written
    sys.exit(main())
