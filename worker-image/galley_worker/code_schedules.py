"""The schedules of `@task(cron=...)`: each worker that starts makes them what the code says.

During a rollout the worker that started last decides, which is one with the new code.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Final

from msgspec.structs import replace

from galley import code_schedules
from galley.broker import schedules as stored
from galley.broker.connection import Broker
from galley.broker.errors import BrokerError, NotAllowed
from galley.broker.topology import QueueLayout
from galley.client import AsyncClient
from galley.encryption import KeyServiceUnavailable
from galley.errors import GalleyError, QueueNotFound
from galley.schedule import Origin, schedule_name_of
from galley.schedules import AsyncSchedules
from galley_worker.runners.frames import HandlerRules

log = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 5.0
_PAUSE_MOST: Final = 60.0
"""Between two tries, which become rarer: a refusal may be for good."""


async def declare(broker: Broker, layout: QueueLayout, rules: Mapping[str, HandlerRules]) -> None:
    """Make, change and remove schedules until the queue has those of its handlers.

    One that is refused keeps none of the others. Without the right to make schedules none is tried again.

    Args:
        broker: an open connection.
        layout: the queue's.
        rules: of its handlers, by name.
    """
    schedules = AsyncClient.over(broker, layout.namespace).schedules
    left = {handler: its for handler, its in rules.items() if its.repeat is not None}
    wanted = {schedule_name_of(handler) for handler in left}
    pause, removed = _PAUSE_SECONDS, False
    while True:
        try:
            left = await _declare(schedules, layout.queue, left)
            if not removed:
                await _remove_all_but(wanted, broker, layout)
                removed = True
            if not left:
                return
        except NotAllowed as error:  # credentials of an earlier release, or of another role
            log.warning("schedules not declared", extra={"error": str(error), "hint": error.hint})
            return
        except BrokerError as error:
            log.warning("schedules not declared yet", extra={"error": str(error), "hint": error.hint})
        await asyncio.sleep(pause)
        pause = min(2 * pause, _PAUSE_MOST)


async def _declare(
    schedules: AsyncSchedules, queue: str, rules: Mapping[str, HandlerRules]
) -> dict[str, HandlerRules]:
    """Make the schedules of handlers what the code says; return those that are to be tried again.

    Raises:
        NotAllowed: if our credentials are not good for that.
    """
    again = {}
    for handler, its in rules.items():
        try:
            await code_schedules.declare(schedules, queue, handler, its)
        except NotAllowed:
            raise
        except GalleyError as error:
            about = {"schedule": schedule_name_of(handler), "error": str(error), "hint": error.hint}
            # No stream that takes it is one without a leader, for a moment: a worker's queue is there.
            if isinstance(error, BrokerError | KeyServiceUnavailable | QueueNotFound):
                again[handler] = its
                log.warning("schedule not declared yet", extra=about)
            else:
                log.warning("schedule not declared", extra=about)
    return again


async def _remove_all_but(wanted: Collection[str], broker: Broker, layout: QueueLayout) -> None:
    place = layout.namespace, layout.queue
    async for kept in stored.schedules_of(broker, *place):
        if kept.schedule.origin is Origin.CODE and kept.schedule.name not in wanted:
            gone = replace(kept.schedule, gone=True)
            # Workers may not delete messages: the one that is handed this acknowledges it.
            if await stored.replaced(broker, place, gone, stored.AT_ONCE, instead_of=kept.sequence):
                log.info("schedule removed", extra={"schedule": kept.schedule.name})
