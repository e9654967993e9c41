"""Handlers that take and return large data and files."""

import hashlib
import os
import tempfile
import time
from pathlib import Path

from galley import File, RetryPolicy, task


@task(queue="drills")
def reverse(text: str) -> str:
    """Return a text backwards."""
    return text[::-1]


@task(queue="drills")
async def measure(file: File, label: str = "") -> dict[str, object]:
    """Return what there is to know of a file."""
    path = file.path()
    found = hashlib.sha256()
    with file.open() as opened:
        while block := opened.read(1024**2):
            found.update(block)
    return {"name": path.name, "size": path.stat().st_size, "digest": found.hexdigest(), "label": label}


@task(queue="drills")
def produce(size: int, name: str = "made.bin") -> File:
    """Write a file and return it."""
    path = Path(tempfile.mkdtemp()) / name
    with path.open("wb") as out:
        for start in range(0, size, 1024**2):
            out.write(bytes([start // 1024**2 % 251]) * min(1024**2, size - start))
    return File(path)


@task(queue="drills")
def gone() -> File:
    """Return a file of a folder that is gone by then."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gone.txt"
        path.write_text("x")
        return File(path)


@task(queue="drills")
def same(files: list[File]) -> list[File]:
    """Return the files it was given."""
    assert all(os.access(file.path(), os.R_OK) for file in files)
    return files


@task(queue="drills", store_result=False)
def discard(value: int) -> object:
    """Return what could not even be encoded."""
    return object()


@task(queue="drills", store_result=False)
async def adiscard(value: int) -> object:
    """Return what could not even be encoded."""
    return object()


@task(queue="drills", cache=3600, retry=RetryPolicy(attempts=1))
def slowly(path: str, fails: int = 0) -> int:
    """Count in a file how often it ran; fail so many times."""
    with Path(path).open("a") as log:
        log.write("x")
    time.sleep(0.3)  # noqa: TID251 - it is work
    runs = len(Path(path).read_text())
    if runs <= fails:
        raise ValueError(runs)
    return runs
