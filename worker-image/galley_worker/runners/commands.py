"""Commands: programs a queue declares as handlers, each run as a subprocess in a session of its own."""

import asyncio
import contextlib
import errno
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Raw

from galley.history import MESSAGE_LIMIT
from galley.inside import ANCESTORS_VARIABLE
from galley.record import Failure
from galley.unreadable import UNREADABLE
from galley_worker.clock import uninterrupted
from galley_worker.ending import Crashed, Ending, Raised, Returned
from galley_worker.runners.child.descendants import in_words as ended_in_words
from galley_worker.runners.child.kernel import adopt_orphans, children_of, running_name, tree_of
from galley_worker.runners.child.sweep import carries
from galley_worker.runners.execution import Account, Execution
from galley_worker.runners.exits import in_words
from galley_worker.runners.in_turn import InTurn
from galley_worker.runners.output import STREAM_NAMES, Output
from galley_worker.runners.settings import CommandHandler, RunnerSettings
from galley_worker.runners.sweeper import Sweeper
from galley_worker.work import Work

TAIL_LIMIT: Final = 32 * 1024
"""Bytes of each stream kept for the result: as JSON, both together stay below what a record may hold."""
MARK: Final = "GALLEY_COMMAND"
"""Environment variable by which the processes of one command are known."""
_DEATH_SECONDS: Final = 5.0
_ROUNDS: Final = 100
_PAUSE_SECONDS: Final = 0.005
_FRESH_SECONDS: Final = 0.5
"""A program starts within this of a look at the leases, which may be lost by then."""


class Commands(InTurn):
    """Runs programs, at most `concurrency` at a time."""

    def __init__(self, settings: RunnerSettings, clock: Callable[[], float]) -> None:
        super().__init__("program", settings.concurrency, clock)
        self._settings = settings
        self._known = {command.name: command for command in settings.commands}
        self._subprocesses: dict[Execution, Subprocess] = {}
        # Starting a program takes a millisecond or more, which the event loop has no time for.
        self._threads = ThreadPoolExecutor(2, "galley commands")
        self._sweeper = Sweeper() if settings.commands else None
        self._numbers = itertools.count(1)
        if self._sweeper is not None:
            # What a command leaves becomes a child of this process, where it is found when the command ends.
            adopt_orphans()

    def knows(self, name: str) -> bool:
        """Return whether a handler is a command."""
        return name in self._known

    def _interrupt(self, execution: Execution, *, at_once: bool) -> None:
        """Send SIGTERM, and SIGKILL after the grace."""
        running = self._subprocesses.get(execution)
        if running is None:  # about to start: `_execute` looks once it has
            return
        if at_once:
            running.kill()
        else:
            running.terminate(self._settings.kill_grace_seconds)

    async def close(self, why: str) -> None:
        """End what is left as cut off, and kill every program."""
        await super().close(why)
        self._threads.shutdown(wait=False)
        if self._sweeper is not None:
            await asyncio.to_thread(self._sweeper.close)

    async def _execute(self, execution: Execution) -> Ending:
        command = self._known[execution.work.handler]
        try:
            argv, stdin = _arguments(command, execution.work)
        except (TypeError, ValueError, OSError) as error:
            return Raised(Failure("InputInvalid", str(error)[:MESSAGE_LIMIT]), retryable=False)
        assert self._sweeper is not None
        name, owner = self._sweeper.mark
        mark = f"{owner}-{next(self._numbers)}"
        environment = {**os.environ, name: owner, MARK: mark, **_task(execution.work)}
        number = self._sweeper.next_number()

        def start(looked_at: float) -> Subprocess | None:
            if uninterrupted() - looked_at > _FRESH_SECONDS:
                return None
            assert self._sweeper is not None
            with self._sweeper.numbering(number):
                return _open(argv, stdin, environment)

        running = None
        try:
            while running is None:
                # This process may have been frozen since the work was given to it: that may withdraw it.
                self._settings.before_orders()
                if execution.because is not None:
                    return execution.because
                running = await self._loop.run_in_executor(self._threads, start, uninterrupted())
        except (OSError, ValueError) as error:
            return _not_started(command, error)
        running.follow(self._loop, self._settings, execution.account)
        execution.started_at = self._clock()
        self._subprocesses[execution] = running
        if execution.because is not None:
            running.terminate(self._settings.kill_grace_seconds)
        try:
            code = await running.ended
        finally:
            del self._subprocesses[execution]
        left = await self._loop.run_in_executor(self._threads, _end_left, f"{MARK}={mark}".encode(), number)
        if left:
            self._settings.notice(execution.work, ended_in_words(left).rstrip())
        if execution.because is not None:
            return execution.because
        return running.outcome(code)


