"""Handlers of batches for `test_batches.py`."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from galley import Batch, NonRetryable, RetryAfter, Snooze, current_batch, current_task, task

QUEUE = "trials"
SOME = Batch(4, wait_ms=30)


def _each(numbers: list[int]) -> list[Any]:
    print("got", numbers)  # noqa: T201 - each task of the batch keeps it
    outcomes: dict[int, Any] = {
        0: ValueError("zero"), 7: RetryAfter(3, "later"), 8: NonRetryable("never"), 9: object(),
    }  # fmt: skip
    for each in current_batch():
        each.progress(0.5, each.id)
        each.checkpoint(each.id)
    return [outcomes.get(number, number * 2) for number in numbers]


@task(queue=QUEUE, batch=SOME)
def double(numbers: list[int]) -> list[int | Exception]:
    assert current_task() is None
    return _each(numbers)


@task(queue=QUEUE, batch=SOME)
async def a_double(numbers: list[int]) -> list[int | Exception]:
    assert current_task() is None
    await asyncio.sleep(0.001)
    return _each(numbers)


def _touch(mark: str) -> None:
    Path(mark).touch()


def _misbehave(word: str, mark: str, size: int) -> Any:
    if mark:
        with Path(mark).open("a") as file:
            file.write(f"{size}\n")
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "raise":
        raise RuntimeError("for all")
    if word == "snooze":
        raise Snooze(5, "later")
    return {"short": [], "text": "text"}.get(word)


@task(queue=QUEUE, batch=SOME)
def misbehave(words: list[tuple[str, str]]) -> Any:
    return _misbehave_with_all(words)


@task(queue=QUEUE, batch=Batch(4, wait_ms=30_000))
def four_misbehave(words: list[tuple[str, str]]) -> Any:
    return _misbehave_with_all(words)


def _misbehave_with_all(words: list[tuple[str, str]]) -> Any:
    for word, mark in words:
        if word in ("kill", "raise", "snooze"):
            _misbehave(word, mark, len(words))
    return _misbehave(*words[0], len(words))


@task(queue=QUEUE, batch=SOME)
async def a_misbehave(words: list[tuple[str, str]]) -> None:
    if words[0][0] == "cancel":
        raise asyncio.CancelledError
    for word, mark in words:
        _misbehave(word, mark, len(words))


@task(queue=QUEUE, batch=SOME)
def hang(marks: list[str]) -> None:
    for mark in marks:
        Path(mark).touch()
    signal.pause()


@task(queue=QUEUE, batch=SOME)
async def a_hang(marks: list[str]) -> None:
    for mark in marks:
        _touch(mark)
    await asyncio.Event().wait()


@task(queue=QUEUE)
def rest(mark: str) -> None:
    Path(mark).touch()
    signal.pause()
