"""Starts workers, operators and `galley` as forks of a process that has already imported what they import.

Importing is most of the processor time that their start takes, and tests start hundreds. The process imports
and forks, and does nothing else: it has one thread, no event loop and no connection. After the fork, the new
process is set up as one that `python -m` starts: session, streams, environment, arguments, main module.
"""

import importlib
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from galley_local.warm_start import send, serve, streams

_lock: Final = threading.Lock()


class WarmStart:
    """A started program: of `subprocess.Popen`, what tests use."""

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
        place = str(folder or Path.cwd())
        request = {
            "arguments": self.args, "environment": dict(environment), "folder": place, "safe_path": safe_path,
        }  # fmt: skip
        self._told, telling = os.pipe()
        try:
            send(_Starter.of(imported).requests, request, telling, log.fileno(), (errors or log).fileno())
        finally:
            os.close(telling)
        self.pid = self._number()
        assert self.pid > 0, f"no process was started: {os.strerror(-self.pid)}"

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
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            self.returncode = self._number()
            os.close(self._told)
        return self.returncode

    def _number(self) -> int:
        line = b""
        while not line.endswith(b"\n"):  # byte by byte: the next line may be there, too
            byte = os.read(self._told, 1)
            assert byte, "the process that starts programs has ended"
            line += byte
        return int(line)


class _Starter:
    """A process that forks, of those this process has."""

    _known: Final[dict[tuple[int, str], "_Starter"]] = {}

    def __init__(self, imported: str) -> None:
        self.requests, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, __file__, *imported.split()]
        requests = (os.POSIX_SPAWN_DUP2, there.fileno(), 0)
        self.pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=[requests], setsid=True)
        there.close()

    @classmethod
    def of(cls, imported: str) -> "_Starter":
        with _lock:
            key = os.getpid(), imported  # a fork of ours has one of its own
            if key not in cls._known:
                cls._known[key] = cls(imported)
            return cls._known[key]

    @classmethod
    def all(cls) -> list["_Starter"]:
        return [starter for (owner, _), starter in cls._known.items() if owner == os.getpid()]


def seconds_used() -> float:
    """Return the processor time of all that were started and have ended."""
    ticks = 0
    for starter in _Starter.all():
        after_name = Path(f"/proc/{starter.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, after_name[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _become(request: dict[str, Any], inherited: list[int]) -> NoReturn:
    streams(*inherited)
    os.environ.clear()
    os.environ.update(request["environment"])
    folder = request["folder"]
    os.chdir(folder)
    paths = ["" if request["safe_path"] else folder, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    sys.path[:0] = filter(None, paths)
    module, *arguments = request["arguments"]
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit(0)


def _main() -> None:
    sys.path.pop(0)  # the folder of this file, which no program has there
    for each in sys.argv[1:]:
        importlib.import_module(each)
    assert threading.active_count() == 1, "a fork of a process with threads can stand still"
    requests = socket.socket(fileno=0)
    serve(requests, _become)
    requests.detach()


if __name__ == "__main__":
    _main()
