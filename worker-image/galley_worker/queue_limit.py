"""A worker's part in the limits of its queue: the permits it has, and the starts it takes.

The worker pulls as many tasks as it has permits, so a task that waits for the limit takes no slot, and no
message comes and goes. It asks for one more than it runs, and keeps what it has for the next tasks. What
wakes it: an attempt that begins or ends, a word of another worker, and a timer, three times a lease, which
also confirms the permits. A worker that cannot confirm them stops its attempts before others may have them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from typing import Final, Protocol

from galley.broker.connection import Broker
from galley.broker.errors import BrokerError
from galley.broker.queue_shares import ShareRecord, StoredShares, Word, hearing_words, say
from galley.broker.topology import QueueLayout
from galley.failpoint import failpoint
from galley.queue_limit import QueueRules, Share, Watch, reserved, shared
from galley_worker.claim import Who
from galley_worker.leases import FENCE_MARGIN_SECONDS, RENEWALS

log = logging.getLogger(__name__)

_TRIES: Final = 20
"""Writes of the record that others may beat before it is looked at later."""

_LEAVING_SECONDS: Final = 2.0


class LimitedSlots(Protocol):
    """The slots of a worker, as far as its limit has to know them."""

    busy: int

    @property
    def unlimited(self) -> int:
        """Attempts that could begin now if there were no limit."""


class QueueLimit:
    """What one worker does about the limits of its queue."""

    def __init__(  # noqa: PLR0917 - what it works with
        self, broker: Broker, layout: QueueLayout, who: Who, rules: QueueRules, slots: LimitedSlots,
        now: Callable[[], datetime], clock: Callable[[], float], lease_seconds: float,
    ) -> None:  # fmt: skip
        self.rules = rules
        self.changed: Callable[[], None] = lambda: None
        """Called when more tasks may begin."""
        self.lost: Callable[[str], None] = lambda _: None
        """Called when permits could not be confirmed in time, with the reason; has to stop all attempts."""
        self.open: Callable[[], bool] = lambda: True
        """Whether the worker takes tasks."""
        self._broker, self._layout, self._who, self._slots = broker, layout, who, slots
        self._now, self._clock = now, clock
        self._record = ShareRecord(broker, layout.namespace, layout.queue)
        self._pause = lease_seconds / RENEWALS
        self._fence = max(lease_seconds / 2, lease_seconds - FENCE_MARGIN_SECONDS)
        self._watch = Watch(lease_seconds)
        self._lock, self._wake = asyncio.Lock(), asyncio.Event()
        self._known: StoredShares | None = None
        """The record as it was read or written last; None if it has to be read."""
        self._permits, self._confirmed_at, self._beat = 0, clock(), 0
        self._full = False
        """Whether the last look found no permit, so that only a word or the timer leads to another one."""
        self._asked = False
        """Whether another worker wants what this one does not use."""
        self._full_at = 0.0
        """When all starts of the rate are there again, as far as known."""
        self._starting = 0
        """Tasks that wait for the start they took."""

    # -- what the slots ask

    def room(self, free: int) -> int:
        """Return how many tasks may begin, of so many for which there are slots."""
        if self.rules.permits:
            late = self._clock() - self._confirmed_at > self._fence
            free = min(free, 0 if late else self._permits - self._slots.busy)
        if self.rules.rate is not None and free > 0:
            free = min(free, self.rules.rate.ready(self._full_at, self._seconds()) - self._starting)
        return free

    def look(self) -> None:
        """Take in that an attempt began or ended, or that the worker takes tasks again, or no more."""
        if not self.rules.permits:
            return
        wanted = self._wanted
        surplus = self._permits > wanted and (self._asked or not self.open())
        if (wanted > self._permits and not self._full) or surplus:
            self._wake.set()

    @property
    def _wanted(self) -> int:
        more = self.open() and self._slots.unlimited > 0
        return self._slots.busy + more

    # -- permits

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Take, confirm and give back permits for the duration of the block."""
        if not self.rules.permits:
            yield
            return
        async with hearing_words(self._broker, self._layout.namespace, self._layout.queue, self._hear):
            try:
                async with asyncio.TaskGroup() as group:
                    parts = [group.create_task(each) for each in (self._keep(), self._guard())]
                    yield
                    for part in parts:
                        part.cancel()
            finally:
                if self._broker.connected:
                    with suppress(BrokerError, TimeoutError):
                        async with asyncio.timeout(_LEAVING_SECONDS):
                            await self._settle(leaving=True)

    def _hear(self, word: Word) -> None:
        if word is Word.FREE:
            self._full, self._known = False, None
        else:
            self._asked = True
        self.look()

    async def _keep(self) -> None:
        while True:
            self._wake.clear()
            try:
                if self._broker.connected:
                    await self._settle()
            except BrokerError as error:
                self._known = None
                log.warning("permits of the queue not confirmed", extra={"error": str(error)})
            except Exception:  # whatever stands in the record costs this look, not the worker
                self._known = None
                log.exception("unexpected error", extra={"where": "permits of the queue"})
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause):
                    await self._wake.wait()
                    continue
            # The timer: a word may have been lost, and a worker may have died.
            self._full = False

    async def _guard(self) -> None:
        """Stop all attempts if their permits could not be confirmed: others may have them soon."""
        while True:
            await asyncio.sleep(min(1.0, self._pause / 4))
            if self._permits and self._clock() - self._confirmed_at > self._fence:
                self._permits, self._known = 0, None
                log.warning("permits of the queue lost", extra={"running": self._slots.busy})
                self.lost("the permits of its queue could not be confirmed")

    async def _settle(self, *, leaving: bool = False) -> None:
        """Bring the record in line with what this worker runs and wants.

        Raises:
            BrokerError: as `ShareRecord`.
        """
        async with self._lock:
            for _ in range(_TRIES):
                if self._known is None or (self._wanted > self._permits and not leaving):
                    self._known = await self._record.read()
                if await self._write(self._known, leaving=leaving):
                    return
                self._known = None

    async def _write(self, known: StoredShares, *, leaving: bool) -> bool:
        """Write the record if it has to change; returns False if another write came first."""
        began = self._clock()
        wanted = self._slots.busy if leaving else self._wanted
        keeps = self._permits if self.open() and not (self._asked or leaving) else 0
        silent = self._watch.silent(known.shares.shares, began) - {self._who.holder}
        own = Share(self._who.name, max(wanted, keeps), self._beat + 1)
        busy = 0 if leaving else self._slots.busy
        record = shared(known.shares, self.rules, self._who.holder, own, busy=busy, silent=silent)
        present, mine = (each.shares.get(self._who.holder) for each in (known.shares, record))
        before, permits = self._permits, 0 if mine is None else mine.permits
        due = permits > 0 and began - self._confirmed_at >= self._pause / 2
        if due or permits != (0 if present is None else present.permits):
            failpoint("limit.before_write")
            sequence = await self._record.write(record, known.sequence)
            if not sequence:
                return False
            self._known, self._beat, self._confirmed_at = StoredShares(record, sequence), own.beat, began
        self._permits, self._full = permits, wanted > permits
        self._asked = self._asked and permits > wanted
        if permits < before:
            self._say(Word.FREE)
        if self._full and (due or not permits):
            self._say(Word.WANT)
        if permits > before:
            self.changed()
        return True

    def _say(self, word: Word) -> None:
        say(self._broker, self._layout.namespace, self._layout.queue, word)

    # -- starts

    async def start(self) -> float:
        """Take a start of the rate; return in how many seconds it is.

        Raises:
            BrokerError: as `ShareRecord`; a start may have been taken.
        """
        rate = self.rules.rate
        if rate is None:
            return 0.0
        async with self._lock:
            while True:
                known = self._known or await self._record.read()
                self._known = None
                record, at = reserved(known.shares, rate, self._seconds())
                failpoint("limit.before_start")
                sequence = await self._record.write(record, known.sequence)
                if sequence:
                    self._known, self._full_at = StoredShares(record, sequence), record.full_at
                    break
        now = self._seconds()
        if (more := rate.next_at(record.full_at) - now) > 0:
            asyncio.get_running_loop().call_later(more, self.changed)
        return max(0.0, at - now)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a task that waits for its start: no others are pulled meanwhile."""
        self._starting += 1
        try:
            yield
        finally:
            self._starting -= 1
            self.changed()

    def _seconds(self) -> float:
        return self._now().astimezone(UTC).timestamp()
