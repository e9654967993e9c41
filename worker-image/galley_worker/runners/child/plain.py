"""Service of plain functions: one at a time, in the main thread.

A second thread reads the socket, so that queued orders can be given back, and the end of the supervisor
noticed, while a handler runs.
"""

import contextlib
import os
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from mmap import mmap
from queue import SimpleQueue
from time import perf_counter
from typing import Any, Final

import msgspec

from galley_worker.runners import frames
from galley_worker.runners.child import call
from galley_worker.runners.child.streams import Streams
from galley_worker.runners.child.wire import Wire, lost
from galley_worker.runners.frames import Answer, Recall, Run, Said

HELD_SECONDS: Final = 0.001
"""How long an answer may wait for others to travel with."""
HELD: Final = 16
"""How many answers may wait: works whose answers are lost with the child are suspects of its death."""

write_started: Final = struct.Struct("=Q").pack_into


class PlainService:
    """Runs orders one after the other."""

    def __init__(
        self, wire: Wire, functions: Mapping[str, Callable[..., Any]], started: mmap,
        streams: Streams,
    ) -> None:  # fmt: skip
        self._wire = wire
        self._functions = functions
        self._started = started
        self._streams = streams
        self._orders: deque[Run] = deque()
        self._more: SimpleQueue[None] = SimpleQueue()
        self._answers: deque[Answer] = deque()
        self._sending = threading.Lock()
        self._running = 0
        self._home = os.getcwd()  # noqa: PTH109 - half the price of Path.cwd(), paid per task

    def serve(self) -> None:
        """Run orders until the supervisor closes the socket."""
        threading.Thread(target=self._read, name="galley orders", daemon=True).start()
        streams, page, home = self._streams, self._started, self._home
        streams.owner = lambda: self._running
        orders, answers = self._orders, self._answers
        oldest = 0.0
        while True:
            if not orders:
                if answers:
                    streams.restore_descriptors()
                    self._flush()
                    oldest = 0.0
                self._more.get()
            try:
                order = orders.popleft()
            except IndexError:  # called back, or taken before its signal
                continue
            self._running = order.id
            write_started(page, 0, order.id)
            began = perf_counter()
            outcome = self._run(order, began)
            if streams.written:
                streams.end(order.id)
                answers.append(Said())
            if not streams.intact:
                streams.restore()
            self._running = 0
            if _folder() != home:
                _return_to(home)
            answers.append(outcome)
            if not oldest:
                oldest = began
            elif began - oldest > HELD_SECONDS or len(answers) >= HELD:
                self._flush()
                oldest = 0.0

    def _run(self, order: Run, began: float) -> Answer:
        function = self._functions[order.handler]
        named = None
        try:
            named = call.arguments(order.input)
            value = call.awaited(function(**named))
        except BaseException as error:  # sys.exit() in a handler ends the attempt, not the child
            return call.failed(order.id, perf_counter() - began, function, named, error)
        return call.done(order.id, perf_counter() - began, value)

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
                self._orders.extend(order for order in orders if type(order) is Run)
                if any(type(order) is Recall for order in orders):
                    self._give_back()
            self._more.put(None)

    def _give_back(self) -> None:
        back = []
        with contextlib.suppress(IndexError):
            while True:
                back.append(self._orders.popleft().id)
        self._answers.append(frames.Recalled(back))
        self._flush()


def _folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - see PlainService
    except OSError:
        return ""


def _return_to(folder: str) -> None:
    with contextlib.suppress(OSError):
        os.chdir(folder)
