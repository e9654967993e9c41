"""Service of `async def` handlers: many at a time in one event loop.

The page of memory shared with the supervisor shows which order's code runs in the loop at this moment, so
that a handler that blocks the loop is known even if it never lets another line of Python run.
"""

import asyncio
import contextvars
import functools
import sys
from asyncio import events
from collections import deque
from collections.abc import Mapping
from mmap import mmap
from time import monotonic, perf_counter
from typing import Any, Final

import msgspec

from galley.current import CurrentTask, find_by
from galley.exception_text import describe
from galley.handler import Handler
from galley_worker.runners import frames
from galley_worker.runners.child import call
from galley_worker.runners.child.batch import BatchCall
from galley_worker.runners.child.descendants import Descendants, in_words
from galley_worker.runners.child.reports import Reports
from galley_worker.runners.child.streams import STREAMS, current, log_all
from galley_worker.runners.child.surroundings import Surroundings
from galley_worker.runners.child.wire import Wire, end_copy, lost
from galley_worker.runners.frames import (
    Answer,
    Ask,
    AtOnce,
    Cancel,
    Failed,
    Leave,
    LogAll,
    Order,
    Ran,
    Recall,
    Recalled,
    Run,
    RunBatch,
    Said,
    Spooling,
    Stopped,
    Worn,
)  # fmt: skip
from galley_worker.runners.page import ORDER, STEP, write_number, write_step

_UNASKED: Final = (
    "CancelledError: the task was cancelled by code in its own process, not through Galley; "
    "asyncio.CancelledError was raised, or Task.cancel() called"
)


