"""All waiting of the tests on pods: for how long, how often one looks, and what is told when it was in vain.

The times are bounds, not expectations: ten times what it takes on a quiet machine.
"""

import select
import time
from collections.abc import Callable
from typing import Final, TypeVar

from testcluster.errors import ClusterError

Value = TypeVar("Value")

WORKER_READY: Final = 90.0
"""From a task that waits to a worker that takes it."""
WORKERS_GONE: Final = 60.0
"""From the last task to no worker."""
TASKS_ENDED: Final = 180.0
"""Until a few dozen tasks have ended, through whatever disturbance."""
STORM_OVER: Final = 420.0
"""Until hundreds have, after several disturbances."""
EVICTED_TWICE: Final = 420.0
"""Until a task has had two workers evicted: a node looks at volumes once a minute, and then a lease ends."""
CONDITION_SAID: Final = 60.0
"""From a fact to the condition that tells it."""
POD_READY: Final = 90.0
"""From the end of one pod of the release to a ready one in its place."""
OPERATOR_LEADS: Final = 90.0
"""From the end of the leader to the next one; 15 s of it if the Lease was not given back."""
API_BACK: Final = 60.0
"""From the start of the API server or etcd to answers."""
ROLLED_OUT: Final = 180.0
"""From a changed queue to workers that are all of the new kind."""

# Each look is a kubectl, which costs a tenth of a second of processor time that what we wait for needs too.
_LOOK_AGAIN_SECONDS: Final = 0.5


class NotInTime(AssertionError):
    """What a test waited for did not happen; the message tells what it was and what was there instead."""


def until(what: str, look: Callable[[], Value], *, within: float, told: Callable[[], str] = str) -> Value:
    """Return the first truthy answer; a failed assertion, or a cluster that does not answer, is not yet one.

    Args:
        what: is waited for, in words.
        look: is called again and again, at least once.
        within: seconds; take one of the constants above.
        told: says what else is to be known when it did not happen.

    Raises:
        NotInTime: if there was none.
    """
    began = time.monotonic()
    while True:
        try:
            last: object = look()
            if last:
                return last  # type: ignore[return-value]  # it is what `look` returned
        except (AssertionError, ClusterError) as error:
            last = f"{type(error).__name__}: {error}"
        took = time.monotonic() - began
        if took >= within:
            raise NotInTime(f"{what}: not within {within:g} s; last seen: {last}\n{told()}".rstrip())
        # Slower looks for what takes longer.
        select.select([], [], [], min(_LOOK_AGAIN_SECONDS + took / 40, 2.0))
