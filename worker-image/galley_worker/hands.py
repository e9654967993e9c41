"""Hands: each takes one delivery after the other and runs its attempt; together they drain.

Pulling ends first, running attempts get the grace period to end, and those that still run are handed back.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

from galley.broker.pull import Delivery
from galley.failpoint import failpoint
from galley_worker.attempts import Attempts
from galley_worker.puller import Puller
from galley_worker.slots import WorkerSlots
from galley_worker.stop import Stop

log = logging.getLogger(__name__)

_HAND_BACK_SECONDS: Final = 10.0
"""Time to hand back the attempts that were stopped at the end of a drain."""


class Hands:
    """Runs what the puller delivers, until told to stop."""

    def __init__(
        self, attempts: Attempts, puller: Puller, slots: WorkerSlots, stop: Stop, grace_seconds: float
    ) -> None:
        self._attempts, self._puller, self._slots, self._stop = attempts, puller, slots, stop
        self._grace_seconds = grace_seconds
        attempts.idle = lambda: puller.idle
        self._at_work: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[Delivery | None]] = []
        self._under_way: asyncio.TaskGroup | None = None
        self._over = asyncio.Event()
        """Set while no attempt is under way, or when those that are left were given up."""
        self._over.set()

    async def run(self) -> None:
        """Run attempts until told to stop, then drain."""
        async with asyncio.TaskGroup() as under_way:
            self._under_way = under_way
            async with self._puller as puller:
                under_way.create_task(self._stop_pulling(), name="stop")
                with self._slots.grown.heard_by(puller.slots_changed):
                    async for delivery in puller.deliveries():
                        if not self._attempts.roster.known(delivery):
                            self._take(delivery)
            for idle in self._idle:
                idle.set_result(None)
            if self._slots.busy:
                failpoint("drain.begun")
                log.info("worker draining", extra={"running": self._slots.busy})
                under_way.create_task(self._cut_after_grace(), name="grace")
                # Attempts on the fast path have no task that the group would wait for.
                await self._over.wait()
                self._under_way = None

    async def _stop_pulling(self) -> None:
        await self._stop.asked.wait()
        self._puller.stop()

    def _take(self, delivery: Delivery) -> None:
        if not self._slots.busy:
            self._over.clear()
        try:
            self._slots.take()
            if self._attempts.begin(delivery, self):
                return
        except Exception as error:  # whatever it is costs this delivery, not the worker
            self._attempts.failed(delivery, error)
            self.leave()
            return
        if self._idle:
            self._idle.pop().set_result(delivery)
            return
        self._start(self._work(delivery))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._under_way is not None, "attempts begin in `run`"
        hand = self._under_way.create_task(work)
        hand.add_done_callback(self._at_work.discard)
        self._at_work.add(hand)

    def leave(self) -> None:
        """Take note that an attempt is over."""
        try:
            self._slots.leave()
        except Exception:  # the slot is free all the same
            log.exception("free slot not counted")
        self._puller.slots_changed()
        if not self._slots.busy:
            self._over.set()

    def resume(self, rest: Coroutine[Any, Any, None]) -> None:
        """Run the rest of an attempt that began on the fast path."""
        if self._under_way is None:  # what is left was given up
            rest.close()
        else:
            self._start(self._finish(rest))

    async def _finish(self, rest: Coroutine[Any, Any, None]) -> None:
        try:
            await rest
        except Exception:  # what is left of it comes again when its lease ends
            log.exception("attempt not settled")
        finally:
            self.leave()

    async def _work(self, delivery: Delivery | None) -> None:
        """Run the attempts of deliveries one after the other: an asyncio task for each would cost more."""
        while delivery is not None:
            try:
                await self._attempts.run(delivery)
            except Exception as error:  # whatever it is costs this delivery, not the worker
                self._attempts.failed(delivery, error)
            finally:
                self.leave()
            if self._stop.asked.is_set():
                return
            idle: asyncio.Future[Delivery | None] = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
            delivery = None  # its body would be kept until the next one
            delivery = await idle

    async def _cut_after_grace(self) -> None:
        """Wait for running attempts, hand back those that are late, and do not wait for an absent broker."""
        urgent = asyncio.create_task(self._stop.urgent.wait())
        over = asyncio.create_task(self._over.wait())
        await asyncio.wait({urgent, over}, timeout=self._grace_seconds, return_when="FIRST_COMPLETED")
        urgent.cancel()
        failpoint("drain.before_cut")
        try:
            self._attempts.roster.cut("the worker is shutting down")
        except Exception:  # what is not stopped comes again when its lease ends
            log.exception("attempts not stopped")
        await asyncio.wait({over}, timeout=_HAND_BACK_SECONDS)
        if not over.done():
            log.warning("attempts left unsettled", extra={"tasks": len(self._attempts.roster.under_way)})
            over.cancel()
        self._under_way = None
        for hand in self._at_work:
            hand.cancel()
        self._over.set()
