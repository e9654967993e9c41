"""Threads that a handler starts work for its order, so what they write is attributed to it."""

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from galley_worker.runners.child.streams import STREAMS, current


def carry_orders() -> None:
    """Have threads and thread pools of this process keep the order of the code that starts them."""
    start = threading.Thread.start
    submit = ThreadPoolExecutor.submit

    @functools.wraps(start)
    def start_for(self: threading.Thread) -> None:
        order = STREAMS.owner()
        if order:
            run = self.run
            # Set on the thread itself, where it also replaces the `run` of a subclass.
            self.run = lambda: _run_for(order, run)  # type: ignore[method-assign]
        start(self)

    @functools.wraps(submit)  # type: ignore[arg-type]
    def submit_for(
        self: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> "Future[Any]":
        order = STREAMS.owner()
        if not order:
            return submit(self, function, *args, **kwargs)
        return submit(self, _run_for, order, function, *args, **kwargs)

    threading.Thread.start = start_for  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = submit_for  # type: ignore[method-assign, assignment]


def _run_for(order: int, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    token = current.set(order)
    try:
        return function(*args, **kwargs)
    finally:
        current.reset(token)
