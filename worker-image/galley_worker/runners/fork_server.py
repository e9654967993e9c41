"""Where child processes come from: multiprocessing's fork server, asked from one thread.

The fork server is a clean process that has Galley's modules loaded, and those that the queue preloads; each
child is a fork of it. It ends with the thread that started it, and its children end with it, so nothing is
left of a supervisor that is killed outright. One thread and one server serve all Runners of a process, until
the last of them is left.

A worker that has imported little yet can be that clean process itself: `begin` forks it, and begins the first
child, before anything asks for one.

Multiprocessing starts one fork server and one resource tracker per process, and keeps both until that
process ends. A worker that stops must leave nothing behind, and a module that hangs while the server preloads
it must be stopped from outside. There is no public way to either, so what is private to multiprocessing is
touched here and nowhere else.
"""

import asyncio
import contextlib
import gc
import json
import mmap
import multiprocessing
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker, spawn, util
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any, ClassVar, Final, NoReturn

from galley_worker.runners.child import entry
from galley_worker.runners.child.kernel import children_of, running_name
from galley_worker.runners.page import BYTES
from galley_worker.runners.sweeper import Sweeper

_TRIES: Final = 3
"""A server that was just killed is noticed by the first request it does not answer."""
_HANGS_SECONDS: Final = 0.5
"""How long a server may keep a request that is not needed any more before it is killed."""
_UNKNOWN: Final = 255
"""The exit code of a child whose fork server ended before it could be asked."""
_ROUNDS: Final = 100
_PAUSE_SECONDS: Final = 0.005

# Neither object is typed with what is needed here.
_SERVER: Final[Any] = forkserver._forkserver  # noqa: SLF001
_TRACKER: Final[Any] = resource_tracker._resource_tracker  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class Child:
    """A child that was made, and our ends of what it is tied to."""

    process: ForkServerProcess
    pidfd: int
    """Names this very process, also after its number was given to another one."""
    wire: socket.socket
    stdout: int
    stderr: int
    page: mmap.mmap
    """Memory in which the child shows what runs."""


@dataclass(frozen=True, slots=True)
class End:
    """What became of a child."""

    code: int
    """Its exit code; negative is a signal."""
    ended: tuple[str, ...]
    """Processes it had started that were still running and were killed."""


