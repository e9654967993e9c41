"""The handlers that are measured: they do nothing, so that all the time is the queue's."""

import asyncio
import time
from threading import Event

from galley import task

QUEUE = "bench-galley"


@task(queue=QUEUE)
def noop(n: int = 0) -> None:
    """Do nothing, in a child of its own."""


@task(queue=QUEUE)
async def anoop(n: int = 0) -> None:
    """Do nothing, beside others in one event loop."""


@task(queue=QUEUE)
def pause(n: int = 0) -> int:
    """Take a slot for a tenth of a second."""
    Event().wait(0.1)
    return n


@task(queue=QUEUE)
async def hold(seconds: float) -> None:
    """Take a slot, and a permit of a queue that has limits, for so long."""
    await asyncio.sleep(seconds)


@task(queue=QUEUE)
def started(sent: int) -> int:
    """Return the nanoseconds since the task was submitted; both clocks are this machine's."""
    return time.time_ns() - sent
