"""Starts a cluster's programs when told to, remembers how they ended, and obeys the control socket.

It decides nothing: what starts when is said by `boot`, from outside. For a control plane alone it is an
ordinary process (`testcluster.supervisor STATE CONTROL`); on a node it is process 1, and started by
`node`.
"""

import os
import select
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Never

from testcluster import control, programs
from testcluster.cluster import Part
from testcluster.process import dying_with_us
from testcluster.settings import CONTAINERD_SOCKET
from testcluster.site import Site

_ASKING_SECONDS: Final = 2.0
_OUTPUT_BYTES: Final = 1024 * 1024
_COLLECTING: Final = {"GOGC": "400", "GOMEMLIMIT": "640MiB"}
"""When Go programs collect garbage: less often than by default, unless they have grown that large."""


@dataclass
class Program:
    """A part of the cluster: its process if it runs, and how its earlier ones ended."""

    pid: int | None = None
    frozen: bool = False
    ends: list[int] = field(default_factory=list)


class Supervisor:
    """The loop that reaps and obeys."""

    def __init__(self, site: Site, listening: socket.socket) -> None:
        self._site = site
        self._listening = listening
        self._commands = programs.commands(site)
        self._parts = {part: Program() for part in self._commands}
        self._when_ended: dict[int, Callable[[int], None]] = {}

    def run(self) -> Never:
        """Serve until killed."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            ready, _, _ = select.select([self._listening.fileno(), woken], [], [])
            if woken in ready:
                os.read(woken, 4096)
            self._reap()
            if self._listening.fileno() in ready:
                self._serve(self._listening.accept()[0])

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if ended := self._when_ended.pop(pid, None):
                ended(os.waitstatus_to_exitcode(status))

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(_ASKING_SECONDS)
        try:
            if not control.may_ask(connection):
                connection.close()
                return
            reply = self._obey(control.receive(connection), connection)
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        if reply is not None:
            control.answer(connection, reply)

    def _obey(self, request: dict[str, Any], connection: socket.socket) -> dict[str, Any] | None:
        """Do what is asked; None means that the answer follows when something ended."""
        match request:
            case {"op": "status"}:
                return {"parts": {part: vars(program) for part, program in self._parts.items()}}
            case {"op": "start", "part": part}:
                self._start(Part(part))
                return {}
            case {"op": "ready", "part": part}:
                return {"ready": self._ready(Part(part))}
            case {"op": "signal", "part": part, "signal": number}:
                return self._signal(Part(part), signal.Signals(number), connection)
            case {"op": "run", "command": command}:
                self._run(command, connection)
                return None
        return {"error": f"not understood: {request}"}

    def _start(self, part: Part) -> None:
        program = self._parts[part]
        if program.pid is not None:
            return
        command = self._commands[part]
        if self._site.network is None:  # on a node the kernel takes them along when process 1 ends
            command = dying_with_us(*command)
        log = self._site.logs / f"{part}.log"
        program.pid, program.frozen = self._spawn(command, log), False
        self._when_ended[program.pid] = lambda code: self._ended(program, code)

    def _ended(self, program: Program, code: int) -> None:
        program.pid, program.frozen = None, False
        program.ends.append(code)

    def _ready(self, part: Part) -> bool:
        """Tell whether a part listens; only asked for those that can only be seen from in here."""
        if part is Part.ETCD:
            return _listens(socket.AF_INET, ("127.0.0.1", self._site.etcd_port))
        return _listens(socket.AF_UNIX, CONTAINERD_SOCKET)

    def _signal(self, part: Part, number: signal.Signals, asker: socket.socket) -> dict[str, Any] | None:
        program = self._parts[part]
        if program.pid is None:
            return {"error": f"{part} does not run"}
        if number == signal.SIGKILL:

            def tell(code: int) -> None:
                self._ended(program, code)
                control.answer(asker, {})

            self._when_ended[program.pid] = tell
        os.kill(program.pid, number)
        program.frozen = number == signal.SIGSTOP
        return None if number == signal.SIGKILL else {}

    def _run(self, command: Sequence[str], asker: socket.socket) -> None:
        output = tempfile.TemporaryFile()  # noqa: SIM115 - read when the command ended

        def tell(code: int) -> None:
            with output:
                output.seek(0)
                text = output.read(_OUTPUT_BYTES).decode(errors="replace")
            control.answer(asker, {"code": code, "output": text})

        self._when_ended[self._spawn(command, output)] = tell

    def _spawn(self, command: Sequence[str], output: Path | IO[bytes]) -> int:
        path = f"{self._site.binaries}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        if isinstance(output, Path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            to_output: tuple[Any, ...] = (os.POSIX_SPAWN_OPEN, 1, str(output), flags, 0o644)
        else:
            to_output = (os.POSIX_SPAWN_DUP2, output.fileno(), 1)
        return os.posix_spawnp(
            command[0],
            list(command),
            {**_without_proxies(), **_COLLECTING, "PATH": path},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                to_output,
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigdef=[signal.SIGPIPE],
        )


def _without_proxies() -> dict[str, str]:
    """Return our environment without a proxy of the machine's, which cannot reach anything in the cluster."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def _listens(family: socket.AddressFamily, where: tuple[str, int] | str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.connect(where)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    Supervisor(Site.load(Path(sys.argv[1])), socket.socket(fileno=int(sys.argv[2]))).run()
