"""Handlers that do, and misdo, whatever a test asks of them."""

import asyncio
import ctypes
import os
import signal
import time
from pathlib import Path

from galley import NonRetryable, chord, current_task, previous, task, then


def _note(word: str) -> None:
    with Path(os.environ["DRILLS_LOG"]).open("a") as log:
        log.write(f"{time.time_ns()} {word}\n")


def _there(path: str) -> bool:
    return Path(path).exists()


def _write(path: str, text: str) -> None:
    Path(path).write_text(text)


@task(queue="drills")
def echo(value: object = None) -> object:
    """Return the value."""
    return value


@task(queue="drills")
async def aecho(value: object = None, seconds: float = 0.0) -> object:
    """Return the value after a while."""
    await asyncio.sleep(seconds)
    return value


@task(queue="drills")
async def onward(count: int) -> list[object]:
    """Have a workflow return so many numbers."""
    return then(chord(aecho.map(range(count)), aecho.call(previous)))  # type: ignore[no-any-return]


@task(queue="drills")
async def stubborn(path: str, seconds: float) -> str:
    """Work forever, and when told to stop go on for `seconds`; the second time, return after twice those."""
    if _there(path):
        await asyncio.sleep(2 * seconds)
        return "the second time"
    _write(path, "begun")
    try:
        await asyncio.sleep(3600)
    finally:
        _write(path, "told to stop")
        await asyncio.sleep(seconds)
    raise AssertionError("nothing stopped it")


@task(queue="drills")
def note(word: str) -> str:
    """Leave a line in the log of the test."""
    _note(word)
    return word


@task(queue="drills")
def hold(word: str, seconds: float) -> str:
    """Note the start, keep the slot for a while, note the end."""
    _note(f"begin {word}")
    time.sleep(seconds)  # noqa: TID251 - a handler that blocks is the point
    _note(f"end {word}")
    return word


@task(queue="drills")
def seize(word: str, seconds: float) -> str:
    """Do as `hold`, and let no other thread of the process run meanwhile, as some C code does."""
    _note(f"begin {word}")
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
    _note(f"end {word}")
    return word


@task(queue="drills")
def fail(message: str = "no luck") -> None:
    """Raise."""
    raise ValueError(message)


@task(queue="drills")
def fail_for_good(message: str) -> None:
    """Raise what no other attempt would cure."""
    raise NonRetryable(message)


@task(queue="drills")
def fail_until(path: str, times: int) -> str:
    """Raise the first `times` times; the count stands in a file."""
    counter = Path(path)
    tries = int(counter.read_text()) + 1 if counter.exists() else 1
    counter.write_text(str(tries))
    if tries <= times:
        raise RuntimeError(f"try {tries}")
    return f"try {tries}"


@task(queue="drills")
def vanish(code: int = 3) -> None:
    """End the process without a word."""
    os._exit(code)


@task(queue="drills")
def deaf(seconds: float) -> None:
    """Ignore every request to end, and keep the slot for a while."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(seconds)  # noqa: TID251 - a handler that blocks is the point


@task(queue="drills")
def close_pipes() -> str:
    """Close standard input, output and error for good."""
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    return "closed"


@task(queue="drills")
def not_json() -> object:
    """Return what JSON cannot say."""
    return object()


@task(queue="drills")
def huge(size: int) -> str:
    """Return much."""
    return "x" * size


@task(queue="drills")
def shout(megabytes: int) -> str:
    """Print much."""
    for _ in range(megabytes):
        print("x" * 1_048_575)  # noqa: T201 - the flood a test asked for
    return "done"


@task(queue="drills")
def fail_once(path: str) -> str:
    """Raise the first time, which a file remembers."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "second time"
    raise RuntimeError("first time")


@task(queue="drills")
def die_once(path: str, text: str) -> str:
    """Fail for good the first time, which a file remembers; then return the text backwards."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return text[::-1]
    raise NonRetryable("not mended yet")


@task(queue="drills")
def turn(text: str) -> str:
    """Return the text backwards."""
    return text[::-1]


@task(queue="drills")
async def say(text: str, seconds: float = 0.0) -> str:
    """Say how far it is, keep a checkpoint, and return."""
    running = current_task()
    assert running is not None
    running.progress(0.5, text)
    running.checkpoint(text)
    await asyncio.sleep(seconds)
    return text


@task(queue="drills")
async def slow_once(path: str, seconds: float) -> str:
    """Take `seconds` the first time, which a file remembers, and none after."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "second time"
    await asyncio.sleep(seconds)
    return "first time"


@task(queue="drills")
def work(milliseconds: float) -> float:
    """Keep a processor busy for a while."""
    until = time.perf_counter() + milliseconds / 1000
    while time.perf_counter() < until:
        pass
    return milliseconds


@task(queue="drills")
async def awork(milliseconds: float) -> float:
    """Wait for a while."""
    await asyncio.sleep(milliseconds / 1000)
    return milliseconds
