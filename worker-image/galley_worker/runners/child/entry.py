"""A child process from its start to its end."""

import asyncio
import atexit
import contextlib
import gc
import importlib
import inspect
import io
import mmap
import multiprocessing
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final, Literal

from galley.errors import GalleyError
from galley.exception_text import describe
from galley.hooks import HOOKS
from galley.registry import REGISTRY
from galley_worker.runners import frames
from galley_worker.runners.child import concurrent, plain, threads
from galley_worker.runners.child.kernel import adopt_orphans, die_with_parent
from galley_worker.runners.child.streams import STREAMS, log_to_supervisor
from galley_worker.runners.child.wire import Wire

PRELOAD: Final = "GALLEY_PRELOAD"
"""Environment variable that tells the fork server what to import."""
_TRACE_LINES: Final = 12
_TRACE_WIDTH: Final = 160
GO: Final = b"!"
"""Said to a child once its supervisor holds it by more than its number, which dies with it."""
IMPORTING: Final = "import"
STARTING: Final = "on_start"

client_used: Final = mmap.mmap(-1, 1)
"""Memory of the fork server and all its children: 1 once one of them has imported the client."""
threads_lost: list[str] = []
"""Threads that preloaded modules started in the fork server, which exist in no child."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a child is told when it is made."""

    queue: str
    modules: tuple[str, ...]
    import_paths: tuple[str, ...]
    kind: Literal["plain", "concurrent", "first"]
    """Which handlers it runs; `first` runs plain ones, unless all of the queue are `async def`."""
    log_level: str = "INFO"


class Broke(Exception):
    """A module does not import, or a start hook fails."""

    def __init__(self, stage: str, name: str, error: BaseException) -> None:
        super().__init__(stage, name)
        self.stage, self.name, self.error = stage, name, error

    def told(self) -> frames.Broken:
        """Return it as it travels."""
        return frames.Broken(
            self.stage, self.name, _place(self.error), _problem(self.error), _trace(self.error)
        )


def main(wire: socket.socket, stdout: Connection, stderr: Connection, page: Connection, setup: Setup) -> None:
    """Live as a child: this never returns.

    Args:
        wire: where orders come from and answers go to.
        stdout: write end of the pipe for standard output.
        stderr: the same for standard error.
        page: shared memory that shows which orders have begun.
        setup: what to import and how to serve.
    """
    die_with_parent()
    # What a handler sends to its process group does not reach the worker, and a terminal's Ctrl-C not us.
    os.setpgid(0, 0)
    adopt_orphans()
    # Ctrl-C in a terminal reaches the whole process group; only the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _take_over(stdout, stderr)
    begun = mmap.mmap(page.fileno(), 0)
    page.close()
    wire.setblocking(True)
    if wire.recv(len(GO)) != GO:
        os._exit(0)
    sys.path[:0] = [path for path in setup.import_paths if path not in sys.path]
    sys.argv = [sys.argv[0]]
    # Handlers start processes as the same code does in a program, and not as this one was started.
    multiprocessing.set_start_method(None, force=True)
    log_to_supervisor(setup.log_level)
    threads.carry_orders()
    if threads_lost:
        sys.stderr.write(
            f"warning: preloaded modules started threads, which handlers do not have: "
            f"{', '.join(threads_lost)}; "
            "take these modules out of spec.worker.preload\n"
        )
    try:
        import_modules(setup.modules)
        _serve(Wire(wire), begun, setup)
    except Broke as broke:
        wire.sendall(frames.encode([broke.told()]))
        os._exit(1)
    except BaseException:
        # Not by the way of `multiprocessing`, which waits for threads that handlers left.
        with contextlib.suppress(BaseException):
            sys.stderr.write(traceback.format_exc())
            sys.stdout.flush()
        os._exit(1)


