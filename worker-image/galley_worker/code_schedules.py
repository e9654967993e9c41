"""The schedules of `@task(cron=...)`: each worker that starts makes them what the code says.

During a rollout the worker that started last decides, which is one with the new code.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from galley import code_schedules
from galley.broker import schedules as stored
from galley.broker.connection import Broker
from galley.broker.errors import BrokerError
from galley.broker.topology import QueueLayout
from galley.client import AsyncClient
from galley.encryption import KeyServiceUnavailable
from galley.errors import GalleyError
from galley.schedule import Origin, schedule_name_of
from galley_worker.runners.frames import HandlerRules

log = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 5.0


async def declare(broker: Broker, layout: QueueLayout, rules: Mapping[str, HandlerRules]) -> None:
    """Make, change and remove schedules until the queue has those of its handlers.

    Args:
        broker: an open connection.
        layout: the queue's.
        rules: of its handlers, by name.
    """
    while True:
        try:
            await _declare(broker, layout, rules)
        except (BrokerError, KeyServiceUnavailable) as error:
            log.warning("schedules not declared yet", extra={"error": str(error), "hint": error.hint})
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return


async def _declare(broker: Broker, layout: QueueLayout, rules: Mapping[str, HandlerRules]) -> None:
    client = AsyncClient.over(broker, layout.namespace)
    wanted = set()
    for handler, its in rules.items():
        if its.repeat is None:
            continue
        name = schedule_name_of(handler)
        wanted.add(name)
        try:
            await code_schedules.declare(client.schedules, layout.queue, handler, its)
        except BrokerError:
            raise
        except GalleyError as error:
            about = {"schedule": name, "error": str(error), "hint": error.hint}
            log.warning("schedule not declared", extra=about)
    async for kept in stored.schedules_of(broker, layout.namespace, layout.queue):
        if kept.schedule.origin is Origin.CODE and kept.schedule.name not in wanted:
            gone, place = replace(kept.schedule, gone=True), (layout.namespace, layout.queue)
            # Workers may not delete messages: the one that is handed this acknowledges it.
            if await stored.replaced(broker, place, gone, stored.AT_ONCE, instead_of=kept.sequence):
                log.info("schedule removed", extra={"schedule": kept.schedule.name})
