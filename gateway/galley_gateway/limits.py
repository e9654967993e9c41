"""How much one gateway takes at once."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from galley_gateway.errors import RateExceeded, TooManyWaits

JSON_DEPTH: Final = 100
"""Levels of arrays and objects in a body. Readers of tasks recurse, and each has a limit of its own."""

_SENDERS: Final = 10_000
"""Senders whose rate is remembered; the one that was silent longest is forgotten first."""

_SHARE_OF_NAMESPACE: Final = 0.75
"""Of the requests that stay open. A tenant can make as many users as it likes, each a ServiceAccount."""


@dataclass(frozen=True)
class Limits:
    """The limits of a gateway."""

    body_bytes: int = 1024 * 1024
    body_seconds: float = 10.0
    """Time for a body to arrive, and for the head of a request."""
    rate: float = 5000.0
    """Requests a second of one user; twice as many in the first second."""
    waits: int = 2000
    """Requests that wait for tasks or follow something, of all users."""
    waits_of_user: int = 1000
    connections: int = 4000


class Rates:
    """A bucket of tokens for each sender."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: rate: requests a second."""
        self._rate, self._clock = rate, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, sender: str) -> None:
        """Count one request.

        Raises:
            RateExceeded: if the sender has none left.
        """
        now, most = self._clock(), max(1.0, 2 * self._rate)
        left, at = self._left.pop(sender, (most, now))
        left = min(most, left + (now - at) * self._rate)
        # What is refused costs nothing: one who sends too much would have nothing accepted at all.
        self._left[sender] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > _SENDERS:
            self._left.popitem(last=False)
        if left < 1:
            raise RateExceeded(self._rate)


class Places:
    """The places of requests that stay open."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._in_namespace = max(1, int(limits.waits * _SHARE_OF_NAMESPACE))
        self._users: Counter[str] = Counter()
        self._namespaces: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """How many are taken."""
        return self._users.total()

    @contextmanager
    def taken(self, user: str, namespace: str) -> Iterator[None]:
        """Hold a place for as long as the block.

        Raises:
            TooManyWaits: if there is none for the user, in the namespace, or at all.
        """
        for taken, most in (
            (self._users[user], self._limits.waits_of_user),
            (self._namespaces[namespace], self._in_namespace),
            (self.open, self._limits.waits),
        ):
            if taken >= most:
                raise TooManyWaits(most)
        counted = ((self._users, user), (self._namespaces, namespace))
        for counts, name in counted:
            counts[name] += 1
        try:
            yield
        finally:
            for counts, name in counted:
                counts[name] -= 1
                if not counts[name]:
                    del counts[name]
