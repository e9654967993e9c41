"""Service of plain functions: one at a time, in the main thread.

A second thread reads the socket, so that queued orders can be given back, and the end of the supervisor
noticed, while a handler runs.
"""

import contextlib
import contextvars
import sys
import threading
from collections import deque
from collections.abc import Mapping
from mmap import mmap
from queue import SimpleQueue
from time import perf_counter
from types import CoroutineType
from typing import Any, Final

import msgspec

from galley.current import CurrentTask, find_by
from galley.handler import Handler
from galley_worker.runners import frames
from galley_worker.runners.child import call
from galley_worker.runners.child.batch import BatchCall
from galley_worker.runners.child.descendants import Descendants, in_words
from galley_worker.runners.child.reports import Reports
from galley_worker.runners.child.streams import STREAMS, current, log_all
from galley_worker.runners.child.surroundings import Surroundings
from galley_worker.runners.child.wire import Wire, end_copy, lost
from galley_worker.runners.frames import Answer, Leave, LogAll, Recall, Run, RunBatch, Said, Spooling, Worn
from galley_worker.runners.page import write_number

HELD_SECONDS: Final = 0.001
"""How long an answer may wait for others to travel with."""
HELD: Final = 16
"""How many answers may wait: those that are lost with the child cost their tasks a preemption."""
LOOK_SECONDS: Final = 0.1
"""How often quick handlers are looked after for processes that were started unnoticed."""


