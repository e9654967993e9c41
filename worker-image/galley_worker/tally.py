"""The tally: hands over to the broker what this worker counted, so that it outlives the worker."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from galley.broker.counts import Outbox
from galley.faults import Faults
from galley_worker.measures import Measures
from galley_worker.settle import Settler

log = logging.getLogger(__name__)

TALLY_SECONDS: Final = 5.0
"""Time between two times: what a worker counted in it is lost if the worker is killed."""

_LAST_SECONDS: Final = 2.0
"""How long the last time may take, at the end of a worker."""


class Tally:
    """Hands over the counts of one worker."""

    def __init__(self, outbox: Outbox, measures: Measures, settler: Settler, faults: Faults) -> None:
        self._outbox, self._measures, self._settler = outbox, measures, settler
        self._faults = faults
        measures.counts_given_up = lambda: outbox.given_up

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Hand over now and then for the duration of the block, and once more at its end."""
        async with self._faults.beside("tally", self._run):
            yield
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                complete = await self._hand_over()
        except TimeoutError:
            complete = False
        if not complete:
            log.warning("last counts not handed over")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TALLY_SECONDS)
            await self._hand_over()

    async def _hand_over(self) -> bool:
        return await self._outbox.hand_over(self._measures.totals(self._settler.ended))
