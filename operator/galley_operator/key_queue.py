"""A queue of keys: each is in it at most once, is worked on by one at a time, and comes back if need be.

It says only *which* thing to look at; what to do is found out when it is its turn. So many changes of one
thing are one piece of work, and none is lost: a key added while it is worked on comes again after.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 60.0


class Backoff(Generic[Key]):
    """How long each key waits after a failure: twice as long each time, until it succeeds."""

    def __init__(
        self, jitter: Callable[[], float], first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE
    ) -> None:
        """Args: jitter: returns a number in [0, 1); first and longest: seconds."""
        self._jitter, self._first, self._longest = jitter, first, longest
        self._failures: dict[Key, int] = {}

    def after_failure(self, key: Key) -> float:
        """Return how long the key waits now, between half of its pause and all of it."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(self._longest, self._first * 2.0 ** min(failures - 1, 30))
        return pause * (0.5 + self._jitter() / 2)

    def forget(self, key: Key) -> None:
        """Reset the key's failures."""
        self._failures.pop(key, None)


class KeyQueue(Generic[Key]):
    """Keys waiting for their turn. What people do now comes before what was there at the start."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Args: clock: seconds that only grow, such as the loop's."""
        self._clock = clock
        self._urgent: deque[Key] = deque()
        self._patient: deque[Key] = deque()
        self._later: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}
        """When each of those is looked at: once, however often it was asked for."""
        self._count = 0
        self._waiting: set[Key] = set()
        self._in_hand: set[Key] = set()
        self._again: set[Key] = set()
        self._changed = asyncio.Event()

    def add(self, key: Key, *, patient: bool = False) -> None:
        """Have the key looked at; after all others if `patient`."""
        if key in self._in_hand:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            (self._patient if patient else self._urgent).append(key)
            self._changed.set()

    def add_later(self, key: Key, seconds: float) -> None:
        """Have the key looked at after a while, unless it is sooner anyway."""
        due = self._clock() + seconds
        if due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._later, (due, self._count, key))
        self._changed.set()

    async def get(self) -> Key:
        """Return the next key, which does not come again until `done`. For one caller at a time."""
        while True:
            self._ripen()
            for line in (self._urgent, self._patient):
                if line:
                    key = line.popleft()
                    self._waiting.discard(key)
                    self._in_hand.add(key)
                    return key
            self._changed.clear()
            pause = self._later[0][0] - self._clock() if self._later else None
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def done(self, key: Key) -> None:
        """Let go of a key; if it was added meanwhile, it is looked at again."""
        self._in_hand.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._due) + len(self._in_hand)

    def _ripen(self) -> None:
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:  # else it was to be sooner
                del self._due[key]
                self.add(key)