class PlainService:
    """Runs orders one after the other."""

    def __init__(
        self,
        wire: Wire,
        queue: str,
        handlers: Mapping[str, Handler[..., Any]],
        begun: mmap,
    ) -> None:
        self._spool = ""
        self._queue = queue
        self._wire = wire
        self._handlers = handlers
        self._begun = begun
        self._orders: deque[Run | RunBatch] = deque()
        self._more: SimpleQueue[None] = SimpleQueue()
        self._answers: deque[Answer] = deque()
        self._sending = threading.Lock()
        self._running = 0
        self._order: Run | RunBatch | None = None
        self._batch: BatchCall | None = None
        self._leaving = False
        self._worn = False
        """Whether a handler changed what cannot be put back: the next task must not see it."""
        self._looked = 0.0
        self._surroundings = Surroundings()
        self._descendants = Descendants()
        self._reports = Reports(wire, lambda order: frames.order_of(order)[0] == self._running)
        self._base = contextvars.copy_context()
        self._context = self._base.copy()

    def serve(self) -> None:
        """Run orders until the supervisor asks to leave; if it closes the socket, the process ends."""
        threading.Thread(target=self._read, name="galley orders", daemon=True).start()
        STREAMS.owner = lambda: current.get() or self._running
        reports = self._reports
        find_by(self._task, lambda: reports, self._tasks)
        page, orders, answers = self._begun, self._orders, self._answers
        surroundings, descendants = self._surroundings, self._descendants
        surroundings.touched = False
        oldest = 0.0
        while not self._leaving:
            if not orders:
                if answers:
                    STREAMS.restore_descriptors()
                    self._flush()
                    oldest = 0.0
                self._more.get()
            if self._worn:
                self._give_back()
            try:
                order = orders.popleft()
            except IndexError:  # called back, or taken before its signal
                continue
            self._running, self._order = order.id, order
            write_number(page, 0, order.id)
            began = perf_counter()
            outcome = (
                self._run_batch(order, began) if isinstance(order, RunBatch) else self._run(order, began)
            )
            if (
                not orders or STREAMS.written or descendants.noted or surroundings.touched
                or not STREAMS.intact
            ):  # fmt: skip
                self._tidy(order.id, began)
            self._running = 0
            reports.end(order.id)
            answers.append(outcome)
            if not oldest:
                oldest = began
            elif began - oldest > HELD_SECONDS or len(answers) >= HELD:
                self._flush()
                oldest = 0.0

    def _run(self, order: Run, began: float) -> Answer:
        handler = self._handlers[order.handler]
        function = handler.function
        context = self._context
        named = None
        try:
            named = call.arguments_of(order, handler.types)
            if order.trace:
                context.run(call.trace_under, order.trace)
            value = context.run(function, **named)
            if type(value) is CoroutineType:
                value = context.run(call.awaited, value)
            if self._wire.copied:
                end_copy()
            # Here too an alarm or a trace function that the handler set may raise.
            kept = value if handler.store_result else None
            outcome: Answer = call.done(order.id, perf_counter() - began, kept, self._spool)
        except BaseException as error:  # sys.exit() in a handler ends the attempt, not the child
            if self._wire.copied:
                end_copy(error)
            outcome = call.failed(order.id, perf_counter() - began, function, named, error)
        if context:
            # It holds variables, which this task may have set: the next one starts without them.
            self._context = self._base.copy()
        return outcome

    def _run_batch(self, order: RunBatch, began: float) -> Answer:
        handler = self._handlers[order.members[0].handler]
        batch = self._batch = BatchCall(order, handler, self._queue, self._spool)
        context = self._context
        try:
            value = context.run(handler.function, **batch.arguments) if batch.items else None
            if type(value) is CoroutineType:
                value = context.run(call.awaited, value)
            if self._wire.copied:
                end_copy()
            outcome = batch.returned(value, perf_counter() - began)
        except BaseException as error:  # as above
            if self._wire.copied:
                end_copy(error)
            outcome = batch.raised(error, perf_counter() - began)
        self._reports.end_batch(order)
        self._batch = None
        if context:
            self._context = self._base.copy()
        return outcome

    def _task(self) -> CurrentTask | None:
        order = self._order
        # A thread of an earlier task may still run.
        if type(order) is not Run or STREAMS.owner() != order.id:
            return None
        return call.task_of(order, self._queue)

    def _tasks(self) -> tuple[CurrentTask, ...]:
        order, batch = self._order, self._batch
        if order is None or batch is None or STREAMS.owner() != order.id:
            return ()
        return batch.tasks()

    def _tidy(self, order: int, began: float) -> None:
        """Take back what a handler left or changed, and mark what it wrote as complete."""
        descendants = self._descendants
        if not descendants.noted and began - self._looked > LOOK_SECONDS:
            self._looked = began
            descendants.noted = descendants.any()
        if descendants.noted and (names := descendants.end_all(collect=True)):
            STREAMS.restore()
            sys.stderr.write(in_words(names))
        if STREAMS.written:
            STREAMS.end(order)
            self._answers.append(Said())
        if not STREAMS.intact:
            STREAMS.restore()
        if self._surroundings.touched:
            if not self._surroundings.restore():
                self._worn = True
                self._answers.append(Worn())
            STREAMS.restore_descriptors()

    def _flush(self) -> None:
        with self._sending:
            answers = self._answers
            self._wire.send(frames.encode([answers.popleft() for _ in range(len(answers))]))

    def _read(self) -> None:
        incoming = frames.Frames()
        while True:
            try:
                said = [frames.decode_orders(body) for body in incoming.feed(self._wire.receive())]
            except (frames.Garbage, msgspec.DecodeError):
                lost()
            for orders in said:
                for order in orders:
                    if type(order) is LogAll:
                        log_all(order.on)
                    elif type(order) is Spooling:
                        self._spool = order.folder
                self._orders.extend(order for order in orders if isinstance(order, Run | RunBatch))
                if any(type(order) is Recall for order in orders):
                    self._give_back()
                if any(type(order) is Leave for order in orders):
                    self._leaving = True
            self._more.put(None)

    def _give_back(self) -> None:
        back = []
        with contextlib.suppress(IndexError):
            while True:
                back.append(self._orders.popleft().id)
        self._answers.append(frames.Recalled(back))
        self._flush()
