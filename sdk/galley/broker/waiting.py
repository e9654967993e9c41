"""Notifications of changed records: waiting for one task, or following a namespace, without polling."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerUnreachable
from galley.broker.records import Records
from galley.record import Stored

_SILENT_LOOKS: Final = 3
"""Looks without an answer after which the broker counts as away: in a cluster whose servers restart one after
the other, streams have no leader for some seconds."""

_LOOK_AGAIN_SECONDS: Final = 30.0
"""News travel at most once; this bounds how long a lost one can matter."""


async def wait_until_done(broker: Broker, address: TaskAddress) -> Stored:
    """Return the final record of a task as soon as there is one; waits without limit.

    What was there before is found by the first look, which comes after the subscription. What comes later is
    told by the news, or by the reconnection if they were missed while the connection was away; the close of
    the connection ends the wait. News that got lost on a good connection cost half a minute at most.

    Raises:
        QueueNotFound: if the namespace never had a queue.
        ClientClosed, ClientElsewhere: if the connection cannot be used here, or is closed meanwhile.
        BrokerUnreachable: if the broker is connected and yet does not answer, three times in a row.
    """
    records, silent = Records(broker), 0
    broker.check_usable()
    async with broker.news.of(address) as changed:
        while True:
            # Cleared before the look, so that news during the look are not missed.
            changed.clear()
            broker.check_usable()
            try:
                stored = await records.look_up(address) if broker.connected else None
                silent = 0
            except BrokerUnreachable:
                silent += 1
                if silent == _SILENT_LOOKS:
                    raise
                continue
            if stored is not None and stored.record.done:
                return stored
            try:
                async with asyncio.timeout(_LOOK_AGAIN_SECONDS):
                    await changed.wait()
            except TimeoutError:
                continue


@asynccontextmanager
async def hearing_changes(
    broker: Broker, namespace: str, react: Callable[[str], None]
) -> AsyncIterator[None]:
    """Call `react` with the subject of each record of a namespace that changed, in the middle of reading.

    It must be quick: in a busy namespace most of the cost is its own. Records of unique keys are among them.
    News travel at most once: what must not be missed is looked at again now and then.
    """

    def hear(subject: str, _reply: str, _body: bytes, _headers: bytes) -> None:
        react(subject)

    subscription = await broker.subscribe_directly(topology.changes_in(namespace), hear)
    try:
        yield
    finally:
        broker.unsubscribe(subscription)
