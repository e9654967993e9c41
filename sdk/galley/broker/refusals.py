"""Why the broker did not take a task: its answers as errors, with the figures of what is full."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any, Final

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import stream_info
from galley.broker.errors import (
    BrokerError,
    BrokerFull,
    BrokerRefused,
    BrokerSilent,
    BrokerUnreachable,
    NotAllowed,
)
from galley.broker.pipeline import DENIED, FULL, NO_ROOM, Ack
from galley.errors import GalleyError, LaneNotEnabled, QueueFull, QueueNotFound
from galley.lanes import Lane
from galley.remembered import Remembered

_FIGURES_SECONDS: Final = 1.0
"""Age up to which the figures of a full queue are used: many refusals ask once."""


class Refusals:
    """Asks the broker why it stored nothing. One may be used by many at once, who ask once."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._figures: Remembered[dict[str, Any] | None] = Remembered(
            _FIGURES_SECONDS, lambda: asyncio.get_running_loop().time()
        )
        self._infos: Remembered[dict[str, Any] | None] = Remembered(0.0)

    async def check_lane(self, address: TaskAddress) -> None:
        """Raise if the queue or its lane is not there; return if the broker was merely not ready.

        Raises:
            QueueNotFound, LaneNotEnabled: if it is not.
            BrokerUnreachable: if the broker does not answer.
        """
        info = await self._info(topology.work_stream(address.namespace, address.queue))
        if info is None:
            raise QueueNotFound(address.namespace, address.queue)
        lanes = tuple(Lane(word) for word in info["config"]["metadata"][topology.LANES_KEY].split(","))
        if address.lane not in lanes:
            raise LaneNotEnabled(address.queue, address.lane, lanes)

    async def error(self, address: TaskAddress, ack: Ack) -> GalleyError:
        """Return the error for a refusal, with the figures of a quota that is used up if they can be had."""
        if ack.code != FULL:
            return refusal(address, ack)
        name = topology.work_stream(address.namespace, address.queue)
        info = await self._figures.get(name, partial(self._figures_of, name))
        quota = _quota_in(ack.problem)
        if info is None:
            return QueueFull(address.queue, quota)
        used, limit = ("messages", "max_msgs") if quota == "backlog" else ("bytes", "max_bytes")
        return QueueFull(address.queue, quota, info["state"][used], info["config"][limit])

    async def _figures_of(self, name: str) -> dict[str, Any] | None:
        with suppress(BrokerError):
            return await self._info(name)
        return None

    async def _info(self, name: str) -> dict[str, Any] | None:
        return await self._infos.get(name, partial(stream_info, self._broker, name))


def refusal(address: TaskAddress, ack: Ack) -> GalleyError:
    """Return the error for an answer that says that a task was not stored, without asking for figures."""
    if ack.code == FULL:
        return QueueFull(address.queue, _quota_in(ack.problem))
    if ack.code == DENIED:
        return NotAllowed(topology.task_subject(address))
    if ack.code in NO_ROOM:
        return BrokerFull(f"store task {address}", ack.code, ack.problem)
    return BrokerRefused(f"store task {address}", ack.code, ack.problem)


def given_up(broker: Broker, problem: str, patience_seconds: float) -> BrokerError:
    """Return the error for an answer that did not come for so long."""
    if broker.connected:
        return BrokerSilent(broker.server, problem, patience_seconds)
    return BrokerUnreachable(broker.server, problem)


def _quota_in(problem: str) -> str:
    """Return the field of `spec.limits` that the server's words are about."""
    return "backlog" if "messages" in problem else "backlogBytes"
