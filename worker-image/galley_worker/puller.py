"""Puller: keeps a worker's slots filled, highest lane first, without polling.

When a slot is free, each lane that may have tasks is asked at once ("sweep"); if it has none, a pull is left
waiting there ("park"), for one task, or while handlers are quick for as many as arrived lately. A lane with
a parked pull is known to be empty. A task that arrives without a slot goes back to the broker, at once or,
while handlers are quick, after `HOLD_SECONDS`: it must not sit at a busy worker while another one is idle.

Two loops wait here. What wakes them:

- `_keep_filled` (pulls) waits on `_wake`: set when slots become free (`slots_changed`), when a parked pull
  ends with or without a task (`changed`; a reconnection ends them all), and by `pause`, `resume` and `stop`.
  A pull whose server died ends without an answer; those are looked for when one may have been silent for too
  long, however often something else wakes the loop meanwhile.
- `deliveries` (hands out) waits on `_ready`: set when a task arrives (`delivered`), when slots become free
  while one is held, when the hold ends, and by `resume` and `stop`.
"""

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Final, Protocol, Self

from galley.broker.connection import Broker
from galley.broker.errors import BrokerError
from galley.broker.pull import Delivery, Pulls, Source
from galley.broker.topology import QueueLayout
from galley.faults import Faults
from galley.lanes import Lane
from galley_worker.credits import LaneCredits

log = logging.getLogger(__name__)

HOLD_SECONDS: Final = 0.02
"""How long a task that arrived without a free slot waits for one before another worker may have it, while
handlers are quick. Otherwise it does not wait at all."""

PARKED_MOST: Final = 16
"""Most tasks a parked pull waits for while handlers are quick: that saves a sweep after each."""

REFUSED_SECONDS: Final = 0.25
"""Pause after the broker refused a pull: its consumer is gone, or has no leader at the moment."""


class Slots(Protocol):
    """The slots of a worker."""

    @property
    def free(self) -> int:
        """Attempts the worker could begin now; zero or negative if there is no free slot."""

    @property
    def brisk(self) -> bool:
        """Whether slots become free within milliseconds, so that a task may wait for one."""

    @property
    def supplied(self) -> bool:
        """Whether so many attempts are under way that a larger pull, when some have ended, is better."""


