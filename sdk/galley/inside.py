"""Whether the present code runs inside a worker, for which queue, and for whose sake."""

import os
from typing import Final

from galley.current import current_batch, current_task

WORKER_VARIABLE: Final = "GALLEY_WORKER_OF"
"""Set by a worker for all it starts: namespace and queue it works for."""


ANCESTORS_VARIABLE: Final = "GALLEY_ANCESTORS"
"""Set for a program that is a handler: the queues of the handlers its task descends from."""

_DEPTH: Final = 32


def mark_worker(namespace: str, queue: str) -> None:
    """Tell this process, and those it starts, that they work for a queue."""
    os.environ[WORKER_VARIABLE] = f"{namespace}/{queue}"


def line() -> tuple[str, ...]:
    """Return the queues of the handlers this code descends from, its own last; none outside a worker."""
    own = os.environ.get(WORKER_VARIABLE)
    if not own:
        return ()
    task = current_task()
    if task is not None:
        before = task.ancestors
    elif together := current_batch():
        before = tuple(dict.fromkeys(each for one in together for each in one.ancestors))
    else:
        before = tuple(os.environ.get(ANCESTORS_VARIABLE, "").split())
    return (*(queue for queue in before if queue != own), own)[-_DEPTH:]


LIFE_WORD: Final = "life:"
"""Among the ancestors of a task that came of a life event: what happens to it is none, or there is no end."""

HOPS_WORD: Final = "hops:"
"""Among the ancestors of a task, before the number of events that led to it."""


def hops() -> int:
    """Return how many events led to the task this code runs for, each published for the one before."""
    found = [word for word in line() if word.startswith(HOPS_WORD)]
    return max((int(word.removeprefix(HOPS_WORD)) for word in found), default=0)