def _serve(wire: Wire, begun: mmap.mmap, setup: Setup) -> None:
    handlers = REGISTRY.of_queue(setup.queue)
    plain_ones = [name for name, handler in handlers.items() if not handler.is_async]
    async_ones = [name for name, handler in handlers.items() if handler.is_async]
    several = setup.kind == "concurrent" or (setup.kind == "first" and bool(async_ones) and not plain_ones)
    for hook in HOOKS.start:
        if not inspect.iscoroutinefunction(hook):
            _start(hook)

    def ready() -> None:
        _note_client()
        rules = {
            name: frames.HandlerRules(
                handler.timeout_seconds,
                handler.retry,
                handler.repeat,
                handler.lane,
                handler.labels,
                handler.subscribes,
                handler.batch,
            )
            for name, handler in handlers.items()
            if (handler.timeout_seconds, handler.retry, handler.repeat) != (None, None, None)
            or handler.subscribes
            or handler.batch
        }
        wire.send(frames.encode([frames.Ready(plain_ones, async_ones, several, rules)]))

    if several:
        service = concurrent.ConcurrentService(wire, setup.queue, handlers, begun)
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            for hook in HOOKS.start:
                if inspect.iscoroutinefunction(hook):
                    _start(lambda hook=hook: loop.run_until_complete(hook()), hook)  # type: ignore[misc]
            ready()
            service.serve(loop)
            _stop_hooks(loop)
    else:
        alone = plain.PlainService(wire, setup.queue, handlers, begun)
        ready()
        alone.serve()
        _stop_hooks(None)
    _note_client()
    _leave()


def _note_client() -> None:
    if "galley.client" in sys.modules:
        client_used[0] = 1


def _start(run: Callable[[], Any], hook: Callable[[], Any] | None = None) -> None:
    hook = hook or run
    try:
        run()
    except BaseException as error:
        raise Broke(STARTING, _name_of(hook), error) from None


def _stop_hooks(loop: asyncio.AbstractEventLoop | None) -> None:
    """Run the stop hooks, the last declared first."""
    for hook in reversed(HOOKS.stop):
        try:
            if not inspect.iscoroutinefunction(hook):
                hook()
            elif loop is not None:
                loop.run_until_complete(hook())
        except BaseException:
            sys.stderr.write(f"on_stop hook {_name_of(hook)} failed\n{traceback.format_exc()}")


def _leave() -> None:
    """End as a program does: wait for threads, run `atexit` handlers, flush open files.

    The interpreter is not taken down, since daemon threads of handlers may still run in it.
    """
    for step in (threading._shutdown, atexit._run_exitfuncs, _flush_files):  # type: ignore[attr-defined]  # noqa: SLF001
        step()
    os._exit(0)


def _flush_files() -> None:
    for thing in gc.get_objects():
        try:
            if issubclass(type(thing), io.IOBase) and not thing.closed and thing.writable():
                thing.flush()
        except Exception:  # noqa: S112 - a file that cannot be flushed keeps no other from it
            continue


def _take_over(stdout: Connection, stderr: Connection) -> None:
    """Make the pipes this process's output, and nothing its input."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(stdout.fileno(), 1)
    os.dup2(stderr.fileno(), 2)
    # Python's own streams keep the originals: a handler that closes 1 or 2 does not silence the next one.
    STREAMS.attach(os.dup(stdout.fileno()), os.dup(stderr.fileno()))


def import_modules(modules: Sequence[str]) -> None:
    """Import the modules in order.

    Raises:
        Broke: if one does not import, whatever it raised.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except BaseException as error:
            raise Broke(IMPORTING, module, error) from None


def _name_of(hook: Callable[[], Any]) -> str:
    return f"{getattr(hook, '__module__', '?')}.{getattr(hook, '__qualname__', '?')}"


def _users(error: BaseException) -> traceback.StackSummary:
    """Return the frames of an exception's traceback that belong to the user's code."""
    kept = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen importlib") and not _is_ours(frame.filename)
    ]
    return traceback.StackSummary.from_list(kept)


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    users = _users(error)
    return f"{users[-1].filename}:{users[-1].lineno}" if users else ""


def _is_ours(filename: str) -> bool:
    return filename in {__file__, importlib.__file__, asyncio.base_events.__file__}


def _trace(error: BaseException) -> str:
    """Return the last lines of a traceback, without the frames of the import system."""
    try:
        text = "".join((*_users(error).format(), *traceback.format_exception_only(error)))
    except BaseException:
        return ""
    lines = [line[:_TRACE_WIDTH] for line in text.encode(errors="backslashreplace").decode().splitlines()]
    return "\n".join(lines[-_TRACE_LINES:])


def _problem(error: BaseException) -> str:
    text = f"SyntaxError: {error.msg}" if type(error) is SyntaxError else describe(error)
    hint = f" ({error.hint})" if isinstance(error, GalleyError) and error.hint else ""
    return f"{text}{hint}"[:1000]
