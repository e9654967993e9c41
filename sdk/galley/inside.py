"""Whether the present code runs inside a worker, and for which queue."""

import os
from typing import Final

from galley.address import TaskAddress

WORKER_VARIABLE: Final = "GALLEY_WORKER_OF"
"""Set by a worker for all it starts: namespace and queue it works for."""


def mark_worker(namespace: str, queue: str) -> None:
    """Tell this process, and those it starts, that they work for a queue."""
    os.environ[WORKER_VARIABLE] = f"{namespace}/{queue}"


def in_worker_of(address: TaskAddress) -> bool:
    """Return whether the present code was started by a worker of the task's queue."""
    return os.environ.get(WORKER_VARIABLE) == f"{address.namespace}/{address.queue}"
