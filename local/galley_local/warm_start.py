"""Starts workers as forks of a process that has already imported what they import.

Importing is most of the time that a worker takes to start. This process imports and forks, and does nothing
else: it has one thread, no event loop and no connection. A fork is set up as a program of its own: session,
streams, environment, working directory, main module. Only workers: what their handlers import is imported by
processes that they start for themselves.
"""

import asyncio
import contextlib
import errno
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from galley_local.orphan_guard import dying_with_us
from galley_worker.runners.child.kernel import die_with_parent

_START_SECONDS: Final = 120.0
"""Longest wait for a fork: the first ones wait for the imports."""


class Forked:
    """A program that was started."""

    def __init__(self, pid: int, told: asyncio.StreamReader, transport: asyncio.BaseTransport) -> None:
        self.pid = pid
        self._transport = transport
        self._ending = asyncio.create_task(self._end(told), name=f"end of {pid}")

    @staticmethod
    async def _end(told: asyncio.StreamReader) -> int:
        said = await told.readline()
        # The kernel kills it when the process that forked it ends.
        return int(said) if said else -signal.SIGKILL

    async def wait(self) -> int:
        """Return the exit code, negative for a signal."""
        return await asyncio.shield(self._ending)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it is known to have ended."""
        if not self._ending.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def close(self) -> None:
        """Stop listening for its end; if it runs, it is killed."""
        self._ending.cancel()
        self._transport.close()


class WarmStarter:
    """The process that forks workers. Use it as a context manager; it starts at once, and again if it ends.

    Whatever it started is killed when it is closed.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    async def start(self, environment: Mapping[str, str], folder: Path, output: int) -> Forked:
        """Start a worker.

        Args:
            environment: all of it.
            folder: its working directory.
            output: the file descriptor of both its outputs.

        Raises:
            OSError: it cannot be started.
        """
        request = {"environment": dict(environment), "folder": str(folder)}
        try:
            return await self._start(request, output)
        except (BrokenPipeError, ConnectionError, ChildProcessError):  # that process was killed
            return await self._start(request, output)

    async def _start(self, request: Mapping[str, Any], output: int) -> Forked:
        asked, reading = self._ask(request, output)
        told = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(told), os.fdopen(reading, "rb", buffering=0)
        )
        try:
            return Forked(await self._pid(told, asked), told, transport)
        except BaseException:
            transport.close()  # what has been started since is killed
            raise

    def _ask(self, request: Mapping[str, Any], output: int) -> tuple[subprocess.Popen[bytes], int]:
        """Request a fork; returns who was asked, and where its answers are read."""
        reading, writing = os.pipe()
        try:
            if self._process is None or self._process.poll() is not None:
                self._stop()
                self._begin()
            assert self._process is not None, "it has begun"
            assert self._requests is not None, "it has begun"
            send(self._requests, request, writing, output)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return self._process, reading

    async def _pid(self, told: asyncio.StreamReader, asked: subprocess.Popen[bytes]) -> int:
        try:
            async with asyncio.timeout(_START_SECONDS):
                said = await told.readline()
        except TimeoutError:
            if asked is self._process:
                # It stands still, so that no end of a worker would be heard either: another takes its place.
                self._stop()
            raise TimeoutError(f"no process was started within {_START_SECONDS:g} s") from None
        if not said:
            if asked is self._process:
                self._stop()
            raise ChildProcessError("the process that starts workers has ended")
        if (number := int(said)) < 0:
            raise OSError(-number, os.strerror(-number))
        return number

    def _begin(self) -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                # -P, so that a file `queue.py` in the working directory does not replace the library's.
                dying_with_us(sys.executable, "-P", "-m", "galley_local.warm_start", "galley_worker"),
                stdin=there.fileno(), stdout=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except BaseException:
            here.close()
            raise
        finally:
            there.close()
        self._requests = here

    def _stop(self) -> None:
        if self._requests is not None:
            self._requests.close()
            self._requests = None
        if self._process is not None:
            self._process.kill()  # at once: it may be stopped, or still import
            self._process.wait()
            self._process = None


