"""Renewal: the connection is made again with newer credentials, long before the present ones expire."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from galley.broker.identity import Identity
from galley.broker.questions import Questions

if TYPE_CHECKING:
    from galley.broker.connection import Broker

log = logging.getLogger(__name__)

_CALM_SECONDS: Final = 2.0
"""How long a reconnect waits for outstanding requests; usually they take milliseconds."""

_LOOK_AGAIN_SECONDS: Final = 0.005


class Renewal:
    """Keeps the credentials of a connection fresh."""

    def __init__(
        self, broker: "Broker", identity: Identity, questions: Questions, clock: Callable[[], float]
    ) -> None:
        self._broker, self._identity, self._questions, self._clock = broker, identity, questions, clock

    async def run(self) -> None:
        """Reconnect whenever there are newer credentials, until cancelled."""
        while True:
            await asyncio.sleep(self._identity.pause(self._clock()))
            if self._broker.connected and self._identity.renewed(self._clock()):
                log.info("reconnecting with newer credentials", extra={"server": self._broker.server})
                await self._reconnect()

    async def _reconnect(self) -> None:
        """Drop the connection when nothing is under way, and hold back what comes till there is a new one."""
        broker, questions = self._broker, self._questions
        questions.hold()
        broker.pipeline.hold()
        try:
            await _within(_CALM_SECONDS, lambda: not questions.busy and not broker.pipeline.busy)
            # So that no acknowledgement is left in our own buffer.
            await broker.reached(_CALM_SECONDS)
            await broker.nats.drop()
            await _within(_CALM_SECONDS, lambda: broker.connected)
        finally:
            questions.release()
            broker.pipeline.release()


async def _within(seconds: float, condition: Callable[[], bool]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - answers and states are many things' to change
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)