class ConcurrentService:
    """Runs orders side by side."""

    def __init__(
        self,
        wire: Wire,
        queue: str,
        handlers: Mapping[str, Handler[..., Any]],
        page: mmap,
    ) -> None:
        self._spool = ""
        self._queue = queue
        self._wire = wire
        self._handlers = handlers
        self._page = page
        self._incoming = frames.Frames()
        self._most = 1
        self._queued: deque[Run | RunBatch] = deque()
        """What waits behind as many as may run at a time."""
        self._context = contextvars.copy_context()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._since: dict[int, float] = {}
        self._orders: dict[int, Run | RunBatch] = {}
        """Those whose handlers have begun."""
        self._batches: dict[int, BatchCall] = {}
        self._asked: set[int] = set()
        self._reports = Reports(wire, lambda order: frames.order_of(order)[0] in self._orders)
        self._answers: list[Answer] = []
        self._leaving = False
        self._worn = False
        """Whether a handler changed what cannot be put back: no other task may begin here."""

    def serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run orders until the supervisor asks to leave; if it closes the socket, the process ends."""
        self._loop = loop
        self._loop_settings = _settings_of(loop)
        self._surroundings = Surroundings()
        self._descendants = Descendants()
        self._surroundings.touched = False
        self._observe_steps()
        find_by(self._task, lambda: self._reports, self._tasks)
        loop.add_reader(self._wire, self._read)
        while not self._leaving:
            # A handler may stop the loop, and SystemExit or KeyboardInterrupt in a task of its own end it.
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                sys.stderr.write(f"{describe(error)} in an asyncio task that a handler started\n")
        loop.remove_reader(self._wire)

    def _observe_steps(self) -> None:
        """Show on the page whose code the loop runs. asyncio has no hook for it; other loops show nothing."""
        run, page, since = events.Handle._run, self._page, self._since  # noqa: SLF001
        wire = self._wire

        def run_observed(handle: Any) -> None:
            order = handle._context.get(current)  # noqa: SLF001
            if order in since:
                write_step(page, STEP, since[order], monotonic(), order)
            run(handle)
            if wire.copied:  # it would run a part of each task that the loop of its parent runs
                end_copy()
            write_number(page, ORDER, 0)

        events.Handle._run = run_observed  # type: ignore[method-assign, assignment]  # noqa: SLF001

    def _task(self) -> CurrentTask | None:
        order = self._orders.get(current.get())
        return call.task_of(order, self._queue) if isinstance(order, Run) else None

    def _tasks(self) -> tuple[CurrentTask, ...]:
        batch = self._batches.get(current.get())
        return () if batch is None else batch.tasks()

    def _read(self) -> None:
        try:
            said = [frames.decode_orders(body) for body in self._incoming.feed(self._wire.receive())]
        except (frames.Garbage, msgspec.DecodeError):
            lost()
        for orders in said:
            for order in orders:
                self._obey(order)

    def _obey(self, order: Order) -> None:
        match order:
            case Run() | RunBatch():
                self._queued.append(order)
                self._begin()
            case Cancel(id):
                self._cancel(id)
            case Ask(id):
                if id in self._running:
                    self._answer(Ran(id, monotonic() - self._since.get(id, monotonic())))
                else:
                    self._give_back()
            case Recall():
                self._give_back()
            case AtOnce(most):
                self._most = most
            case LogAll(on):
                log_all(on)
            case Spooling(folder):
                self._spool = folder
            case Leave():
                self._leaving = True
                self._loop.stop()

    def _begin(self) -> None:
        """Begin what is queued while fewer run than may."""
        if self._worn and self._queued:
            self._give_back()
        while self._queued and len(self._running) < self._most:
            order = self._queued.popleft()
            # Not in the context of the task that ends just now: the next one must not see its variables.
            # And not by the task factory of the loop, which a handler may have replaced.
            task = asyncio.Task(
                self._run(order), loop=self._loop, name=f"order {order.id}", context=self._context.copy()
            )
            self._running[order.id] = task
            task.add_done_callback(functools.partial(self._ended, order.id))

    def _give_back(self) -> None:
        back = [order.id for order in self._queued]
        self._queued.clear()
        self._answer(Recalled(back))

    def _cancel(self, order: int) -> None:
        task = self._running.get(order)
        if task is not None:
            self._asked.add(order)
            task.cancel()
        elif queued := [one for one in self._queued if one.id == order]:
            self._queued.remove(queued[0])
            self._answer(Stopped(order, 0.0))

    async def _run(self, order: Run | RunBatch) -> None:
        began, since = perf_counter(), monotonic()
        current.set(order.id)
        self._since[order.id], self._orders[order.id] = since, order
        write_number(self._page, 0, order.id)
        write_step(self._page, STEP, since, since, order.id)
        if isinstance(order, RunBatch):
            outcome: Answer = await self._call_batch(order, began)
        else:
            handler = self._handlers[order.handler]
            function = handler.function
            named = None
            try:
                named = call.arguments_of(order, handler.types)
                if order.trace:
                    call.trace_under(order.trace)
                value = await function(**named)
            except BaseException as error:  # sys.exit() in a handler ends the attempt, not the child
                if self._wire.copied:
                    end_copy(error)
                failed = call.failed(order.id, perf_counter() - began, function, named, error)
                if type(error) is asyncio.CancelledError:
                    failed.message = _UNASKED
                outcome = failed
            else:
                kept = value if handler.store_result else None
                outcome = call.done(order.id, perf_counter() - began, kept, self._spool)
        if order.id not in self._asked:
            # Leaving the table first: a cancel that comes now is too late, the handler has ended.
            del self._running[order.id]
            self._close(order.id)
            self._answer(outcome)
            self._begin()

    async def _call_batch(self, order: RunBatch, began: float) -> Answer:
        handler = self._handlers[order.members[0].handler]
        batch = self._batches[order.id] = BatchCall(order, handler, self._queue, self._spool)
        try:
            value = await handler.function(**batch.arguments) if batch.items else None
        except BaseException as error:  # as in `_run`
            if self._wire.copied:
                end_copy(error)
            told = _UNASKED if type(error) is asyncio.CancelledError else ""
            return batch.raised(error, perf_counter() - began, told)
        return batch.returned(value, perf_counter() - began)

    def _ended(self, order: int, _task: "asyncio.Task[None]") -> None:
        # Also reached by a task cancelled before its first step, which runs none of the code above.
        if self._running.pop(order, None) is not None:
            self._close(order)
            if order in self._asked:
                self._answer(Stopped(order, 0.0))
            else:
                self._answer(Failed(order, 0.0, "HandlerRaised", _UNASKED, "", retryable=True))
            self._begin()
        self._asked.discard(order)

    def _close(self, order: int) -> None:
        self._since.pop(order, None)
        ended = self._orders.pop(order, None)
        self._reports.end(order)
        if type(ended) is RunBatch:
            self._reports.end_batch(ended)
            self._batches.pop(order, None)
        if self._descendants.noted:
            names = self._descendants.end_of(order)
            if not self._running:
                names += self._descendants.end_all(collect=False)
            if names:
                STREAMS.restore()
                token = current.set(order)
                sys.stderr.write(in_words(names))
                current.reset(token)
        if order in STREAMS.written:
            STREAMS.end(order)
            self._answer(Said())
        if not STREAMS.intact:
            STREAMS.restore()
        if not self._running:
            # Shared by all that run: put back once none is left that may rely on the change.
            self._put_back()

    def _put_back(self) -> None:
        if _settings_of(self._loop) != self._loop_settings:
            factory, handler, debug = self._loop_settings
            self._loop.set_task_factory(factory)
            self._loop.set_exception_handler(handler)
            self._loop.set_debug(debug)
        whole = not _has_ended_threads(self._loop)
        if self._surroundings.touched:
            whole = self._surroundings.restore() and whole
            STREAMS.restore_descriptors()
        if not whole and not self._worn:
            self._worn = True
            self._answer(Worn())

    def _answer(self, answer: Answer) -> None:
        if not self._answers:
            self._loop.call_soon(self._flush)
        self._answers.append(answer)

    def _flush(self) -> None:
        answers, self._answers = self._answers, []
        self._wire.send(frames.encode(answers))


def _settings_of(loop: asyncio.AbstractEventLoop) -> tuple[Any, Any, bool]:
    return loop.get_task_factory(), loop.get_exception_handler(), loop.get_debug()


def _has_ended_threads(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a handler ended the threads behind `asyncio.to_thread`, which no loop begins again."""
    ended = getattr(loop, "_executor_shutdown_called", False)
    return ended or getattr(getattr(loop, "_default_executor", None), "_shutdown", False)