class Puller:
    """Delivers tasks to one worker. Use it as `async with`, and iterate `deliveries()`."""

    def __init__(
        self,
        broker: Broker,
        layout: QueueLayout,
        slots: Slots,
        give_back: Callable[[str], None],
        faults: Faults | None = None,
    ) -> None:
        """Describe the puller; it pulls once it is entered.

        Args:
            broker: an open connection.
            layout: the queue's streams and lanes.
            slots: the worker's.
            give_back: has the delivery with this reply subject delivered again, to whichever worker.
            faults: counts unexpected exceptions, after which pulling goes on.
        """
        self._faults = faults or Faults()
        self._broker = broker
        self._give_back_reply = give_back
        self._slots = slots
        self._pulls = Pulls(broker, layout, self)
        self._credits = LaneCredits(layout.lanes)
        self._waiting: frozenset[Lane] = frozenset(layout.lanes)
        self._arrived: dict[Lane, deque[Delivery]] = {lane: deque() for lane in self._credits.lanes}
        self._came: Counter[Source] = Counter()
        """Tasks that arrived from each source since a pull was last parked there."""
        self._held = 0
        self._hold: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._ready = asyncio.Event()
        self._stopped = False
        self._paused = False
        self._sweeper: asyncio.Task[None] | None = None
        self.told: Callable[[], None] = lambda: None
        """Called when `open` changes."""

    @property
    def idle(self) -> bool:
        """Whether a pull waits in each lane, so that no task does."""
        sources = (source for pair in self._pulls.sources.values() for source in pair)
        return self.open and not self._held and all(map(self._pulls.is_open, sources))

    @property
    def open(self) -> bool:
        """Whether tasks are taken."""
        return not (self._stopped or self._paused)

    async def __aenter__(self) -> Self:
        filling = self._faults.keep_running("puller", self._keep_filled, REFUSED_SECONDS)
        self._sweeper = asyncio.create_task(filling, name="puller")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._sweeper is not None
        self.stop()
        try:
            await self._sweeper
        finally:
            self._sweeper.cancel()

    @property
    def heard_at(self) -> float:
        """Loop time at which a consumer last answered a pull."""
        return self._pulls.heard_at

    def stop(self) -> None:
        """Take no more tasks, for good."""
        self._stopped = True
        self._wake.set()
        self._ready.set()
        self.told()

    def pause(self) -> None:
        """Take no more tasks until `resume`."""
        self._paused = True
        self._wake.set()
        self.told()

    def resume(self) -> None:
        """Take tasks again."""
        self._paused = False
        self._wake.set()
        self._ready.set()
        self.told()

    def slots_changed(self) -> None:
        """Pull again: an attempt ended, or the worker can run more at a time than it could."""
        if self._held:
            self._ready.set()
        self._wake.set()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """Yield each task for which there is a slot, highest lane first, until stopped."""
        while not self._stopped:
            self._ready.clear()
            while (ready := self._ready_to_begin) > 0:
                for _ in range(ready):
                    if self._held and self.open:
                        yield self._next()
            # Here, where it is certain that a task waits: slots go away, too, when handlers turn out slow.
            if self._held and not self._slots.brisk:
                self._give_back()
            elif self._held and self._hold is None:
                self._hold = asyncio.get_running_loop().call_later(HOLD_SECONDS, self._end_hold)
            await self._ready.wait()

    @property
    def _ready_to_begin(self) -> int:
        """Tasks there are slots for. Each takes one at most, so this need not be asked before each."""
        return min(self._slots.free, self._held) if self.open else 0

    def _next(self) -> Delivery:
        self._held -= 1
        for tasks in self._arrived.values():
            if tasks:
                return tasks.popleft()
        raise AssertionError("a task is held")

    async def _keep_filled(self) -> None:
        while not self._stopped:
            if self._paused:
                self._wake.clear()
                await self._wake.wait()
                continue
            async with self._pulls:
                await self._pull_until_told()
            self._give_back()

    async def _pull_until_told(self) -> None:
        loop, look_at = asyncio.get_running_loop(), 0.0
        while not (self._stopped or self._paused):
            self._wake.clear()
            try:
                while self._broker.connected and self._wants_more():
                    await self._pulls.orient()
                    await self._sweep()
            except BrokerError as error:
                log.warning("queue cannot be pulled from yet", extra={"error": str(error)})
                self._pulls.refusals += 1
            if self._pulls.refusals:
                self._pulls.refusals = 0
                await asyncio.sleep(REFUSED_SECONDS)
                continue
            if loop.time() >= look_at:
                look_at = self._pulls.drop_silent()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(look_at):
                    await self._wake.wait()

    def _wants_more(self) -> bool:
        self._waiting = frozenset(
            lane
            for lane, sources in self._pulls.sources.items()
            if not all(self._pulls.is_open(source) for source in sources)
        )
        return bool(
            self._waiting
            and not self._slots.supplied
            and self._slots.free > self._held
            and not (self._stopped or self._paused or self._pulls.refusals)
        )

    async def _sweep(self) -> None:
        for lane, share in self._credits.plan(self._slots.free - self._held, self._waiting).items():
            left = min(share, self._slots.free - self._held)
            if left <= 0:
                return
            for source in self._pulls.sources[lane]:
                if left > 0 and not self._pulls.is_open(source):
                    left -= await self._pulls.sweep(source, left)
                    if left > 0 and self._slots.brisk:
                        # Known to be empty from now on: it is not asked before each sweep of the next one.
                        await self._park(source)
            if left > 0:
                self._credits.emptied(lane)
                if self._slots.free > self._held or self._slots.brisk:
                    for source in self._pulls.sources[lane]:
                        await self._park(source)

    async def _park(self, source: Source) -> None:
        if not self._pulls.is_open(source):
            came = self._came.pop(source, 0) if self._slots.brisk else 0
            await self._pulls.park(source, max(1, min(came, PARKED_MOST)))

    def delivered(self, delivery: Delivery) -> None:
        """Keep a task until there is a slot for it."""
        self._arrived[delivery.source.lane].append(delivery)
        self._held += 1
        self._came[delivery.source] += 1
        # Counted when it arrives, not when it begins, so that the next plan does not include it again.
        self._credits.started(delivery.source.lane, self._waiting)
        self._ready.set()

    def _end_hold(self) -> None:
        self._hold = None
        try:
            self._give_back()
        finally:
            if self._held:
                self._ready.set()

    def _give_back(self) -> None:
        """Return to the broker what arrived here without a slot."""
        for lane in reversed(self._credits.lanes):
            tasks = self._arrived[lane]
            while tasks and (self._stopped or self._paused or self._held > max(0, self._slots.free)):
                self._held -= 1
                self._give_back_reply(tasks.pop().reply)

    def changed(self) -> None:
        """Pull again: a parked pull ended."""
        self._wake.set()

    def reconnected(self) -> None:
        """Return what has not begun: the broker may have forgotten that it is here, and delivers it again."""
        for tasks in self._arrived.values():
            for delivery in tasks:
                # Otherwise a broker that remembers it would wait for the end of its lease.
                self._give_back_reply(delivery.reply)
            tasks.clear()
        self._held = 0