def send(requests: socket.socket, request: Mapping[str, Any], *descriptors: int) -> None:
    """Request a fork of the process that `serve`s.

    Args:
        requests: our end of the connection.
        request: what the program is started with; of any size, unlike a message.
        descriptors: the pipe through which its process id and its exit code are told, a line each, or the
            number of the error instead, negative; and the files it inherits.
    """
    file = os.memfd_create("request")
    try:
        with os.fdopen(os.dup(file), "w") as writing:
            json.dump(request, writing)
        socket.send_fds(requests, [b"start"], [file, *descriptors])
    finally:
        os.close(file)


def serve(requests: socket.socket, become: Callable[[dict[str, Any], list[int]], NoReturn]) -> None:
    """Fork for each request, until the process that asks is gone; kill what is no longer waited for.

    Args:
        requests: the connection; a request has the file descriptors that `send` lists.
        become: runs a request in the forked process, given the files it inherits.
    """
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    signal.set_wakeup_fd(waking)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        # In this order: a file descriptor that is closed may be that of the next request.
        for unheard in running.keys() & ready:
            os.kill(running[unheard], signal.SIGKILL)
            poll.unregister(unheard)
        if woken in ready:
            os.read(woken, 4096)
            _report_ends(running, poll)
        if requests.fileno() in ready:
            request, descriptors, _, _ = socket.recv_fds(requests, 64, 8)
            if not request:
                return
            file, telling, *inherited = descriptors
            pid = _fork(file, inherited, become)
            for each in (file, *inherited):
                os.close(each)
            _tell(telling, pid)
            if pid < 0:
                os.close(telling)
                continue
            running[telling] = pid
            poll.register(telling, 0)  # an error, which is reported anyway, is that its reader is gone


def _fork(file: int, inherited: list[int], become: Callable[[dict[str, Any], list[int]], NoReturn]) -> int:
    """Return the number of the new process; negative, that of the error: others must go on running."""
    ours = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        return -(error.errno or errno.EAGAIN)
    if pid == 0:
        _set_up(ours, file, inherited, become)
    return pid


def _report_ends(running: dict[int, int], poll: select.poll) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        telling = next(descriptor for descriptor, its in running.items() if its == pid)
        del running[telling]
        with contextlib.suppress(KeyError):  # its reader was gone
            poll.unregister(telling)
        _tell(telling, os.waitstatus_to_exitcode(status))
        os.close(telling)


def _tell(telling: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(telling, f"{number}\n".encode())


def _set_up(
    parent: int, file: int, inherited: list[int], become: Callable[[dict[str, Any], list[int]], NoReturn]
) -> NoReturn:
    """Make the forked process one of its own, and run its program; what that raises ends it as usual."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    os.setsid()
    with os.fdopen(file) as reading:
        reading.seek(0)
        request = json.load(reading)
    become(request, inherited)


def streams(*outputs: int) -> None:
    """Have no input and these two outputs, and close all other files."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in zip((nothing, *outputs), range(3), strict=True):
        os.dup2(source, target)
    # Not all numbers up to the limit: it may be a billion, and may have been lowered since.
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - only the names are used
        if int(number) > 2:
            with contextlib.suppress(OSError):  # that of the folder itself
                os.close(int(number))


def _become_a_worker(request: dict[str, Any], inherited: list[int]) -> NoReturn:
    streams(inherited[0], inherited[0])
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
    sys.exit(0)


def _main() -> None:
    # For the forks: one that is told to end before it has a handler of its own ends in order, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    gc.disable()  # imports leave no garbage
    with contextlib.suppress(Exception):  # each worker will say in its log why it cannot be imported
        importlib.import_module(f"{sys.argv[1]}.main")
    gc.freeze()  # so that a collection in a fork does not copy what they share
    gc.enable()
    requests = socket.socket(fileno=0)
    serve(requests, _become_a_worker)
    requests.detach()


if __name__ == "__main__":
    _main()
