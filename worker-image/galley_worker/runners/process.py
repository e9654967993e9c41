"""HandlerProcess: the supervisor's side of one child."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from msgspec import Raw

from galley.record import Failure
from galley.unreadable import UNREADABLE
from galley_worker.ending import Continued, Raised, Returned, ReturnedLarge, Snoozed
from galley_worker.runners import frames, page
from galley_worker.runners.child.descendants import in_words as ended_in_words
from galley_worker.runners.child.wire import LOST
from galley_worker.runners.execution import Account, Carrier, Execution
from galley_worker.runners.exits import in_words
from galley_worker.runners.fork_server import Child, ForkServer
from galley_worker.runners.frames import (
    Again,
    Ask,
    AtOnce,
    Broken,
    Cancel,
    Done,
    Failed,
    Leave,
    LogAll,
    Objects,
    Order,
    Progressed,
    Ran,
    Ready,
    Recall,
    Recalled,
    Run,
    RunBatch,
    Saved,
    Spooled,
    Spooling,
    Stopped,
    Worn,
)  # fmt: skip
from galley_worker.runners.output import STREAM_NAMES, Output
from galley_worker.runners.settings import RunnerSettings
from galley_worker.work import Work

_DEATH_SECONDS: Final = 5.0
"""How long after SIGKILL a process is believed to be dead even if the kernel does not say so."""
_EXIT_SECONDS: Final = 0.1
"""How long a process may take to end after its socket was closed; a dying one closes it first."""
_LATE_OUTPUT: Final = 64
"""Ended orders of which late output is still attributed to their attempts."""
_PAGE_SIZE: Final = os.sysconf("SC_PAGE_SIZE")


class Holder(NamedTuple):
    """The async handler whose code runs in the event loop of a child at this moment."""

    execution: Execution
    ran: float
    """Seconds since it began."""
    held: float
    """Seconds since it was given the loop."""


class Parent(Protocol):
    """Receives what becomes of a child."""

    def answered(self, process: "HandlerProcess") -> None:
        """It answered something: there may be room in it."""

    def gave_back(self, process: "HandlerProcess", executions: list[Execution]) -> None:
        """These have not started and left it."""

    def died(self, process: "HandlerProcess", detail: str) -> None:
        """It is gone; what is in `running` got no answer."""


class HandlerProcess(asyncio.Protocol):
    """Sends orders to a child and gives the answers to their executions."""

    def __init__(
        self, child: Child, fork_server: ForkServer, settings: RunnerSettings, parent: Parent,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.parent = parent
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
        """Works it was given and has not given back."""
        self.pid = child.process.pid or 0
        self.idle = False
        self.recalling = False
        self.ended_by_us = False
        """Whether we killed it, so that no work in it is to blame."""
        self.leaving = False
        """Whether it was asked to end in order."""
        self.worn = False
        """Whether a handler changed what cannot be put back, so that it is to get no other work."""
        self.blocked = False
        """Whether one async handler keeps its event loop from the others."""
        self._loop = asyncio.get_running_loop()
        self._settings, self._child, self._fork_server, self._clock = settings, child, fork_server, clock
        self._late: dict[int, Account] = {}
        self._last: Execution | None = None
        self._frames = frames.Frames()
        self._outgoing: list[Order] = []
        self._transport: asyncio.Transport | None = None
        self._why = ""
        self._timer: asyncio.TimerHandle | None = None
        self._leave_timer: asyncio.TimerHandle | None = None
        self.several = False
        """Whether it runs async handlers, many at a time."""
        self._outputs = tuple(
            Output(self._loop, end, stream, settings, self._account)
            for end, stream in zip((child.stdout, child.stderr), STREAM_NAMES, strict=True)
        )
        self._ending: asyncio.Task[None] | None = None
        self._loop.add_reader(child.pidfd, self._exited)

    async def connect(self) -> None:
        """Begin to listen to it."""
        await self._loop.create_unix_connection(lambda: self, sock=self._child.wire)
        self._say(Spooling(self._settings.spool))
        self._say(AtOnce(self._settings.concurrency))

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
        self.sent += len(work.members) or 1
        if work.members:
            self._say(RunBatch(number, [_run(number, member) for member in work.members]))
        else:
            self._say(_run(number, work))

    def withdraw(self, execution: Execution) -> bool:
        """Take back a work that has not been written to the child yet; return False if it has been."""
        order = next((one for one in self._outgoing if _is_order_of(execution, one)), None)
        if order is None:
            return False
        self._outgoing.remove(order)
        head = next(iter(self.running.values()))
        del self.running[execution.id]
        self.sent -= len(execution.work.members) or 1
        self._look_at_head(head)
        return True

    def cancel(self, execution: Execution) -> None:
        """Ask an `async def` handler to stop."""
        self._say(Cancel(execution.id))

    def recall(self) -> None:
        """Ask for all that has not started."""
        if not self.recalling:
            self.recalling = True
            self._say(Recall())

    def ask(self, execution: Execution) -> None:
        """Ask for how long an async handler has run: the answer corrects `started_at`, or gives it back."""
        execution.asked_at = self._clock()
        self._say(Ask(execution.id))

    def log_all(self, on: bool) -> None:
        """Have its handlers log from DEBUG on, or as before."""
        self._say(LogAll(on))

    def leave(self) -> None:
        """Ask it to end in order, and kill it if that takes too long. It must have nothing to run."""
        if not self.leaving:
            self.leaving = self.ended_by_us = True
            self._say(Leave())
            seconds = self._settings.leave_seconds
            self._leave_timer = self._loop.call_later(seconds, self._leave_late, seconds)

    def _leave_late(self, seconds: float) -> None:
        self._settings.notice(None, f"handler process {self.pid} did not end within {seconds:g} s; killed")
        self.kill()

    def kill(self, why: str = "", *, ours: bool = True) -> None:
        """Kill it; `ours` means what is in it is not to blame."""
        if self._ending is not None:
            return
        self.ended_by_us = self.ended_by_us or ours
        self._why = self._why or why
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._child.pidfd, signal.SIGKILL)
        if self._timer is None:
            self._timer = self._loop.call_later(_DEATH_SECONDS, self._exited)

    def has_begun(self, execution: Execution) -> bool:
        """Return whether the handler of a work it was given has begun."""
        return execution.id <= page.begun(self._child.page)

    def begun(self) -> list[Execution]:
        """Return the unanswered works whose handlers have begun, in the order they began."""
        last = page.begun(self._child.page)
        return [execution for number, execution in self.running.items() if number <= last]

    def holder(self) -> Holder | None:
        """Return the async handler whose code runs now; None if the loop is free, or not one of asyncio's."""
        step = page.step(self._child.page)
        execution = None if step is None else self.running.get(step.order)
        if step is None or execution is None:
            return None
        now = time.monotonic()  # the child's clock too, whatever clock measures here
        return Holder(execution, now - step.began, now - step.since)

    def memory(self) -> int:
        """Return its resident memory in bytes; 0 if it has ended."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_bytes().split()[1]) * _PAGE_SIZE
        except OSError:
            return 0

    def _say(self, order: Order) -> None:
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(order)

    def _flush(self) -> None:
        # This process may have been frozen since the works were given to it: that may withdraw them.
        self._settings.before_orders()
        outgoing, self._outgoing = self._outgoing, []
        if outgoing and self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames.encode(outgoing))

    def _account(self, number: int) -> Account | None:
        if not number:
            # Bytes without a mark: of the plain handler begun last, or of the only async one.
            if not self.several:
                number = page.begun(self._child.page)
            elif len(self.running) == 1:
                number = next(iter(self.running))
        execution = self.running.get(number)
        if execution is None and number and self._last is not None and self._last.id == number:
            execution = self._last
        return execution.account if execution is not None else self._late.get(number)

    def _take_out(self, number: int) -> Execution:
        """Return a work that has ended; what its threads write later is still attributed to it."""
        execution = self._last = self.running.pop(number)
        if execution.wrote:
            self._late[number] = execution.account
            if len(self._late) > _LATE_OUTPUT:
                del self._late[next(iter(self._late))]
        return execution

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, _error: Exception | None) -> None:
        """Kill a child that cannot be spoken to any more, unless it is dying by itself."""
        lost = "it lost its connection to the worker"
        self._loop.call_later(_EXIT_SECONDS, lambda: self.kill(lost, ours=False))

    def data_received(self, data: bytes) -> None:
        """Give the answers in `data` to their executions."""
        if self._take(data):
            self.parent.answered(self)

    def _take(self, data: bytes) -> bool:
        running = self.running
        first = next(iter(running.values()), None)
        try:
            for body in self._frames.feed(data):
                for answer in frames.decode_answers(body):
                    if type(answer) is Done:
                        execution = self._take_out(answer.id)
                        execution.service.observe(answer.seconds)
                        execution.end(Returned(Raw(answer.result)))
                    else:
                        self._take_rare(answer)
        except (frames.Garbage, *UNREADABLE, KeyError):
            self.kill("it wrote garbage to the worker's socket", ours=False)
            return False
        if self.several and running:
            # It is seldom empty: what was not known to be quick when it was sent may be by now.
            self.window = min([one.service.window for one in running.values()])
        self._look_at_head(first)
        return True

    def _look_at_head(self, before: Execution | None) -> None:
        """Note since when the first work is the first, if another one was before."""
        head = next(iter(self.running.values()), None)
        if head is not None and head is not before:
            self.head_since = now = self._clock()
            if head.started_at is None:
                head.started_at = now

    def _take_rare(self, answer: frames.Answer) -> None:  # noqa: C901, PLR0912 - one case for each answer
        match answer:
            case Failed(number, seconds) | Again(number, seconds):
                execution = self._take_out(number)
                execution.service.observe(seconds)
                execution.end(_raised(answer))
            case Spooled(number, seconds, result, files, large):
                execution = self._take_out(number)
                execution.service.observe(seconds)
                self._end_large(execution, ReturnedLarge(Raw(result), tuple(files), large))
            case frames.Outcomes(number, seconds, members, whole):
                carrier = self._take_out(number)
                carrier.service.observe(seconds)
                assert isinstance(carrier, Carrier), "a batch is sent as one"
                self._end_members(carrier, members, len(members) if whole else 0)
            case frames.Onward(number, seconds, plan):
                execution = self._take_out(number)
                execution.service.observe(seconds)
                execution.end(Continued(plan))
            case Stopped(number):
                execution = self._take_out(number)
                if execution.because is not None:
                    execution.end(execution.because)
            case Recalled(numbers):
                self.recalling = False
                back = [self.running.pop(number) for number in numbers]
                self.sent -= sum([len(each.work.members) or 1 for each in back])
                self.parent.gave_back(self, back)
            case frames.Said():
                for output in self._outputs:
                    output.drain()
            case Worn():
                self.worn = True
            case Ran() | Progressed() | Saved():
                self._take_news(answer)
            case Ready() | Broken():
                self.several = isinstance(answer, Ready) and answer.several
                if not self.hello.done():
                    self.hello.set_result(answer)
            case _:
                raise KeyError

    def _end_large(self, execution: Execution, returned: ReturnedLarge) -> None:
        if execution.ended_as is not None:  # too late: nothing stores them
            returned.discard()
        execution.end(returned)

    def _end_members(self, carrier: Carrier, answers: Sequence[frames.Member], together: int) -> None:
        for member, answer in zip(carrier.members, answers, strict=True):
            match answer:
                case Done():
                    member.end(Returned(Raw(answer.result)))
                case frames.Onward():
                    member.end(Continued(answer.plan))
                case Spooled():
                    returned = ReturnedLarge(Raw(answer.result), tuple(answer.files), answer.large)
                    self._end_large(member, returned)
                case _:
                    member.end(_raised(answer, together))
        carrier.end(Returned(Raw(b"null")))

    def _take_news(self, answer: Ran | Progressed | Saved) -> None:
        """Take over when an async handler really began, or what one reports, unless it has ended."""
        number, place = frames.order_of(answer.id)
        execution = self.running.get(number)
        if execution is None:
            return
        if isinstance(answer, Ran):
            execution.started_at, execution.certain = self._clock() - answer.seconds, True
        else:
            work = execution.work
            self._settings.on_report(work.members[place] if work.members else work, answer)

    def _exited(self) -> None:
        if self._ending is None:
            self._loop.remove_reader(self._child.pidfd)
            for timer in (self._timer, self._leave_timer):
                if timer is not None:
                    timer.cancel()
            self._ending = self._loop.create_task(self._collect(), name=f"collect child {self.pid}")

    async def _collect(self) -> None:
        # What it said before it died stands; the transport would get to it only later.
        self._take_last_answers()
        for output in self._outputs:
            output.close()
        end = await self._fork_server.collect(self._child)
        if self._transport is not None:
            self._transport.abort()
        else:
            self._child.wire.close()
        os.close(self._child.pidfd)
        if not self.hello.done():
            self.hello.set_result(None)
        begun = self.begun()
        if end.ended:
            self._settings.notice(begun[-1].work if begun else None, ended_in_words(list(end.ended)).rstrip())
        words = in_words(end.code, ours=self.ended_by_us or bool(self._why))
        if end.code == LOST and begun:
            words += ": its socket is gone; a handler may have closed file descriptors of others"
        self.parent.died(self, f"{self._why} ({words})" if self._why else words)
        self._child.page.close()
        self.gone.set_result(None)

    def _take_last_answers(self) -> None:
        with contextlib.suppress(OSError), self._child.wire.dup() as wire:
            while data := wire.recv(frames.CHUNK, socket.MSG_DONTWAIT):
                if not self._take(data):
                    return


def _is_order_of(execution: Execution, order: Order) -> bool:
    return isinstance(order, Run | RunBatch) and order.id == execution.id


def _run(number: int, work: Work) -> Run:
    deadline = 0.0 if work.deadline is None else work.deadline.timestamp()
    return Run(
        number, work.handler, bytes(work.input), work.task_id, work.lane, work.attempt,
        work.submitted_at.timestamp(), deadline, work.last_error,
        work.ancestors,
        None if work.files is None and not work.large else Objects(work.large, work.files or {}),
        work.checkpoint,
        work.trace,
    )  # fmt: skip


def _raised(answer: Failed | Again, together: int = 0) -> Raised | Snoozed:
    failure = Failure(answer.reason, answer.message, answer.traceback)
    if isinstance(answer, Failed):
        return Raised(failure, answer.retryable, kinds=answer.kinds, batch=together)
    return (
        Snoozed(answer.pause, failure) if answer.free else Raised(failure, retryable=True, pause=answer.pause)
    )
