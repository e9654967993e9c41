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
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, Final

import msgspec

from galley_worker.runners import frames
from galley_worker.runners.child import call
from galley_worker.runners.child.streams import Streams
from galley_worker.runners.child.wire import Wire, lost
from galley_worker.runners.frames import Answer, Run, Said

HELD_SECONDS: Final = 0.001
"""How long an answer may wait for others to travel with."""

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
        self._orders: SimpleQueue[Run] = SimpleQueue()
        self._answers: deque[bytes] = deque()
        self._sending = threading.Lock()
        self._running = 0
        self._home = os.getcwd()  # noqa: PTH109 - half the price of Path.cwd(), paid per task

    def serve(self) -> None:
        """Run orders until the supervisor closes the socket."""
        threading.Thread(target=self._read, name="galley orders", daemon=True).start()
        streams, page, home = self._streams, self._started, self._home
        streams.owner = lambda: self._running
        take, empty, answer = self._orders.get, self._orders.empty, self._answers.append
        encode, run, written = frames.encode, self._run, streams.written
        oldest = 0.0
        while True:
            order = take()
            self._running = order.id
            write_started(page, 0, order.id)
            outcome = run(order)
            if written:
                streams.end(order.id)
                answer(encode(Said()))
            if not streams.intact:
                streams.restore()
            self._running = 0
            if _folder() != home:
                _return_to(home)
            answer(encode(outcome))
            now = perf_counter()
            if not oldest:
                oldest = now
            if empty():
                streams.restore_descriptors()
                oldest = self._flush()
            elif now - oldest > HELD_SECONDS:
                oldest = self._flush()

    def _run(self, order: Run) -> Answer:
        began = perf_counter()
        function = self._functions[order.handler]
        named = None
        try:
            named = call.arguments(order.input)
            value = function(**named)
        except BaseException as error:  # sys.exit() in a handler ends the attempt, not the child
            return call.failed(order.id, perf_counter() - began, function, named, error)
        return call.done(order.id, perf_counter() - began, value)

    def _flush(self) -> float:
        with self._sending:
            answers = self._answers
            batch = b"".join([answers.popleft() for _ in range(len(answers))])
            self._wire.send(batch)
        return 0.0

    def _read(self) -> None:
        incoming, put = frames.Frames(), self._orders.put
        while True:
            try:
                orders = [frames.decode_order(body) for body in incoming.feed(self._wire.receive())]
            except (frames.Garbage, msgspec.DecodeError):
                lost()
            for order in orders:
                if type(order) is Run:
                    put(order)
                else:
                    self._give_back()

    def _give_back(self) -> None:
        back = []
        try:
            while True:
                back.append(self._orders.get_nowait().id)
        except Empty:
            pass
        self._answers.append(frames.encode(frames.Recalled(back)))
        self._flush()


def _folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - see PlainService
    except OSError:
        return ""


def _return_to(folder: str) -> None:
    with contextlib.suppress(OSError):
        os.chdir(folder)
