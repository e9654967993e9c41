"""HandlerProcess: the supervisor's side of one child."""

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
from msgspec import Raw

from galley.record import Failure
from galley_worker.ending import Raised, Returned
from galley_worker.runners import frames
from galley_worker.runners.deaths import in_words
from galley_worker.runners.execution import Account, Execution
from galley_worker.runners.frames import (
    Broken,
    Cancel,
    Done,
    Failed,
    Order,
    Ready,
    Recall,
    Recalled,
    Run,
    Stopped,
)  # fmt: skip
from galley_worker.runners.nursery import Born, Nursery
from galley_worker.runners.output import Output
from galley_worker.runners.settings import RunnerSettings

_DEATH_SECONDS: Final = 5.0
"""How long after SIGKILL a process is believed to be dead even if the kernel does not say so."""
_LAST_BREATH_SECONDS: Final = 0.1
"""How long a process may take to end after its socket was closed; a dying one closes it first."""
_read_started: Final = struct.Struct("=Q").unpack_from


class Parent(Protocol):
    """Who is told what becomes of a child."""

    def answered(self, process: "HandlerProcess") -> None:
        """It answered something: there may be room in it."""

    def gave_back(self, process: "HandlerProcess", executions: list[Execution]) -> None:
        """These have not started and left it."""

    def died(self, process: "HandlerProcess", detail: str) -> None:
        """It is gone; what is in `running` got no answer."""


class HandlerProcess(asyncio.Protocol):
    """Sends orders to a child and gives the answers to their executions."""

    def __init__(
        self, born: Born, nursery: Nursery, settings: RunnerSettings, parent: Parent,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.running: dict[int, Execution] = {}
        """Sent and not answered, in the order sent."""
        self.hello: asyncio.Future[Ready | Broken | None] = asyncio.get_running_loop().create_future()
        """Its first words; None if it died without any."""
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.head_since = 0.0
        """When the first of `running` got to the head."""
        self.window = 1
        """Works it may hold with those it holds now."""
        self.sent = 0
        self.pid = born.process.pid or 0
        self.idle = False
        self.recalling = False
        self.doomed = False
        """Whether we killed it, so that its death is nobody's fault."""
        self._loop = asyncio.get_running_loop()
        self._born, self._nursery, self._parent, self._clock = born, nursery, parent, clock
        self._frames = frames.Frames()
        self._outgoing: list[Order] = []
        self._transport: asyncio.Transport | None = None
        self._why = ""
        self._timer: asyncio.TimerHandle | None = None
        self._outputs = tuple(
            Output(self._loop, end, stream, settings, self._account)
            for end, stream in ((born.stdout, "stdout"), (born.stderr, "stderr"))
        )
        self._ending: asyncio.Task[None] | None = None
        self._loop.add_reader(born.pidfd, self._exited)

    async def connect(self) -> None:
        """Begin to listen to it."""
        await self._loop.create_unix_connection(lambda: self, sock=self._born.wire)

    def send(self, execution: Execution, number: int) -> None:
        """Give it one more work, under a number never used before."""
        running, work = self.running, execution.work
        execution.id = number
        if running:
            self.window = min(self.window, execution.service.window)
        else:
            self.head_since = execution.started_at = self._clock()
            self.window = execution.service.window
        running[number] = execution
        self.sent += 1
        self._say(Run(number, work.handler, bytes(work.input)))

    def cancel(self, execution: Execution) -> None:
        """Ask an `async def` handler to stop."""
        self._say(Cancel(execution.id))

    def recall(self) -> None:
        """Ask for all that has not started."""
        if not self.recalling:
            self.recalling = True
            self._say(Recall())

    def kill(self, why: str = "", *, ours: bool = True) -> None:
        """Kill it; `ours` means what is in it is not to blame."""
        if self._ending is not None:
            return
        self.doomed = self.doomed or ours
        self._why = self._why or why
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._born.pidfd, signal.SIGKILL)
        if self._timer is None:
            self._timer = self._loop.call_later(_DEATH_SECONDS, self._exited)

    def started(self) -> list[Execution]:
        """Return the unanswered works a child that runs one after the other has begun."""
        last = _read_started(self._born.started)[0]
        return [execution for number, execution in self.running.items() if number <= last]

    def _say(self, order: Order) -> None:
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(order)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames.encode(outgoing))

    def _account(self, number: int) -> Account | None:
        if not number:
            alone = len(self.running) == 1
            number = _read_started(self._born.started)[0] or (next(iter(self.running)) if alone else 0)
        execution = self.running.get(number)
        return execution.account if execution is not None else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, _error: Exception | None) -> None:
        """Kill a child that cannot be spoken to any more, unless it is dying by itself."""
        lost = "it lost its connection to the worker"
        self._loop.call_later(_LAST_BREATH_SECONDS, lambda: self.kill(lost, ours=False))

    def data_received(self, data: bytes) -> None:
        """Give the answers in `data` to their executions."""
        if self._take(data):
            self._parent.answered(self)

    def _take(self, data: bytes) -> bool:
        running = self.running
        first = next(iter(running.values()), None)
        try:
            for body in self._frames.feed(data):
                for answer in frames.decode_answers(body):
                    if type(answer) is Done:
                        execution = running.pop(answer.id)
                        execution.service.observe(answer.seconds)
                        execution.end(Returned(Raw(answer.result)))
                    else:
                        self._take_rare(answer)
        except (frames.Garbage, msgspec.DecodeError, UnicodeDecodeError, KeyError):
            self.kill("it wrote garbage to the worker's socket", ours=False)
            return False
        if running:
            head = next(iter(running.values()))
            if head is not first:
                self.head_since = now = self._clock()
                if head.started_at is None:
                    head.started_at = now
        return True

    def _take_rare(self, answer: frames.Answer) -> None:
        match answer:
            case Failed(number, seconds, reason, message, traceback, retryable):
                execution = self.running.pop(number)
                execution.service.observe(seconds)
                execution.end(Raised(Failure(reason, message, traceback), retryable))
            case Stopped(number):
                execution = self.running.pop(number)
                if execution.because is not None:
                    execution.end(execution.because)
            case Recalled(numbers):
                self.recalling = False
                self._parent.gave_back(self, [self.running.pop(number) for number in numbers])
            case frames.Said():
                for output in self._outputs:
                    output.drain()
            case Ready() | Broken():
                if not self.hello.done():
                    self.hello.set_result(answer)
            case _:
                raise KeyError

    def _exited(self) -> None:
        if self._ending is None:
            self._loop.remove_reader(self._born.pidfd)
            if self._timer is not None:
                self._timer.cancel()
            self._ending = self._loop.create_task(self._bury(), name=f"bury child {self.pid}")

    async def _bury(self) -> None:
        # What it said before it died stands; the transport would get to it only later.
        self._take_last_words()
        for output in self._outputs:
            output.close()
        code = await self._nursery.collect(self._born)
        if self._transport is not None:
            self._transport.abort()
        else:
            self._born.wire.close()
        os.close(self._born.pidfd)
        if not self.hello.done():
            self.hello.set_result(None)
        words = in_words(code, ours=self.doomed or bool(self._why))
        self._parent.died(self, f"{self._why} ({words})" if self._why else words)
        self._born.started.close()
        self.gone.set_result(None)

    def _take_last_words(self) -> None:
        with contextlib.suppress(OSError), self._born.wire.dup() as wire:
            while data := wire.recv(frames.CHUNK, socket.MSG_DONTWAIT):
                if not self._take(data):
                    return
