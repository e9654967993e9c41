"""Service of `async def` handlers: many at a time in one event loop."""

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Final

import msgspec

from galley_worker.runners import frames
from galley_worker.runners.child import call
from galley_worker.runners.child.streams import Streams
from galley_worker.runners.child.wire import Wire, lost
from galley_worker.runners.frames import Answer, Cancel, Order, Recall, Recalled, Run, Said, Stopped

_order: Final[contextvars.ContextVar[int]] = contextvars.ContextVar("order", default=0)


def serve(wire: Wire, functions: Mapping[str, Callable[..., Any]], streams: Streams) -> None:
    """Run orders until the supervisor closes the socket."""
    streams.owner = _order.get
    asyncio.run(ConcurrentService(wire, functions, streams).serve())


class ConcurrentService:
    """Runs orders side by side."""

    def __init__(self, wire: Wire, functions: Mapping[str, Callable[..., Any]], streams: Streams) -> None:
        self._wire = wire
        self._functions = functions
        self._streams = streams
        self._incoming = frames.Frames()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._asked: set[int] = set()
        self._answers: list[Answer] = []

    async def serve(self) -> None:
        """Read orders as they come; this ends with the process."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._wire, self._read)
        await self._loop.create_future()

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
            case Run(id):
                task = self._loop.create_task(self._run(order), name=f"order {id}")
                self._running[id] = task
                task.add_done_callback(lambda _ended: self._ended(id))
            case Cancel(id):
                self._cancel(id)
            case Recall():
                self._answer(Recalled([]))

    def _cancel(self, order: int) -> None:
        task = self._running.get(order)
        if task is not None:
            self._asked.add(order)
            task.cancel()

    async def _run(self, order: Run) -> None:
        _order.set(order.id)
        began = perf_counter()
        function = self._functions[order.handler]
        named = None
        try:
            named = call.arguments(order.input)
            value = await function(**named)
        except BaseException as error:  # sys.exit() in a handler ends the attempt, not the child
            outcome: Answer = call.failed(order.id, perf_counter() - began, function, named, error)
        else:
            outcome = call.done(order.id, perf_counter() - began, value)
        if order.id not in self._asked:
            # Leaving the table first: a cancel that comes now is too late, the handler has ended.
            del self._running[order.id]
            self._close(order.id)
            self._answer(outcome)

    def _ended(self, order: int) -> None:
        # Also reached by a task cancelled before its first step, which runs none of the code above.
        if self._running.pop(order, None) is not None:
            self._close(order)
            self._answer(Stopped(order, 0.0))
        self._asked.discard(order)

    def _close(self, order: int) -> None:
        if order in self._streams.written:
            self._streams.end(order)
            self._answer(Said())
        if not self._streams.intact:
            self._streams.restore()

    def _answer(self, answer: Answer) -> None:
        if not self._answers:
            self._loop.call_soon(self._flush)
        self._answers.append(answer)

    def _flush(self) -> None:
        answers, self._answers = self._answers, []
        self._wire.send(frames.encode(answers))
