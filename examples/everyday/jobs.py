"""The handlers of the everyday jobs."""

import hashlib
from pathlib import Path

import galley
from galley import RetryPolicy, task

FEW = RetryPolicy(attempts=3, backoff_seconds=0.2)


@task(queue="files", retry=FEW)
def checksum(path: str, unreliable: bool = False) -> str:
    """Return the SHA-256 of a file; an unreliable disk fails the first attempt."""
    running = galley.current_task()
    if unreliable and running is not None and running.attempt == 1:
        raise OSError(f"cannot read {path} just now")
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@task(queue="web")
def greeting(name: str) -> str:
    """Return a greeting."""
    return f"Hello, {name}!"
