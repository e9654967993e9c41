"""Uses a share of a processor for nothing, as the control of a storm: another tenant's programs do as much.

python -m tests.storm.burner SHARE SECONDS
"""

import sys
import time
from typing import Final

PERIOD: Final = 0.02
"""Between two bursts, as the hostile tenant pauses."""


def main(share: float, seconds: float) -> None:
    """Use that share for so long; on a busy machine it makes up for what it did not get."""
    began, used = time.monotonic(), time.process_time()
    while (passed := time.monotonic() - began) < seconds:
        while time.process_time() - used < share * passed and time.monotonic() - began < seconds:
            pass
        time.sleep(PERIOD)  # noqa: TID251 - it only uses a processor


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
