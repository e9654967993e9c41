"""Execution: one work on its way from start to ending."""

import asyncio
from collections.abc import Callable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from galley_worker.ending import Cancelled, CutOff, Finish, TimedOut
from galley_worker.work import Work

FAST_SECONDS: Final = 0.005
"""Handlers faster than this may have work queued behind them in their child."""
PREFETCH: Final = 16
"""Works taken on ahead of time for each slot at most."""
DEPTH: Final = 32
"""Works queued behind the running one of a child at most, so that one wake-up serves many."""
_WEIGHT: Final = 0.1


class Service:
    """How long one handler usually takes: an exponentially weighted average."""

    __slots__ = ("runs", "seconds", "total", "window")

    def __init__(self) -> None:
        self.seconds = FAST_SECONDS
        """Not fast until it was measured."""
        self.window = 1
        """Works a child may hold at once: the running one and those behind it."""
        self.runs = 0
        self.total = 0.0
        """Seconds of `runs`, both since they were last reset."""

    def observe(self, seconds: float) -> None:
        """Take in one more measurement."""
        average = self.seconds + _WEIGHT * (seconds - self.seconds)
        self.seconds = average
        self.runs += 1
        self.total += seconds
        # Graded, so that what is queued waits about 5 ms however fast the handler is.
        fitting = int(FAST_SECONDS / average) if average else DEPTH
        self.window = 1 + min(DEPTH, fitting)


class Account:
    """Output of one attempt, counted against its limit."""

    __slots__ = ("dropped", "said", "work")

    def __init__(self, work: Work | None) -> None:
        self.work = work
        self.said = 0
        self.dropped = 0


class Execution(Struct, eq=False):
    """One started work."""

    work: Work
    service: Service
    _stopper: "Callable[[Execution], None]"
    ended_as: Finish | None = None
    """How it ended; None until it has."""
    started_at: float | None = None
    """Monotonic time at which the handler began, as far as known."""
    certain: bool = False
    """Whether `started_at` is what the child said. Until then it is when an async handler was sent."""
    asked_at: float | None = None
    """When the child was asked for it."""
    because: Cancelled | TimedOut | CutOff | None = None
    """Why it is being stopped."""
    batch: "Carrier | None" = None
    """The batch it is a member of, once that is sent on its way."""
    id: int = 0
    _future: "asyncio.Future[Finish] | None" = None
    _hears: Callable[[Finish], None] | None = None
    _account: Account | None = None

    @property
    def ending(self) -> "asyncio.Future[Finish]":
        """Gets how it ended, never an exception. Made for who waits: most are heard by a call."""
        if self._future is None:
            self._future = asyncio.get_running_loop().create_future()
            if self.ended_as is not None:
                self._future.set_result(self.ended_as)
        return self._future

    def stop(self, because: Cancelled | TimedOut | CutOff) -> None:
        """End it: `ending` becomes `because`, unless the handler returns first. The first reason counts.

        Not started: it never will be. An `async def` handler is cancelled, a command gets SIGTERM, and both
        are killed after the grace. A plain function cannot be asked: its process is killed at once.
        """
        if self.because is None and self.ended_as is None:
            self.because = because
            self._stopper(self)

    def end(self, ending: Finish) -> None:
        """Settle how it ended; the first ending stays."""
        if self.ended_as is not None:
            return
        self.ended_as = ending
        if self._future is not None and not self._future.done():
            self._future.set_result(ending)
        if self._hears is not None:
            # Not kept: it knows the attempt, which knows this. A cycle takes a garbage collection.
            hears, self._hears = self._hears, None
            hears(ending)

    def heard_by(self, hears: "Callable[[Finish], None]") -> None:
        """Have `ending` told without a turn of the event loop, perhaps now. `hears` must not raise."""
        if self.ended_as is not None:
            hears(self.ended_as)
        else:
            self._hears = hears

    @property
    def wrote(self) -> bool:
        """Whether it has written any output."""
        return self._account is not None

    @property
    def account(self) -> Account:
        """Its output so far."""
        if self._account is None:
            self._account = Account(self.work)
        return self._account


class Carrier(Execution, eq=False):
    """A batch on its way: what a pool sees of it. Its members are executions of their own."""

    members: tuple[Execution, ...] = ()
    under_way: int = 0
    """Members that are not settled."""
    settled: "Callable[[Carrier], None]" = lambda _carrier: None
    """Called once for each member, when its attempt is over."""

    @classmethod
    def of(
        cls, members: tuple[Execution, ...], service: Service, stopper: Callable[[Execution], None]
    ) -> "Carrier":
        """Return the batch of some executions, which know of it from now on."""
        works = tuple(member.work for member in members)
        timeout = max(work.timeout for work in works)
        work = replace(works[0], members=works, timeout=timeout)
        carrier = cls(work, service, stopper, members=members, under_way=len(members))
        for member in members:
            member.batch = carrier
        return carrier

    @property
    def all_ended(self) -> bool:
        """Whether no member is left whose ending is not known."""
        return all(member.ended_as is not None for member in self.members)
