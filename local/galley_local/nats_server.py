"""Runs a nats-server process that keeps its data in a folder.

It runs in its own session, so that Ctrl-C in a terminal does not reach it: `galley dev` stops it after the
workers.
"""

import asyncio
import contextlib
import fcntl
import inspect
import json
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from galley_local.errors import ServerDidNotStart, ServerFolderInUse, ServerPortInUse
from galley_local.jetstream_probe import jetstream_answers
from galley_local.nats_binary import nats_server_binary
from galley_local.orphan_guard import dying_with_us

STORE_BYTES: Final = 1024**5
"""Room for the streams of `galley dev`, which reserve more than they use; the disk is watched instead."""

_MAX_PAYLOAD: Final = 1024 * 1024
_STOP_SECONDS: Final = 15.0
"""A graceful stop takes about 10 ms per consumer, so this is enough for a thousand."""

_LOOK_AGAIN_SECONDS: Final = 0.005
_LAST_LINES: Final = 12
_PORT_TAKEN: Final = "address already in use"


class NatsServer:
    """Runs nats-server with JetStream on 127.0.0.1; `async with` starts and stops it."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        monitoring: bool = False,
        max_payload: int = _MAX_PAYLOAD,
        max_store_bytes: int | None = None,
        start_seconds: float = 10.0,
    ) -> None:
        """Configure the server without starting it.

        Args:
            folder: for streams, configuration and log; created if absent.
            port: None selects a free one, which later starts reuse.
            monitoring: whether to serve the HTTP endpoints (unauthenticated) on a free port.
            max_payload: largest message in bytes.
            max_store_bytes: disk space for all streams; None means 3/4 of the free space.
            start_seconds: how long `start` waits for JetStream to answer.
        """
        self.folder = folder
        self.log_file = folder / "nats-server.log"
        self._port = port
        self._monitoring = monitoring
        self._monitoring_url: str | None = None
        self._max_payload = max_payload
        self._max_store_bytes = max_store_bytes
        self._start_seconds = start_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._ran_before = False
        self._log_start = 0

    @property
    def url(self) -> str:
        """The URL for clients; known after the first start."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """The port for clients."""
        if self._port is None:
            raise RuntimeError("the port is not known before the first start")
        return self._port

    @property
    def monitoring_url(self) -> str | None:
        """The URL of the HTTP endpoints, if they are served."""
        return self._monitoring_url

    @property
    def pid(self) -> int | None:
        """The process id of the running server."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        """Whether the process exists, frozen or not."""
        return self._process is not None and self._process.poll() is None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server and wait until JetStream answers; does nothing if it runs.

        After a stop or a kill it uses the same port and the same data.

        Raises:
            ServerNotInstalled: if there is no binary.
            ServerFolderInUse: if another server keeps its data in the folder.
            ServerPortInUse: if another program listens on the port.
            ServerDidNotStart: if it ended, or JetStream did not answer in time.
        """
        if self.running:
            return
        binary = nats_server_binary()
        self._ports_folder.mkdir(parents=True, exist_ok=True)
        try:
            async with asyncio.timeout(self._start_seconds):
                await _until(lambda: self._try_start(binary))
        except TimeoutError:
            self.kill()
            if _PORT_TAKEN in self._last_lines():
                raise ServerPortInUse(self._port) from None
            problem = f"did not answer within {self._start_seconds:g} s"
            raise ServerDidNotStart(problem, str(self.log_file), self._last_lines()) from None
        except BaseException:
            self.kill()
            raise
        self._ran_before = True

    async def stop(self, within: float = _STOP_SECONDS) -> None:
        """Stop the server after its writes; kill it if that takes longer than `within` seconds."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        self.thaw()  # a frozen process handles no signal
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await _until(lambda: not self.running)
        self.kill()

    def kill(self) -> None:
        """Kill the server as in a crash, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Freeze the process: its sockets stay open and it answers nothing."""
        self._signal(signal.SIGSTOP)
        if (pid := self.pid) is not None:
            # Its threads continue for a moment; the kernel reports when the last one has stopped.
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Continue a frozen process."""
        self._signal(signal.SIGCONT)

    @property
    def _ports_folder(self) -> Path:
        return self.folder / "ports"

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    async def _try_start(self, binary: Path) -> bool:
        """Start once; return False if the port of the last start is temporarily in use.

        A client that reconnects to a port of the ephemeral range on which no process listens can get that
        port as its own and connect to itself.
        """
        self._process = self._spawn(binary)
        ports_file = self._ports_folder / f"nats-server_{self._process.pid}.ports"
        await _until(lambda: not self.running or self._read_ports(ports_file))
        while self.running:
            if await jetstream_answers(self.port):
                return True
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        last_lines = self._last_lines()
        if _PORT_TAKEN not in last_lines:
            problem = f"ended with exit code {self._process.returncode}"
            raise ServerDidNotStart(problem, str(self.log_file), last_lines)
        if not self._ran_before:
            raise ServerPortInUse(self._port)
        return False

    def _spawn(self, binary: Path) -> subprocess.Popen[bytes]:
        config_file = self.folder / "nats-server.conf"
        with self._locked_folder() as lock, self.log_file.open("ab") as log:
            # Left by a killed server, whose pid may be reused. With the lock: others may wait for theirs.
            for stale in self._ports_folder.glob("*.ports"):
                stale.unlink(missing_ok=True)
            config_file.write_text(json.dumps(self._config(), indent=2) + "\n")
            self._log_start = log.tell()
            # SIGKILL is safe: acknowledged writes are in the page cache and survive.
            process = subprocess.Popen(
                dying_with_us(str(binary), "--config", config_file.name),
                # All paths are relative to it: nats-server cannot read every path in its configuration.
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
            )
            lock.truncate(0)
            lock.write(str(process.pid))
        return process

    def _locked_folder(self) -> IO[str]:
        """Return the lock file, locked.

        nats-server does not prevent two processes from writing to one store. The server inherits the lock, so
        it is held exactly as long as the process lives.
        """
        lock = (self.folder / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = f"nats-server, process {lock.read() or 'unknown'}"
            lock.close()
            raise ServerFolderInUse(str(self.folder), holder) from None
        return lock

    def _config(self) -> dict[str, Any]:
        """Return the server's configuration, whose syntax includes JSON."""
        jetstream: dict[str, Any] = {"store_dir": "."}
        if self._max_store_bytes is not None:
            jetstream["max_file_store"] = self._max_store_bytes
        config: dict[str, Any] = {
            "listen": f"127.0.0.1:{-1 if self._port is None else self._port}",
            "server_name": "galley-local",
            "max_payload": self._max_payload,
            "ports_file_dir": self._ports_folder.name,
            "jetstream": jetstream,
        }
        if self._monitoring:
            config["http"] = "127.0.0.1:-1"
        return config

    def _read_ports(self, ports_file: Path) -> bool:
        """Read the ports the process listens on; False until it has written them."""
        try:
            ports = json.loads(ports_file.read_text())
        except (OSError, ValueError):
            return False
        self._port = int(ports["nats"][0].rpartition(":")[2])
        self._monitoring_url = next(iter(ports.get("monitoring") or []), None)
        return True

    def _last_lines(self) -> str:
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_LAST_LINES:])


async def _until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Return once `condition` holds. It polls: neither a process nor a file notifies of a change."""
    while True:
        answer = condition()
        if await answer if inspect.isawaitable(answer) else answer:
            return
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
