"""Batches: gathers the works of one handler, and hands a pool several of them as one.

A batch is complete when it has its size, or when its first member has waited long enough. While every slot
has a batch, the next one goes on filling, and follows when one of them ends; not behind a batch that turns
out slow, since another worker may be idle. So the timer, the last member, the end of a batch and the sweep
are what wakes it. Each member stays an attempt of its own: it has its own lease, and may be stopped without
the others. The pool sees a carrier, which takes one slot. `runners` gives works of other handlers back that
come into the room of a batch: they would take the slot that is kept for it.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from galley.batching import Batch
from galley_worker.ending import Crashed, Finish, NotBegun, Raised, TimedOut
from galley_worker.runners.execution import Carrier, Execution
from galley_worker.runners.pool import Pool


class Told(Protocol):
    """Hears of a change in how slots are shared."""

    def __call__(self, *, before: bool) -> None:
        """Take note, before it happens or after."""


AHEAD_SECONDS: Final = 1.0
"""A batch may be gathered behind others that take no longer."""


class Batches:
    """Gathers the works of one handler."""

    def __init__(self, rules: Batch, pool: Pool, slots: int, clock: Callable[[], float], told: Told) -> None:
        """Args: slots: batches that may run at a time; told: hears of changes in how slots are shared."""
        self.sizes: Counter[int] = Counter()
        """How many batches of each size there were."""
        self._rules, self._pool, self._slots, self._clock, self._told = rules, pool, slots, clock, told
        self._gathered: list[Execution] = []
        self._due = False
        """Whether the first of them has waited long enough."""
        self._carriers: set[Carrier] = set()
        """On their way, or with members that are not settled."""
        self._running = 0
        """Carriers on their way."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    # Slots.

    @property
    def _ahead(self) -> bool:
        """Whether the next batch is gathered though there is no slot for it."""
        return self._running >= self._slots and not self._slow()

    def _slow(self) -> bool:
        now = self._clock()
        return any(
            carrier.service.seconds > AHEAD_SECONDS or now - (carrier.started_at or now) > AHEAD_SECONDS
            for carrier in self._carriers
        )

    @property
    def gathers(self) -> int:
        """Slots that are kept for the batch that is gathered: 1 or 0."""
        return int(bool(self._gathered) and self._running < self._slots)

    @property
    def sharing(self) -> int:
        """Works under way that take no slot of their own.

        Those that are only settled take none, for up to two batches: the next one may begin meanwhile.
        """
        shared, settling = len(self._gathered) - self.gathers, 0
        for carrier in self._carriers:
            if carrier.ended_as is not None:
                settling += carrier.under_way
            else:
                shared += max(0, carrier.under_way - 1)
        return shared + min(settling, 2 * self._rules.size)

    @property
    def room(self) -> int:
        """Works of the handler that may come though there is no slot for them: the batch takes them in."""
        fills = self._gathered or self._ahead
        return max(0, self._rules.size - len(self._gathered)) if fills else 0

    # Members (Runner).

    def submit(self, execution: Execution) -> None:
        """Take in a member; the last one sends the batch on its way."""
        self._told(before=True)
        if execution.work.apart:
            self._send([execution])
            return
        self._gathered.append(execution)
        if len(self._gathered) == 1:
            self._wait()
            # There is room for more now than there are free slots.
            self._told(before=False)
        self._advance()

    def _wait(self) -> None:
        self._due = False
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._rules.wait_seconds, self._late)

    def _late(self) -> None:
        self._told(before=True)
        self._due = True
        self._advance()

    def _advance(self) -> None:
        """Send what is complete on its way, unless it is to wait for the end of another batch."""
        size = self._rules.size
        while self._gathered and (self._due or len(self._gathered) >= size) and not self._ahead:
            members, self._gathered = self._gathered[:size], self._gathered[size:]
            self._wait()
            self._send(members)
        if not self._gathered and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send(self, members: list[Execution]) -> None:
        carrier = Carrier.of(tuple(members), members[0].service, self._pool.stop)
        carrier.settled = self._settled
        self._carriers.add(carrier)
        self.sizes[len(members)] += 1
        self._running += 1
        carrier.ending.add_done_callback(lambda _ending: self._ended(carrier))
        self._pool.submit(carrier)

    def _ended(self, carrier: Carrier) -> None:
        """End the members that have no ending of their own, since their batch ended otherwise."""
        self._told(before=True)
        ending = carrier.ending.result()
        for member in carrier.members:
            member.end(_of_member(ending, member, len(carrier.members)))
        self._running -= 1
        self._advance()
        self._told(before=False)

    def _settled(self, carrier: Carrier) -> None:
        carrier.under_way -= 1
        if not carrier.under_way:
            self._carriers.discard(carrier)

    def stop(self, execution: Execution) -> None:
        """End a member. What the handler does for the others goes on; without others, it is stopped too."""
        because, carrier = execution.because, execution.batch
        assert because is not None, "it carries the reason"
        if carrier is None:
            self._told(before=True)
            self._gathered.remove(execution)
            self._advance()
        execution.end(because)
        if carrier is not None and carrier.all_ended:
            carrier.stop(because)

    def sweep(self, now: float) -> list[Execution]:
        """Return the members that have less time than their batch, and have had it."""
        self._advance()
        late = []
        for carrier in self._carriers:
            began = carrier.started_at
            if began is None or carrier.ended_as is not None:
                continue
            late += [
                member for member in carrier.members
                if member.ended_as is None and member.work.timeout < carrier.work.timeout
                and now - began > member.work.timeout
            ]  # fmt: skip
        return late

    @property
    def load(self) -> int:
        """Slots that are taken: the one that is kept. The pool counts the batches it has."""
        return self.gathers

    def slow(self, _now: float) -> int:
        """Return 0: the pool counts the batches it runs."""
        return 0

    def release(self, _now: float) -> int:
        """Return 0: the pool ends batches that wait too long for a slot, with all their members."""
        return 0

    async def close(self, why: str) -> None:
        """End what is being gathered as not begun; the pool ends the rest."""
        if self._timer is not None:
            self._timer.cancel()
        for execution in self._gathered:
            execution.end(NotBegun(why))
        self._gathered.clear()


def _of_member(ending: Finish, member: Execution, size: int) -> Finish:
    """Return how a member ended whose batch ended in another way than by an answer for each."""
    together = size if size > 1 else 0
    match ending:
        case TimedOut():
            return TimedOut(member.work.timeout, together)
        case Crashed(detail):
            return Crashed(detail, together)
        case Raised():
            return Raised(ending.failure, ending.retryable, ending.pause, ending.kinds, together)
        case _:
            return ending
