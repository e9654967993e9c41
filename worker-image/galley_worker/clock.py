"""The clock that leases are held against."""

import time
from typing import Final

_TELLS_BOOT_TIME: Final = hasattr(time, "CLOCK_BOOTTIME")


def uninterrupted() -> float:
    """Return monotonic seconds that include the time in which the machine was suspended, as for the broker.

    On Linux the monotonic clock leaves that time out, and the time since boot includes it.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) if _TELLS_BOOT_TIME else time.monotonic()
