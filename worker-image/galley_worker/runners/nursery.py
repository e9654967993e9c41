"""Where child processes come from: multiprocessing's fork server, asked from one thread.

The fork server is a clean process with the handlers' modules loaded; each child is a fork of it. It ends
with the thread that started it, and its children end with it, so a supervisor killed outright leaves
nobody behind. One thread and one server serve all Runners of a process, until the last of them is left.
"""

import asyncio
import json
import mmap
import multiprocessing
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import spawn
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Final

from galley_worker.runners import fork_server
from galley_worker.runners.child import entry

_TRIES: Final = 3
"""A server that was just killed is noticed by the first request it does not answer."""
_HANGS_SECONDS: Final = 0.5
"""How long a server may keep a request that nobody wants any more before it is killed."""


@dataclass(frozen=True, slots=True)
class Born:
    """A child that was made, and our ends of what it is tied to."""

    process: ForkServerProcess
    pidfd: int
    """Names this very process, also after its number was given to another one."""
    wire: socket.socket
    stdout: int
    stderr: int
    started: mmap.mmap
    """The child keeps the number of the order it started last here."""


class Nursery:
    """Makes children, and collects their exit codes."""

    _lock = threading.Lock()
    _users = 0
    _thread: ThreadPoolExecutor | None = None
    _tracker_is_ours = False

    def __enter__(self) -> "Nursery":
        cls = type(self)
        with cls._lock:
            cls._users += 1
            if cls._thread is None:
                cls._thread = ThreadPoolExecutor(1, "galley nursery")
                cls._tracker_is_ours = not fork_server.tracker_runs()
            self._mine = cls._thread
        return self

    def __exit__(self, *_: object) -> None:
        cls = type(self)
        with cls._lock:
            cls._users -= 1
            if cls._users == 0 and cls._thread is not None:
                cls._thread.shutdown(wait=True)
                cls._thread = None
                fork_server.end(tracker=cls._tracker_is_ours)

    async def bear(self, birth: entry.Birth) -> Born:
        """Make a child; cancelled, it makes none.

        Raises:
            OSError: if the operating system does not allow it.
        """
        delivery = _Delivery(birth)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._mine, delivery.run)
        except asyncio.CancelledError:
            delivery.give_up()
            raise

    async def collect(self, born: Born) -> int:
        """Return the exit code of a child that has ended; negative is a signal."""
        return await asyncio.get_running_loop().run_in_executor(self._mine, _collect, born)


class _Delivery:
    """One child on its way, which the event loop can give up while the thread still waits for it."""

    def __init__(self, birth: entry.Birth) -> None:
        self._birth = birth
        self._lock = threading.Lock()
        self._begun = self._over = self._given_up = False
        # A healthy server needs a millisecond, and must not be killed: others may have children of it.
        self._rescue = threading.Timer(_HANGS_SECONDS, fork_server.kill)

    def run(self) -> Born:
        with self._lock:
            self._begun = True
        try:
            born = self._persist()
        finally:
            with self._lock:
                self._over = True
                self._rescue.cancel()
        if self._given_up:
            _abandon(born)
            raise OSError("nobody waits for this child any more")
        return born

    def _persist(self) -> Born:
        for left in reversed(range(_TRIES)):
            try:
                return _bear(self._birth)
            except ProcessLookupError:
                if self._given_up or not left:
                    raise
            except (ConnectionError, EOFError) as error:
                # The server was killed, by others or while it imported: the next try makes a new one.
                fork_server.end(tracker=False)
                if self._given_up or not left:
                    problem = str(error) or "the fork server died"
                    raise OSError(f"no child process could be made: {problem}") from error
        raise AssertionError

    def give_up(self) -> None:
        with self._lock:
            self._given_up = True
            if self._begun and not self._over:
                self._rescue.start()


def _abandon(born: Born) -> None:
    signal.pidfd_send_signal(born.pidfd, signal.SIGKILL)
    _collect(born)
    born.wire.close()
    born.started.close()
    for descriptor in (born.pidfd, born.stdout, born.stderr):
        os.close(descriptor)


def _bear(birth: entry.Birth) -> Born:
    context = multiprocessing.get_context("forkserver")
    wire, its_wire = socket.socketpair()
    stdout, its_stdout = os.pipe()
    stderr, its_stderr = os.pipe()
    memory = os.memfd_create("galley")
    os.ftruncate(memory, 8)
    page = mmap.mmap(memory, 8)
    ends = Connection(its_stdout, readable=False), Connection(its_stderr, readable=False), Connection(memory)
    process = context.Process(target=entry.main, args=(its_wire, *ends, birth), name=f"galley {birth.kind}")
    try:
        _start(process, birth)
        pidfd = os.pidfd_open(process.pid or 0)
        wire.send(entry.GO)
    except BaseException:
        wire.close()
        os.close(stdout)
        os.close(stderr)
        page.close()
        raise
    finally:
        its_wire.close()
        for end in ends:
            end.close()
    return Born(process, pidfd, wire, stdout, stderr, page)


def _start(process: ForkServerProcess, birth: entry.Birth) -> None:
    multiprocessing.get_context("forkserver").set_forkserver_preload(["galley_worker.runners.child.preload"])
    main = spawn.get_preparation_data(process.name)
    told = [
        birth.modules, birth.import_paths, main.get("init_main_from_path"), main.get("init_main_from_name"),
    ]  # fmt: skip
    os.environ[entry.PRELOAD] = json.dumps(told)
    try:
        # This also makes the fork server, with this environment, where there is none or it was killed.
        process.start()
    finally:
        del os.environ[entry.PRELOAD]


def _collect(born: Born) -> int:
    born.process.join(5)
    code = born.process.exitcode
    if code is not None:
        born.process.close()
    return 255 if code is None else code
