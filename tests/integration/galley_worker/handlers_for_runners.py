"""Handlers that behave, and handlers that do not."""

import asyncio
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from galley.errors import NonRetryable
from galley.handler import task

QUEUE = "trials"
_count = 0
_together: list[None] = []
_left: ContextVar[str] = ContextVar("left", default="")


def _wait_for_ever() -> None:
    threading.Event().wait()


@task(queue=QUEUE)
def add(a: int, b: int = 1) -> int:
    return a + b


@task(queue=QUEUE)
def pid() -> int:
    return os.getpid()


@task(queue=QUEUE)
def meet(folder: str, name: str, other: str) -> str:
    """Return once the other one is running too."""
    Path(folder, name).touch()
    while not Path(folder, other).exists():
        threading.Event().wait(0.005)
    return name


@task(queue=QUEUE)
def block(mark: str = "") -> None:
    if mark:
        Path(mark).write_text(str(os.getpid()))
    _wait_for_ever()


@task(queue=QUEUE)
def start_bare(mark: str, number: str) -> None:
    """Start a program without an environment that leaves its session, and wait."""
    script = f"/usr/bin/setsid /bin/sh -c 'echo $$ > {number}; sleep 1000' & exit 0"
    subprocess.run(["/bin/sh", "-c", script], env={}, check=True)
    Path(mark).write_text(str(os.getpid()))
    _wait_for_ever()


@task(queue=QUEUE)
def block_in_c(mark: str) -> None:
    """Hold the interpreter, so that no other thread of this process runs."""
    Path(mark).write_text(str(os.getpid()))
    sum(range(10**11))


