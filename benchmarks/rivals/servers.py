"""The servers that the queues need, each with an empty store, on loopback, gone when they are left."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from galley_local.nats_server import NatsServer
from tests.support.port import free_port

PACKAGES: Final = {"redis": "redis-server", "rabbitmq": "rabbitmq-server", "postgres": "postgresql"}
"""Debian's package of each server that has one."""
_COMMANDS: Final = {"redis": "redis-server", "rabbitmq": "rabbitmq-server", "postgres": "pg_ctlcluster"}
_START_SECONDS: Final = 90.0
_POSTGRES: Final = Path("/usr/lib/postgresql")
_RABBITMQ: Final = "/usr/lib/rabbitmq/bin/rabbitmq-server"


class ServerLost(Exception):
    """A server did not start."""


@dataclass(frozen=True)
class Serving:
    """Servers that run."""

    store: str
    """Their addresses, with a blank between them; a folder if there is none."""
    pids: tuple[int, ...]


def install(kinds: Sequence[str]) -> None:
    """Install the servers that are missing."""
    missing = [PACKAGES[kind] for kind in kinds if kind in PACKAGES and shutil.which(_COMMANDS[kind]) is None]
    if missing:
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *missing], check=True)


@contextmanager
def serving(kinds: Sequence[str], folder: Path) -> Iterator[Serving]:
    """Run servers; yields where they are.

    Raises:
        ServerLost: one did not start.
    """
    start = {"nats": _nats, "redis": _redis, "rabbitmq": _rabbitmq, "postgres": _postgres}
    with ExitStack() as servers:
        found = [servers.enter_context(start[kind](folder / kind)) for kind in kinds]
        yield Serving(" ".join(store for store, _ in found) or str(folder), tuple(pid for _, pid in found))


@contextmanager
def _nats(folder: Path) -> Iterator[tuple[str, int]]:
    server = NatsServer(folder)
    asyncio.run(server.start())
    try:
        assert server.pid is not None
        yield server.url, server.pid
    finally:
        server.kill()


@contextmanager
def _redis(folder: Path) -> Iterator[tuple[str, int]]:
    folder.mkdir()
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
               "--appendonly", "yes"]  # fmt: skip
    with _running(command, port, folder) as pid:
        yield f"redis://127.0.0.1:{port}/0", pid


@contextmanager
def _rabbitmq(folder: Path) -> Iterator[tuple[str, int]]:
    folder.mkdir()
    port, names = free_port(), free_port()
    # Its node registers with `epmd`, which would stay behind as a daemon of the machine.
    environment = {
        "HOME": str(folder), "ERL_EPMD_PORT": str(names), "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": "rivals@localhost", "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port), "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_MNESIA_BASE": str(folder), "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_PID_FILE": str(folder / "pid"), "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
    }  # fmt: skip
    with (
        _running(["epmd", "-port", str(names), "-address", "127.0.0.1"], names, folder),
        _running([_RABBITMQ], port, folder, environment) as pid,
    ):
        yield f"amqp://guest:guest@127.0.0.1:{port}/", pid


@contextmanager
def _postgres(folder: Path) -> Iterator[tuple[str, int]]:
    folder.mkdir()
    port = free_port()
    programs = max(_POSTGRES.iterdir(), key=lambda each: int(each.name)) / "bin"
    # It refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
        folder.parent.chmod(0o711)
    initdb = [str(programs / "initdb"), "-D", str(folder / "data"), "-U", "rivals", "--auth=trust"]
    subprocess.run(initdb, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    command = [str(programs / "postgres"), "-D", str(folder / "data"), "-h", "127.0.0.1", "-p", str(port),
               "-k", str(folder)]  # fmt: skip
    with _running(command, port, folder, user=user) as pid:
        yield f"postgresql://rivals@127.0.0.1:{port}/postgres", pid


@contextmanager
def _running(
    command: Sequence[str], port: int, folder: Path, environment: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Iterator[int]:  # fmt: skip
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **(environment or {})}, cwd=folder, user=user,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _wait_for(process, port, folder)
        yield process.pid
    finally:
        kill(process)


def _wait_for(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise ServerLost(f"{process.args!r} did not start:\n{(folder / 'server.log').read_text()[-2000:]}")


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, its descendants, and wait for the first."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for pid in (process.pid, *(each.pid for each in family)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
