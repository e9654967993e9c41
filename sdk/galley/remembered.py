"""Answers that are remembered for a while, so that not every request costs a question."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_MOST: Final = 10_000


class Remembered(Generic[T]):
    """Answers by key. Those who ask the same at once share one question; errors are not remembered."""

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.monotonic, *, most: int = _MOST
    ) -> None:
        """Describe it.

        Args:
            seconds: how long an answer counts; 0 shares only what is being asked.
            clock: seconds, from anywhere on.
            most: answers that are kept; the oldest one is forgotten first.
        """
        self._seconds, self._clock, self._most = seconds, clock, most
        self._known: OrderedDict[object, tuple[float, T]] = OrderedDict()
        self._asked: dict[object, asyncio.Task[T]] = {}

    async def get(self, key: object, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what is known, or else what `ask` answers.

        Raises:
            What `ask` raises.
        """
        known = self._known.get(key)
        if known is not None and known[0] > self._clock():
            return known[1]
        asking = self._asked.get(key)
        if asking is None:
            asking = asyncio.ensure_future(self._ask(key, ask))
            self._asked[key] = asking
            asking.add_done_callback(lambda done: self._answered(key, done))
        # One who no longer waits must not end the question of the others.
        return await asyncio.shield(asking)

    def forget(self, key: object) -> None:
        """Have it asked again; a question under way is still shared."""
        self._known.pop(key, None)

    async def _ask(self, key: object, ask: Callable[[], Awaitable[T]]) -> T:
        answer = await ask()
        if self._seconds <= 0:
            return answer
        self._known.pop(key, None)
        self._known[key] = (self._clock() + self._seconds, answer)
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return answer

    def _answered(self, key: object, done: asyncio.Task[T]) -> None:
        del self._asked[key]
        if not done.cancelled():
            done.exception()  # those who asked have had it
