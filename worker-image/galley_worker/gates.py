"""Gates: what a task passes before it begins: the turn of its key, its workflow, the rate of its queue."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Final

from galley.broker.errors import BrokerError
from galley.schedule import ticks_of
from galley_worker import journal
from galley_worker.claim import Held
from galley_worker.continuation import Continuations
from galley_worker.ledger import NoRoom
from galley_worker.queue_limit import QueueLimit
from galley_worker.settle import NO_ROOM_SECONDS, Settler
from galley_worker.turns import Turns
from galley_worker.under_way import UnderWay

_LIMIT_SECONDS: Final = 1.0
"""Pause before a task is tried again whose start could not be taken, since the broker did not answer."""


class Gates:
    """What the tasks of a queue pass before they begin."""

    def __init__(
        self,
        settler: Settler,
        turns: Turns | None,
        continuations: Continuations | None,
        now: Callable[[], datetime],
    ) -> None:
        self._settler, self._turns, self._continuations, self._now = settler, turns, continuations, now
        self.limit: QueueLimit | None = None
        """The limit of the queue, if it has one."""

    async def let(self, present: UnderWay, held: Held) -> bool:
        """Return whether an attempt may begin now; if not, its task is done with for now."""
        if (held.envelope.key and not await self._has_turn(held)) or (
            held.flags.awaits and await self._waits_on(held)
        ):
            return False
        return self.limit is None or await self._may_start(present, held, self.limit)

    async def _may_start(self, present: UnderWay, held: Held, limit: QueueLimit) -> bool:
        """Wait until the rate of the queue lets a task start; returns False if it is delivered again."""
        if held.flags.awaits:
            return True
        try:
            seconds = await limit.start()
        except BrokerError as error:
            journal.no_room(held.delivery, str(error))
            self._settler.look_again(present.delivery, _LIMIT_SECONDS)
            return False
        if seconds > 0 and present.stopped is None:
            present.woken = asyncio.Event()
            with limit.waiting(), suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await present.woken.wait()
            held.started_at = self._now()
        return True

    async def _has_turn(self, held: Held) -> bool:
        """Return whether a task with a key may run now; if not, it waits under its key."""
        turns, delivery = self._turns, held.delivery
        if turns is None or ticks_of(delivery.address.id) is not None:
            return True  # what a schedule makes takes no turns
        try:
            if await turns.may_run(delivery.address, held.envelope, held.flags):
                held.keeps_permit = held.flags.permit and turns.rules.ordered
                return True
            await turns.park(delivery, held.envelope, held.flags)
        except BrokerError as error:
            journal.no_room(delivery, str(error))
            self._settler.look_again(delivery, NO_ROOM_SECONDS)
        return False

    async def _waits_on(self, held: Held) -> bool:
        """Return whether a task waits for a workflow and is done with for now."""
        assert self._continuations is not None, "a worker has continuations"
        try:
            if not await self._continuations.look(held):
                return False
        except NoRoom as error:
            self._settler.keep(held.delivery, str(error))
            return True
        self._settler.drop(held.delivery)
        return True
