"""Room in a queue's later stream, which the server does not keep: a full one would delete its oldest task.

So workers look before they write there. Tasks that are submitted for later stop at a share of it, and retries
at a larger one: a retry of an accepted task finds the room that producers could not take.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import stream_info
from galley.broker.errors import NotAllowed

_LOOK_SECONDS: Final = 1.0
"""Age up to which a figure is used, with what was added here since."""

_NEAR: Final = 0.75
"""Part of a limit above which each writer looks for itself, since others write as well."""

_OVERHEAD: Final = 512
"""Bytes of headers and subject, at most."""


@dataclass(slots=True)
class _Figure:
    used: int
    limit: int
    at: float


class LaterRoom:
    """How much room the later streams have, as seen by one process."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._figures: dict[str, _Figure] = {}
        self._under_way: Counter[str] = Counter()
        """Bytes of writes that a figure may not include yet."""

    @asynccontextmanager
    async def taking(self, address: TaskAddress, size: int, share: float) -> AsyncIterator[str]:
        """Yield why a message should not be stored, or nothing if there is room, which is taken meanwhile.

        Args:
            address: the task.
            size: bytes of its body.
            share: part of the stream that such messages may take.

        Raises:
            BrokerUnreachable: if the broker does not answer.
        """
        stream = topology.later_stream(address.namespace, address.queue)
        size += _OVERHEAD
        self._under_way[stream] += size
        try:
            yield await self._problem(stream, share)
        finally:
            self._under_way[stream] -= size
            if stream in self._figures:
                self._figures[stream].used += size

    async def _problem(self, stream: str, share: float) -> str:
        figure, now = self._figures.get(stream), asyncio.get_running_loop().time()
        if (
            figure is None
            or now - figure.at > _LOOK_SECONDS
            or figure.used + self._under_way[stream] > figure.limit * share * _NEAR
        ):
            figure = self._figures[stream] = await self._look(stream, now)
        if figure.limit <= 0 or figure.used + self._under_way[stream] <= figure.limit * share:
            return ""
        return (
            f"{figure.used} bytes of tasks for later and of retries are stored, "
            f"tasks of this kind may take {int(figure.limit * share)} of {figure.limit} "
            "(spec.limits.laterBytes)"
        )

    async def _look(self, stream: str, now: float) -> _Figure:
        try:
            info = await stream_info(self._broker, stream)
        except NotAllowed:
            # Credentials of an earlier release, until they are renewed.
            info = None
        if info is None:
            return _Figure(0, 0, now)
        return _Figure(info["state"]["bytes"], info["config"].get("max_bytes", 0), now)
