"""A child process from its birth to its service."""

import importlib
import mmap
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final, Literal

from galley.errors import GalleyError
from galley.registry import REGISTRY
from galley_worker.runners import frames
from galley_worker.runners.child import concurrent, plain
from galley_worker.runners.child.death import die_with_parent
from galley_worker.runners.child.streams import Streams
from galley_worker.runners.child.wire import Wire

PRELOAD: Final = "GALLEY_PRELOAD"
"""Environment variable that tells the fork server what to import."""
_TRACE_LINES: Final = 12
_TRACE_WIDTH: Final = 160
GO: Final = b"!"
"""Said to a child once its supervisor holds it by more than its number, which dies with it."""


@dataclass(frozen=True, slots=True)
class Birth:
    """What a child is told when it is made."""

    queue: str
    modules: tuple[str, ...]
    import_paths: tuple[str, ...]
    kind: Literal["plain", "concurrent"]


class ImportFailed(Exception):
    """A module does not import."""

    def __init__(self, module: str, place: str, problem: str, trace: str) -> None:
        self.module, self.place, self.problem, self.trace = module, place, problem, trace
        super().__init__(module, place, problem, trace)


def main(wire: socket.socket, stdout: Connection, stderr: Connection, page: Connection, birth: Birth) -> None:
    """Live as a child: this never returns.

    Args:
        wire: where orders come from and answers go to.
        stdout: write end of the pipe for standard output.
        stderr: the same for standard error.
        page: shared memory in which the number of the order started last stands.
        birth: what to import and how to serve.
    """
    die_with_parent()
    # Ctrl-C in a terminal reaches the whole process group; only the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    streams = _take_over(stdout, stderr)
    started = mmap.mmap(page.fileno(), 0)
    page.close()
    wire.setblocking(True)
    if wire.recv(len(GO)) != GO:
        os._exit(0)
    sys.path[:0] = [path for path in birth.import_paths if path not in sys.path]
    sys.argv = [sys.argv[0]]
    try:
        import_modules(birth.modules)
    except ImportFailed as failed:
        wire.sendall(frames.encode([frames.Broken(*failed.args)]))
        os._exit(1)
    handlers = REGISTRY.of_queue(birth.queue)
    plain_ones = [name for name, handler in handlers.items() if not handler.is_async]
    async_ones = [name for name, handler in handlers.items() if handler.is_async]
    wire.sendall(frames.encode([frames.Ready(plain_ones, async_ones)]))
    functions = {name: handler.function for name, handler in handlers.items()}
    if birth.kind == "plain":
        plain.PlainService(Wire(wire), functions, started, streams).serve()
    else:
        concurrent.serve(Wire(wire), functions, streams)
    os._exit(0)


def _take_over(stdout: Connection, stderr: Connection) -> Streams:
    """Make the pipes this process's output, and nothing its input."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(stdout.fileno(), 1)
    os.dup2(stderr.fileno(), 2)
    # Python's own streams keep the originals: a handler that closes 1 or 2 does not silence the next one.
    return Streams(os.dup(stdout.fileno()), os.dup(stderr.fileno()))


def import_modules(modules: Sequence[str]) -> None:
    """Import the modules in order.

    Raises:
        ImportFailed: if one does not import, whatever it raised.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except BaseException as error:
            raise ImportFailed(module, _place(error), _problem(error), _trace(error)) from None


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    seen = _frames_of_user(error)
    return f"{seen[-1].filename}:{seen[-1].lineno}" if seen else ""


def _trace(error: BaseException) -> str:
    """Return the last lines of a traceback, without the frames of the import system."""
    text = "".join((
        *traceback.format_list(_frames_of_user(error)), *traceback.format_exception_only(error),
    ))  # fmt: skip
    lines = [line[:_TRACE_WIDTH] for line in text.encode(errors="backslashreplace").decode().splitlines()]
    return "\n".join(lines[-_TRACE_LINES:])


def _frames_of_user(error: BaseException) -> list[traceback.FrameSummary]:
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen importlib") and not _is_ours(frame.filename)
    ]


def _is_ours(filename: str) -> bool:
    return filename in {__file__, importlib.__file__}


def _problem(error: BaseException) -> str:
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    except BaseException:
        text = "(its message cannot be told)"
    hint = f" ({error.hint})" if isinstance(error, GalleyError) and error.hint else ""
    return f"{type(error).__name__}: {text}{hint}"[:1000]
