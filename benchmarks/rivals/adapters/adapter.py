"""What every adapter can be told on its command line: submit, work, watch. Only the standard library."""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence

STORE = os.environ.get("RIVAL_STORE", "")
"""Address of the server, or a folder."""
BIN = os.path.dirname(sys.executable)


def main(submit: Callable[[int, float], object], count: Callable[[], int], worker: Sequence[str]) -> None:
    """Do what the command line says.

    Args:
        submit: submits so many tasks that take so many seconds.
        count: returns how many results are kept.
        worker: the command of the worker.
    """
    match sys.argv[1:]:
        case ["submit", tasks, seconds]:
            began = time.perf_counter()
            submit(int(tasks), float(seconds))
            print(json.dumps({"seconds": time.perf_counter() - began}))
        case ["worker"]:
            os.execv(worker[0], list(worker))
        case ["watch", target, idle]:
            print(json.dumps(_watch(count, int(target), float(idle))))


def _watch(count: Callable[[], int], target: int, idle: float) -> dict[str, float]:
    """Wait for so many results, or until none came for so many seconds."""
    found, first, first_at, changed_at = 0, 0, 0.0, time.time()
    while found < target and time.time() - changed_at < idle:
        time.sleep(0.05)
        now = count()
        if now > found:
            found, changed_at = now, time.time()
            if not first:
                first, first_at = found, changed_at
    return {"count": found, "first": first, "first_at": first_at, "last_at": changed_at}


def keys(pattern: str, store: str = STORE) -> int:
    """Return how many keys of Redis match."""
    from redis import Redis

    found = Redis.from_url(store).eval("return #redis.call('keys', ARGV[1])", 0, pattern)
    return int(found)