@task(queue=QUEUE)
def ignore_sigterm(mark: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    block(mark)


@task(queue=QUEUE)
def fail(kind: str) -> Any:
    if kind == "exit":
        sys.exit(3)
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "base":
        raise Deep("deep")
    if kind == "hostile":
        raise Hostile
    if kind == "type":
        return len(3)  # type: ignore[arg-type]
    if kind == "half":
        raise ValueError("half a pair: \ud83d")
    if kind == "long":
        raise ValueError("x" * 100_000)
    if kind == "never":
        raise Unreadable("a poem")
    raise ValueError("no such picture")


class Unreadable(NonRetryable):
    """No attempt can read it."""


class Deep(BaseException):
    """Passes every `except Exception`."""


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


@task(queue=QUEUE)
def give(what: str) -> Any:
    return {"object": object(), "large": "x" * 600_000, "null": None, "nan": {"a": [math.nan]}}[what]


@task(queue=QUEUE)
def die(how: str) -> None:
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


@task(queue=QUEUE)
def die_if(mark: str, number: int) -> int:
    """Die every time number 3 is run; say how often each number was."""
    with Path(mark).open("a") as file:
        file.write(f"{number}\n")
    if number == 3:
        os._exit(9)
    return number


@task(queue=QUEUE)
def sabotage(how: str, address: str = "") -> str:
    """Spoil the process's connection to its supervisor."""
    if how == "closes":
        os.closerange(3, 256)
    elif how == "closes all":
        threading.Thread(target=_wait_for_ever).start()
        os.closerange(0, 256)
    elif how == "reuses":
        # Every number now names a connection of the handler's own.
        wire = socket.socket(socket.AF_UNIX)
        wire.connect(address)
        for descriptor in _open_descriptors():
            if descriptor != wire.fileno():
                os.dup2(wire.fileno(), descriptor)
    elif how == "garbage":
        for descriptor in _open_descriptors():
            try:
                with socket.socket(fileno=os.dup(descriptor)) as wire:
                    wire.send(b"\0\0\0\x05hello")
            except OSError:
                continue
        _wait_for_ever()
    return how


def _open_descriptors() -> list[int]:
    return [number for number in map(int, os.listdir("/proc/self/fd")) if number > 2]  # noqa: PTH208


@task(queue=QUEUE)
def litter(how: str) -> str:
    """Leave the process other than it was."""
    if how == "silent":
        os.close(1)
        os.close(2)
        sys.stdout.close()
    elif how == "moves":
        os.chdir("/")
    elif how == "threads":
        threading.Thread(target=_wait_for_ever).start()
    elif how == "forks":
        subprocess.Popen(["sleep", "30"])
    return how


@task(queue=QUEUE)
def folder() -> str:
    return str(Path.cwd())


@task(queue=QUEUE)
def chatter(text: str, number: int) -> int:
    for line in range(number):
        sys.stdout.write(f"{text} {line}\n")
    return number


@task(queue=QUEUE)
def say(text: str, stream: str = "stdout") -> None:
    getattr(sys, stream).write(f"{text}\n")


@task(queue=QUEUE)
def say_raw(text: str) -> None:
    os.write(1, text.encode())


@task(queue=QUEUE)
def flood(megabytes: int, newline: bool = True) -> int:
    piece = b"x" * 1023 + (b"\n" if newline else b"x")
    for _ in range(megabytes):
        data = piece * 1024
        while data:
            data = data[os.write(1, data) :]
    return megabytes


@task(queue=QUEUE)
def read_stdin() -> str:
    return os.read(0, 10).decode()


@task(queue=QUEUE)
def maybe_slow(seconds: float = 0.0) -> float:
    if seconds:
        threading.Event().wait(seconds)
    return seconds


@task(queue=QUEUE)
async def a_add(a: int, b: int = 1) -> int:
    await asyncio.sleep(0)
    return a + b


@task(queue=QUEUE)
async def a_fail(kind: str) -> Any:
    return fail.function(kind)


@task(queue=QUEUE)
async def a_pid() -> int:
    return os.getpid()


def _note(mark: str) -> int:
    """Leave a mark that this process was here; return how many are there."""
    with Path(mark).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return len(Path(mark).read_text().splitlines())


async def _opened(gate: str) -> None:
    """Wait for a file, which is the way a test has to speak to a handler in another process."""
    while not os.path.exists(gate):  # noqa: ASYNC110, ASYNC240, PTH110
        await asyncio.sleep(0.005)


@task(queue=QUEUE)
async def a_meet(folder: str, name: str, other: str) -> str:
    _note(f"{folder}/{name}")
    await _opened(f"{folder}/{other}")
    sys.stdout.write(f"{name}\n")
    return name


@task(queue=QUEUE)
async def a_together(gate: str) -> tuple[int, str]:
    """Return how many of them ran when the gate was open, and what another one left in a variable."""
    _together.append(None)
    await _opened(gate)
    together, left = len(_together), _left.get()
    _left.set("something")
    await asyncio.sleep(0)
    _together.pop()
    return together, left


@task(queue=QUEUE)
async def a_say(text: str, folder: str, name: str, other: str) -> None:
    """Write one part of a line, and the other once another handler has done so too."""
    sys.stdout.write(f"{text} begins, ")
    _note(f"{folder}/{name}")
    await _opened(f"{folder}/{other}")
    sys.stdout.write(f"{text} ends\n")


@task(queue=QUEUE)
async def a_wait(mark: str, obey: bool = True) -> str:
    _note(mark)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if obey:
                raise


@task(queue=QUEUE)
async def a_stick(mark: str) -> None:
    """Block the loop, as careless code does."""
    _note(mark)
    time.sleep(600)  # noqa: ASYNC251, TID251 - blocking is the point


@task(queue=QUEUE)
async def a_once(mark: str, gate: str) -> int:
    """Wait for the gate; return how often this was started."""
    times = _note(mark)
    await _opened(gate)
    return times


@task(queue=QUEUE)
async def a_die(gate: str) -> None:
    await _opened(gate)
    os._exit(7)


@task(queue=QUEUE)
async def a_exit() -> None:
    sys.exit(1)


@task(queue=QUEUE)
async def a_cancel_others() -> int:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for other in others:
        other.cancel()
    return len(others)
