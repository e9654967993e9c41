"""Hearing which tasks of a namespace changed: started over, failed once, ended."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from nats.aio.msg import Msg

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker

log = logging.getLogger(__name__)


@asynccontextmanager
async def hearing_changes(
    broker: Broker, namespace: str, react: Callable[[TaskAddress], None]
) -> AsyncIterator[None]:
    """Call `react` with the address of each task whose record changed; its lane is not told.

    News travel at most once: what must not be missed is looked at again now and then.
    """

    async def hear(message: Msg) -> None:
        try:
            react(topology.parse_task_subject(message.subject))
        except ValueError:
            log.warning("news not understood", extra={"subject": message.subject})

    subscription = await broker.subscribe(topology.changes_in(namespace), hear)
    try:
        yield
    finally:
        if broker.connected:
            await subscription.unsubscribe()
