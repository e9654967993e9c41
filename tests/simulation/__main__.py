"""Play many schedules: `python -m tests.simulation [FIRST-LAST]`. Prints those that end wrong."""

import logging
import sys
import time

from tests.simulation.simulate import Wrong, simulate


def main(words: list[str]) -> int:
    """Play the schedules of some seeds, and return the exit code."""
    logging.disable(logging.CRITICAL)  # workers complain of what is done to them, a thousand times
    first, _, last = (words[0] if words else "0-999").partition("-")
    seeds = range(int(first), int(last or first) + 1)
    began, wrong = time.monotonic(), 0
    for seed in seeds:
        try:
            simulate(seed)
        except Wrong as error:
            wrong += 1
            sys.stdout.write(f"{error}\n")
    minutes = (time.monotonic() - began) / 60
    sys.stdout.write(f"{len(seeds)} schedules, {len(seeds) / minutes:.0f} a minute, {wrong} wrong\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