class ForkServer:
    """Makes children, and collects their exit codes and what they leave running."""

    _ahead: "ClassVar[_Ahead | None]" = None
    _lock = threading.Lock()
    _users = 0
    _thread: ThreadPoolExecutor | None = None
    _sweeper: Sweeper | None = None
    _tracker_is_ours = False
    _alive: ClassVar[set[int]] = set()

    def __init__(self, preload: tuple[str, ...] = (), import_paths: tuple[str, ...] = ()) -> None:
        self._told = preload, import_paths

    def __enter__(self) -> "ForkServer":
        cls = type(self)
        with cls._lock:
            cls._users += 1
            if cls._thread is None:
                cls._thread = ThreadPoolExecutor(1, "galley fork server")
                cls._sweeper = Sweeper()
                cls._tracker_is_ours = _TRACKER._fd is None  # noqa: SLF001
            self._mine = cls._thread
        return self

    def __exit__(self, *_: object) -> None:
        cls = type(self)
        with cls._lock:
            cls._users -= 1
            if cls._users == 0 and cls._thread is not None and cls._sweeper is not None:
                self._drop_ahead()
                cls._thread.shutdown(wait=True)
                cls._thread = None
                _end_server(tracker=cls._tracker_is_ours)
                cls._sweeper.close()
                cls._sweeper = None

    async def fork(self, setup: entry.Setup) -> Child:
        """Make a child; cancelled, it makes none.

        Raises:
            OSError: if the operating system does not allow it.
        """
        request, child = self._take_ahead(setup) or self._request(setup)
        try:
            return await asyncio.wrap_future(child)
        except asyncio.CancelledError:
            request.give_up()
            # It may have been made already, with the event loop not having heard of it yet.
            self._mine.submit(request.abandon)
            raise

    @contextlib.contextmanager
    def begun(self, setup: entry.Setup) -> Iterator[None]:
        """Begin the child that `fork` is to return first, if it is asked for the same.

        The fork server is a fork of this process, which must have one thread and have imported no more than
        children may see. If nothing has asked for the child by the end of the block, both are ended.
        Nothing is begun where the kernel cannot tell the processes of this worker, or does not allow it.
        """
        cls = type(self)
        with contextlib.ExitStack() as kept:
            kept.enter_context(self)
            assert cls._sweeper is not None
            if cls._sweeper.number:
                try:
                    with self._telling(), _forking():
                        self._ensure_running()
                except OSError:
                    kept.close()  # what is in the way will be told when the child is asked for
                else:
                    cls._ahead = _Ahead(self._told, setup, *self._request(setup), kept.close)
            yield

    def _request(self, setup: entry.Setup) -> "tuple[_Request, Future[Child]]":
        request = _Request(self, setup)
        return request, self._mine.submit(request.run)

    def _take_ahead(self, setup: entry.Setup) -> "tuple[_Request, Future[Child]] | None":
        cls = type(self)
        ahead = cls._ahead
        if ahead is None:
            return None
        same = (ahead.told, ahead.setup) == (self._told, setup)
        if same:
            cls._ahead = None
        else:
            self._drop_ahead()
            # It has imported what nothing asks for.
            self._mine.submit(self.end_server)
        ahead.let_go()
        return (ahead.request, ahead.child) if same else None

    def _drop_ahead(self) -> None:
        cls = type(self)
        ahead, cls._ahead = cls._ahead, None
        if ahead is not None:
            ahead.request.give_up()
            self._mine.submit(ahead.request.abandon)

    async def collect(self, child: Child) -> End:
        """Return what became of a child that has ended, and kill what it left running."""
        return await asyncio.get_running_loop().run_in_executor(self._mine, self.collect_now, child)

    def make(self, setup: entry.Setup) -> Child:
        """Make a child, in the thread of this class.

        Raises:
            OSError, EOFError: if the operating system does not allow it, or the fork server died.
        """
        if _SERVER._forkserver_pid is not None and not running_name(_SERVER._forkserver_pid):  # noqa: SLF001
            self.end_server()
        context = multiprocessing.get_context("forkserver")
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            wire, its_wire = socket.socketpair()
            ours.callback(wire.close)
            theirs.callback(its_wire.close)
            stdout, its_stdout = _pipe(ours, theirs)
            stderr, its_stderr = _pipe(ours, theirs)
            memory = theirs.enter_context(Connection(os.memfd_create("galley")))
            os.ftruncate(memory.fileno(), BYTES)
            page = mmap.mmap(memory.fileno(), BYTES)
            ours.callback(page.close)
            process = context.Process(
                target=entry.main, args=(its_wire, its_stdout, its_stderr, memory, setup),
                name=f"galley {setup.kind}",
            )  # fmt: skip
            self._start(process)
            pidfd = os.pidfd_open(process.pid or 0)
            ours.callback(os.close, pidfd)
            wire.send(entry.GO)
            ours.pop_all()
        self._alive.add(process.pid or 0)
        return Child(process, pidfd, wire, stdout, stderr, page)

    def _start(self, process: ForkServerProcess) -> None:
        with self._telling():
            self._ensure_running()
            process.start()

    def _ensure_running(self) -> None:
        """Make the fork server, where there is none or it was killed."""
        assert self._sweeper is not None
        with self._sweeper.numbering(self._sweeper.number):
            _SERVER.ensure_running()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Have a fork server that is made in the block know what it is to import and whose it is."""
        multiprocessing.get_context("forkserver").set_forkserver_preload(
            ["galley_worker.runners.child.preload"]
        )
        main = spawn.get_preparation_data("galley")
        assert self._sweeper is not None
        mark, owner = self._sweeper.mark
        # Without the mark, since the tracker serves other users of multiprocessing too.
        resource_tracker.ensure_running()
        # This process's environment is what the fork server, and all below it, will have.
        os.environ[entry.PRELOAD] = json.dumps(
            [*self._told, main.get("init_main_from_path"), main.get("init_main_from_name")]
        )
        os.environ[mark] = owner
        try:
            yield
        finally:
            del os.environ[entry.PRELOAD], os.environ[mark]

    def collect_now(self, child: Child) -> End:
        """Collect a child that has ended, in the thread of this class."""
        child.process.join(5)
        code = child.process.exitcode
        number = child.process.pid or 0
        self._alive.discard(number)
        if code is not None:
            child.process.close()
        if code in {None, _UNKNOWN}:
            # The fork server is gone, and the child became ours if this process adopts orphans.
            _reap(number)
        return End(_UNKNOWN if code is None else code, self._end_orphans())

    def _end_orphans(self) -> tuple[str, ...]:
        """Kill what children left: it became the fork server's, which has no other children but ours."""
        server = _SERVER._forkserver_pid  # noqa: SLF001
        ended: dict[int, str] = {}
        if server is None:
            return ()
        for _ in range(_ROUNDS):
            left = {one: running_name(one) for one in children_of(server) - self._alive}
            # What one of them started just before it ended may not have been there a moment ago.
            if not any(left.values()) and children_of(server) - self._alive <= left.keys():
                break
            for process, name in left.items():
                if name:
                    ended[process] = f"{name} (pid {process})"
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(process, signal.SIGKILL)
            time.sleep(_PAUSE_SECONDS)  # noqa: TID251 - nothing tells when the last of them has gone
        return tuple(ended.values())

    def end_server(self) -> None:
        """Kill the fork server, its children, and what they had started; another one will be made."""
        _end_server(tracker=False)
        assert self._sweeper is not None
        for process in self._sweeper.sweep():
            _reap(process)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A child that was begun before it was asked for."""

    told: tuple[tuple[str, ...], tuple[str, ...]]
    setup: entry.Setup
    request: "_Request"
    child: Future[Child]
    let_go: Callable[[], None]
    """Ends the use of the fork server by who began it."""


class _Request:
    """One child that is being made; the event loop can give it up while the thread still waits for it."""

    def __init__(self, fork_server: ForkServer, setup: entry.Setup) -> None:
        self._fork_server = fork_server
        self._setup = setup
        self._lock = threading.Lock()
        self._begun = self._over = self._given_up = False
        self._child: Child | None = None
        # A healthy server needs a millisecond, and must not be killed: others may have children of it.
        self._rescue = threading.Timer(_HANGS_SECONDS, _kill_server)

    def run(self) -> Child:
        with self._lock:
            self._begun = True
        try:
            self._child = child = self._persist()
        finally:
            with self._lock:
                self._over = True
                self._rescue.cancel()
        return child

    def _persist(self) -> Child:
        for left in reversed(range(_TRIES)):
            try:
                return self._fork_server.make(self._setup)
            except ProcessLookupError:
                if self._given_up or not left:
                    raise
            except (ConnectionError, EOFError) as error:
                # The server was killed, by others or while it imported: the next try makes a new one.
                self._fork_server.end_server()
                if self._given_up or not left:
                    problem = str(error) or "the fork server died"
                    raise OSError(f"no child process could be made: {problem}") from error
        raise AssertionError

    def give_up(self) -> None:
        with self._lock:
            self._given_up = True
            if self._begun and not self._over:
                self._rescue.start()

    def abandon(self) -> None:
        """End the child, if it was made; in the thread of this class."""
        child = self._child
        if child is None:
            return
        signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        self._fork_server.collect_now(child)
        child.wire.close()
        child.page.close()
        for descriptor in (child.pidfd, child.stdout, child.stderr):
            os.close(descriptor)


@contextlib.contextmanager
def _forking() -> Iterator[None]:
    """Have a fork server that is made in the block be a fork of this process: it need not import again."""
    theirs: Any = util
    spawn_program = theirs.spawnv_passfds

    def fork(_program: bytes, arguments: Sequence[str], files: Sequence[int]) -> int:
        theirs.spawnv_passfds = spawn_program  # in the fork, too
        # Our handlers of signals must not run in the fork.
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        try:
            pid = os.fork()
            if pid == 0:
                _become_server(arguments[-1], files, signals)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        return pid

    theirs.spawnv_passfds = fork
    try:
        yield
    finally:
        theirs.spawnv_passfds = spawn_program


def _become_server(code: str, files: Sequence[int], signals: set[Any]) -> NoReturn:
    """Run the code of a fork server as if this were a new process."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        kept = {0, 1, 2, *files}
        # Also our end of the pipe by which it notices that no process uses it, and what this worker locks.
        for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - only the names are used
            if number not in kept:
                with contextlib.suppress(OSError):  # that of the folder itself
                    os.close(number)
        # Their locks are taken, and they know the processes of our parent.
        for known in (_SERVER, _TRACKER):
            known.__init__()
        gc.freeze()  # so that a collection copies nothing of what all share
        gc.enable()
        exec(code, {})  # noqa: S102 - multiprocessing's own
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _pipe(ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[int, Connection]:
    """Return our end of a pipe and a child's, which are closed with these."""
    reading, writing = os.pipe()
    ours.callback(os.close, reading)
    return reading, theirs.enter_context(Connection(writing, readable=False))


def _reap(process: int) -> None:
    """Collect a process that has ended, if it is a child of this one."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process, os.WNOHANG)


def _kill_server() -> None:
    """Kill the server, and with it its children. Who waits for a child gets an EOFError."""
    _kill(_SERVER._forkserver_pid)  # noqa: SLF001


def _end_server(*, tracker: bool) -> None:
    """Kill and collect the server, and the resource tracker too if it is ours."""
    _kill_server()
    # Neither waits long, since both are killed; it closes our ends and collects the exit codes.
    with contextlib.suppress(ChildProcessError):
        _SERVER._stop()  # noqa: SLF001
    if tracker:
        # Killed rather than asked: asked, it would remove what others may have registered since.
        _kill(_TRACKER._pid)  # noqa: SLF001
        with contextlib.suppress(ChildProcessError):
            _TRACKER._stop()  # noqa: SLF001


def _kill(pid: int | None) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
