"""Audit lines of submits, sent a few milliseconds later and together: one write to the broker for many."""

import asyncio
import logging
from typing import Final

from galley.audit import Entry, Writer
from galley.broker.audit import note_soon
from galley.broker.connection import Broker
from galley.errors import GalleyError

log = logging.getLogger(__name__)

_TOGETHER_SECONDS: Final = 0.005


class SubmitNotes:
    """The lines that wait to be sent."""

    def __init__(self, broker: Broker) -> None:
        """Args: broker: an open connection."""
        self._broker = broker
        self._kept: list[tuple[str, str, Entry, Writer]] = []
        self._sending: asyncio.Task[None] | None = None

    def put(self, namespace: str, queue: str, entry: Entry, writer: Writer) -> None:
        """Send a line soon."""
        self._kept.append((namespace, queue, entry, writer))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send(), name="audit of submits")

    async def _send(self) -> None:
        while self._kept:
            await asyncio.sleep(_TOGETHER_SECONDS)
            kept, self._kept = self._kept, []
            for namespace, queue, entry, writer in kept:
                try:
                    await note_soon(self._broker, namespace, queue, entry, writer)
                except GalleyError as error:
                    about = {"namespace": namespace, "queue": queue, "task": entry.task, "user": entry.user}
                    log.warning("audit line not stored", extra={**about, "error": str(error)})
        self._sending = None

    async def sent(self) -> None:
        """Wait until no line is left."""
        while self._sending is not None:
            await asyncio.wait([self._sending])
