"""Starts workers, operators and `galley` as forks of a process that has already imported what they import.

Importing is most of the processor time that their start takes, and tests start hundreds. The process imports
and forks, and does nothing else: it has one thread, no event loop and no connection. After the fork, the new
process is set up as one that `python -m` starts: session, streams, environment, arguments, main module.
"""

import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, Final, NoReturn

_LONGEST: Final = 1 << 17
"""Bytes of a request: the arguments and the environment."""

_START_SECONDS: Final = 120.0
_one_at_a_time: Final = threading.Lock()


class WarmStart:
    """A started program: of `subprocess.Popen`, what tests use."""

    seconds_used = 0.0
    """Processor time of all that have ended."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: IO[bytes],
        imported: str = "galley_worker.main",
        *,
        errors: IO[bytes] | None = None,
        folder: Path | None = None,
        safe_path: bool = False,
    ) -> None:
        """Run `python -m ARGUMENTS` in a session of its own, without input, its outputs in a log.

        Args:
            arguments: the module, and what it is told.
            environment: all of it.
            log: where both outputs go.
            imported: the modules that the process it is forked from has imported, with spaces between.
            errors: where its standard error goes instead.
            folder: its working directory; ours by default.
            safe_path: whether that is no place of modules, as of `python -P`.
        """
        self.args = tuple(arguments)
        self.returncode: int | None = None
        self._ending, theirs = os.pipe()
        place = str(folder or Path.cwd())
        request = json.dumps([self.args, dict(environment), place, safe_path]).encode()
        with _one_at_a_time:
            starter = _starter(os.getpid(), imported)
            socket.send_fds(starter, [request], [theirs, log.fileno(), (errors or log).fileno()])
            self.pid = int(starter.recv(64))
        os.close(theirs)

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it runs for longer.
        """
        if (code := self._look(timeout)) is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._ending], [], [], timeout)[0]:
            ended = os.read(self._ending, 64).split()
            os.close(self._ending)
            assert ended, "the process that starts workers has ended"
            self.returncode = int(ended[0])
            WarmStart.seconds_used += float(ended[1])
        return self.returncode


@cache
def _starter(ours: int, imported: str) -> socket.socket:
    """Return the connection to the process that forks; a fork of ours has one of its own."""
    del ours
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.settimeout(_START_SECONDS)
    command = [sys.executable, __file__, *imported.split()]
    requests = (os.POSIX_SPAWN_DUP2, there.fileno(), 0)
    os.posix_spawn(sys.executable, command, os.environ, file_actions=[requests], setsid=True)
    there.close()
    return here


def _serve(requests: socket.socket) -> None:
    """Fork for each request, and report each end, until the process that asks is gone."""
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    signal.set_wakeup_fd(waking)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([requests.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _report_ends(running)
        if requests.fileno() in ready:
            request, files, _, _ = socket.recv_fds(requests, _LONGEST, 3)
            if not request:
                return
            ending, *outputs = files
            if (pid := os.fork()) == 0:
                _become(outputs, request)
            for each in outputs:
                os.close(each)
            running[pid] = ending
            requests.send(str(pid).encode())


def _report_ends(running: dict[int, int]) -> None:
    while running:
        pid, status, used = os.wait4(-1, os.WNOHANG)
        if not pid:
            return
        ending = running.pop(pid)
        os.write(ending, f"{os.waitstatus_to_exitcode(status)} {used.ru_utime + used.ru_stime}".encode())
        os.close(ending)


def _become(outputs: Sequence[int], request: bytes) -> NoReturn:
    """Become a program in the forked process; what it raises ends that as usual."""
    arguments, environment, folder, safe_path = json.loads(request)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (outputs[0], 1), (outputs[1], 2)):
        os.dup2(source, target)
    os.closerange(3, 1024)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    paths = ["" if safe_path else folder, *environment.get("PYTHONPATH", "").split(os.pathsep)]
    sys.path[:0] = filter(None, paths)
    sys.argv[1:] = arguments[1:]
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    sys.exit(0)


def _main() -> None:
    sys.path.pop(0)  # the folder of this file, which no program has there
    for each in sys.argv[1:]:
        importlib.import_module(each)
    assert threading.active_count() == 1, "a fork of a process with threads can stand still"
    requests: Any = socket.socket(fileno=0)
    _serve(requests)
    requests.detach()


if __name__ == "__main__":
    _main()
