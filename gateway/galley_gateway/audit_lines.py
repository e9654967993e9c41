"""Audit lines for those who look again and again: an open page has only what is new read for it."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from galley.audit import AuditLine
from galley.broker.audit import numbered_lines_of
from galley.broker.connection import Broker
from galley.remembered import Remembered

_KEPT_SECONDS: Final = 60.0
"""After this all lines are read again: those whose time was over are gone."""

_MOST: Final = 2
"""Namespaces and queues whose lines are kept: a stream has 32 MiB of them."""


@dataclass
class _Lines:
    """The lines of one stream, oldest first, as far as they were read."""

    lines: list[AuditLine] = field(default_factory=list)
    last: int = 0
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


class AuditLines:
    """The lines of all namespaces, read over one connection."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._known: Remembered[_Lines] = Remembered(_KEPT_SECONDS, most=_MOST)

    async def read(self, namespace: str, queue: str = "") -> list[AuditLine]:
        """Return the lines of a namespace, oldest first; only those about a queue, if one is named.

        Raises:
            BrokerUnreachable: if the broker does not answer.
        """
        known = await self._known.get((namespace, queue), _nothing)
        async with known.reading:
            found = numbered_lines_of(self._broker, namespace, queue, known.last + 1)
            async for known.last, line in found:
                known.lines.append(line)
        return list(known.lines)


async def _nothing() -> _Lines:
    return _Lines()
