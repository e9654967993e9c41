"""One attempt, begun as a worker begins it: on the fast path if it may be, and else the long way."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from galley.broker.pull import Delivery
from galley_worker.attempts import Attempts


async def run_attempt(attempts: Attempts, delivery: Delivery) -> None:
    """Run the attempt of a delivery to its end; if this is cancelled, so is the attempt."""
    hand = _Hand()
    if not attempts.begin(delivery, hand):
        await attempts.run(delivery)
        return
    try:
        await hand.over.wait()
        if hand.rest is not None:
            await hand.rest
    finally:
        hand.end()


class _Hand:
    """Has one attempt."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.rest: asyncio.Task[None] | None = None
        self._ended = False

    def leave(self) -> None:
        self.over.set()

    def resume(self, rest: Coroutine[Any, Any, None]) -> None:
        if self._ended:
            rest.close()
            return
        self.rest = asyncio.get_running_loop().create_task(rest)
        self.over.set()

    def end(self) -> None:
        self._ended = True
        if self.rest is not None:
            self.rest.cancel()
