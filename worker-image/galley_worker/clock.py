"""The clocks of a worker. No functions of ours: each task looks at them several times."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

uninterrupted: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Returns monotonic seconds that include the time in which the machine was suspended, as for the broker.

On Linux the monotonic clock leaves that time out, and the time since boot includes it.
"""

utc_now: Final[Callable[[], datetime]] = partial(datetime.now, UTC)
"""Returns the present time."""
