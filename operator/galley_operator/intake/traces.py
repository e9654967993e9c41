"""What the broker knows of a declared task that was there before us: a record, a message, or nothing."""

import asyncio
from typing import Final

from galley.address import Kind, TaskAddress
from galley.broker.connection import Broker
from galley.broker.held import held
from galley.broker.records import Records
from galley.errors import QueueNotFound
from galley.record import Stored
from galley_operator.tasks.active_tasks import QueueKey

_FRESH_SECONDS: Final = 5.0
"""A list of a queue's messages serves all who ask within this time."""


class Traces:
    """Looks tasks up, and the messages of a queue all at once: at a start thousands are asked for."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._records = Records(broker)
        self._lists: dict[QueueKey, tuple[float, asyncio.Future[dict[str, TaskAddress]]]] = {}

    async def record(self, address: TaskAddress) -> Stored | None:
        """Return the record of a task, if it has one.

        Raises:
            BrokerError: if that is not known.
        """
        try:
            return await self._records.look_up(address)
        except QueueNotFound:
            return None

    async def message(self, address: TaskAddress) -> bool:
        """Return whether a task had a message in its queue a few seconds ago.

        Raises:
            BrokerError: if that is not known.
        """
        queue = address.namespace, address.queue
        loop = asyncio.get_running_loop()
        known = self._lists.get(queue)
        if known is None or known[0] + _FRESH_SECONDS < loop.time():
            listing = asyncio.ensure_future(self._list(queue))
            known = self._lists[queue] = loop.time(), listing
        try:
            return address.id in await asyncio.shield(known[1])
        except Exception:
            self._lists.pop(queue, None)
            raise

    def forget(self, queue: QueueKey) -> None:
        """List a queue's messages anew for whoever asks next: some may have been put there since."""
        self._lists.pop(queue, None)

    async def _list(self, queue: QueueKey) -> dict[str, TaskAddress]:
        return await held(self._broker, *queue, Kind.DECLARED) or {}