class Subprocess:
    """One running program."""

    def __init__(self, popen: "subprocess.Popen[bytes]") -> None:
        self._popen = popen
        self._pidfd = os.pidfd_open(popen.pid)

    def follow(self, loop: asyncio.AbstractEventLoop, settings: RunnerSettings, account: Account) -> None:
        """Read its output and wait for its end, in the event loop."""
        self.ended: asyncio.Future[int] = loop.create_future()
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._outputs = []
        for pipe, stream in zip((self._popen.stdout, self._popen.stderr), STREAM_NAMES, strict=True):
            assert pipe is not None
            # The Output closes its own copy; the file object must not close the same number later.
            descriptor = os.dup(pipe.fileno())
            pipe.close()
            self._outputs.append(
                Output(loop, descriptor, stream, settings, lambda _order: account, tail_limit=TAIL_LIMIT)
            )
        loop.add_reader(self._pidfd, self._exited)

    def terminate(self, grace: float) -> None:
        """Ask the whole group to end, and kill it after the grace."""
        self._signal(signal.SIGTERM)
        if self._timer is None:
            self._timer = self._loop.call_later(grace, self.kill)

    def kill(self) -> None:
        """Kill the whole group."""
        self._signal(signal.SIGKILL)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_DEATH_SECONDS, self._exited)

    def _signal(self, number: signal.Signals) -> None:
        # Not reaped before `ended`, so the group's number cannot be another one's.
        if not self.ended.done():
            # A program that became another user's, as sudo does, takes signals from that user only.
            with contextlib.suppress(PermissionError):
                os.killpg(self._popen.pid, number)

    def _exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        if self.ended.done():
            return
        # What it left in the background goes with it; other holders of the pipes are not waited for.
        self._signal(signal.SIGKILL)
        if self._timer is not None:
            self._timer.cancel()
        for output in self._outputs:
            output.close()
        os.close(self._pidfd)
        code = self._popen.poll()
        self.ended.set_result(-signal.SIGKILL if code is None else code)

    def outcome(self, code: int) -> Ending:
        """Return how it ended by itself."""
        stdout, stderr = self._outputs
        if code == 0:
            told: dict[str, Any] = {
                "exitCode": 0,
                "stdout": stdout.tail.decode(errors="replace"),
                "stderr": stderr.tail.decode(errors="replace"),
                "stdoutBytes": stdout.total,
                "stderrBytes": stderr.total,
            }
            return Returned(Raw(msgspec.json.encode(told)))
        if code < 0:
            return Crashed(in_words(code))
        text = stderr.tail.decode(errors="replace").strip()
        last = text.rpartition("\n")[2]
        message = f"exit code {code}: {last}" if last else f"exit code {code}"
        failure = Failure("CommandFailed", message[:MESSAGE_LIMIT], text[-8192:])
        return Raised(failure, retryable=True, kinds=(f"exit {code}",))


def _arguments(command: CommandHandler, work: Work) -> tuple[list[str], bytes | Path]:
    """Return argv and stdin, or the file it is in, for an input."""
    large = Path(work.large) if work.large else None
    if command.input_as == "stdin":
        return list(command.command), large or bytes(work.input)
    data = large.read_bytes() if large else work.input
    try:
        values = msgspec.json.decode(data)
    except UNREADABLE as error:
        raise ValueError(f"the input is not JSON: {error}") from None
    if not isinstance(values, list):
        raise TypeError(f'command {command.name!r} takes a list of arguments as input, such as ["a", 1]')
    more = [value if isinstance(value, str) else msgspec.json.encode(value).decode() for value in values]
    if any("\0" in value for value in more):
        raise ValueError("an argument holds a NUL character, which no program can be given")
    return [*command.command, *more], b""


def _not_started(command: CommandHandler, error: Exception) -> Raised:
    program = command.command[0] if command.command else ""
    if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError) or not program:
        problem = f"program {program!r} of command {command.name!r} cannot be run: {error}"
        return Raised(Failure("CommandNotFound", problem), retryable=False)
    problem = f"command {command.name!r} could not be started: {error}"[:MESSAGE_LIMIT]
    if isinstance(error, OSError) and error.errno == errno.E2BIG:
        return Raised(Failure("InputInvalid", problem), retryable=False)
    return Raised(Failure("CommandNotStarted", problem), retryable=True)


def _task(work: Work) -> dict[str, str]:
    """Return what a program learns of its task from its environment."""
    return {
        "GALLEY_TASK_ID": work.task_id,
        "GALLEY_TASK_QUEUE": work.queue,
        "GALLEY_TASK_ATTEMPT": str(work.attempt),
        **({"TRACEPARENT": work.trace} if work.trace else {}),
        ANCESTORS_VARIABLE: " ".join(work.ancestors),
    }


def _open(argv: list[str], stdin: bytes | Path, environment: dict[str, str]) -> Subprocess:
    if not argv:
        raise ValueError("the command is empty")
    # A file instead of a pipe: a program that does not read its input cannot block us.
    file = os.open(stdin, os.O_RDONLY) if isinstance(stdin, Path) else os.memfd_create("galley input")
    try:
        if isinstance(stdin, bytes):
            written = 0
            while written < len(stdin):
                written += os.write(file, stdin[written:])
            os.lseek(file, 0, os.SEEK_SET)
        popen = subprocess.Popen(
            argv,
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
            bufsize=0,
        )
    finally:
        os.close(file)
    return Subprocess(popen)


def _end_left(mark: bytes, number: int) -> list[str]:
    """Kill what a command that ended left running, which became our child; returns the names."""
    ours = os.getpid()
    names: dict[int, str] = {}
    killed: set[int] = set()
    for _ in range(_ROUNDS):
        left = [root for root in children_of(ours) - killed if carries(Path(f"/proc/{root}"), mark, number)]
        for process in (process for root in left for process in tree_of(root)):
            if name := running_name(process):
                names[process] = f"{name} (pid {process})"
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)
        killed.update(left)
        for process in list(killed):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(process, os.WNOHANG) == (0, 0):
                    continue
            killed.discard(process)
        if not left and not killed:
            break
        time.sleep(_PAUSE_SECONDS)  # noqa: TID251 - nothing tells when the last of them has gone
    return list(names.values())
