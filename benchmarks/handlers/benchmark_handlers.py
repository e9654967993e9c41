"""The handlers that are measured: they do nothing, so that all the time is the queue's."""

import time

from galley import task

QUEUE = "bench-galley"


@task(queue=QUEUE)
def noop(n: int = 0) -> None:
    """Do nothing, in a child of its own."""


@task(queue=QUEUE)
async def anoop(n: int = 0) -> None:
    """Do nothing, beside others in one event loop."""


@task(queue=QUEUE)
def started(sent: int) -> int:
    """Return the nanoseconds since the task was submitted; both clocks are this machine's."""
    return time.time_ns() - sent
