"""The audit stream, from the side of the operator.

Its own lines go into it, and those of clients and gateways into its log as they are stored. Lines about each
submitted Task and each step of the autoscaler stay in the log: the Task object and `status.scaling` tell the
same.
"""

import asyncio
import logging
from typing import Final

from galley import audit
from galley.audit import Action, Actor, Writer
from galley.broker.audit import listening, store
from galley.broker.connection import Broker
from galley_operator.audit import heard, log

_WAITING: Final = 1000
"""Lines that wait to be stored; what comes above that is in the log alone."""


class AuditTrail(logging.Handler):
    """Carries lines both ways for as long as `run` runs; only the leader runs it."""

    def __init__(self, broker: Broker) -> None:
        super().__init__()
        self._broker = broker
        self._lines: asyncio.Queue[logging.LogRecord] = asyncio.Queue(_WAITING)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line of the operator."""
        told = record.__dict__
        if told["writer"] != Writer.OPERATOR or told["action"] in _LOG_ONLY or told["reason"]:
            return
        try:
            self._lines.put_nowait(record)
        except asyncio.QueueFull:
            logging.getLogger(__name__).warning("audit line in the log alone", extra={"task": told["task"]})

    async def run(self) -> None:
        """Carry lines until cancelled."""
        async with listening(self._broker, heard):
            log.addHandler(self)
            try:
                while True:
                    await self._store(await self._lines.get())
            finally:
                log.removeHandler(self)

    async def _store(self, record: logging.LogRecord) -> None:
        told = record.__dict__
        actor = Actor(Writer.OPERATOR, told["user"], told["manager"])
        detail = f"{told['workers']} workers" if told["workers"] is not None else ""
        entry = audit.entry_of(actor, Action(told["action"]), told["task"], None, detail)
        await store(self._broker, told["namespace"], told["queue"], actor.writer, entry)


_LOG_ONLY: Final = frozenset((Action.SUBMIT,))
