"""The queues of a namespace at a glance: what each has to do, and which of them need attention."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from galley.backlog import QueueBacklog, Unknown
from galley.broker.connection import Broker
from galley.broker.control import Pause, Supply, ask_supply
from galley.broker.errors import BrokerError
from galley.broker.queue_view import pauses_of
from galley_gateway.gateway import Gateway

SUPPLY_SECONDS: Final = 0.25
"""How long the page waits for what starts the workers. A queue whose answer is late shows none."""

_AT_ONCE: Final = 32
"""Queues whose lanes are looked at at a time."""


@dataclass(frozen=True, slots=True)
class Glance:
    """A queue in one line."""

    queue: str
    backlog: QueueBacklog | None
    """None if the broker does not tell."""
    supply: Supply | None
    """None if neither an operator nor `galley dev` answered in time."""

    @property
    def dead(self) -> int | None:
        """Dead letters it has; None if that is not known."""
        totals = self.backlog.totals if self.backlog is not None else None
        return totals.dead if totals is not None else None

    @property
    def ready(self) -> int | None:
        """Workers that take tasks; None if that is not known."""
        return self.supply.workers.get("ready") if self.supply is not None else None

    @property
    def paused_by(self) -> Sequence[str]:
        """All that keeps its tasks from being started although workers could run them."""
        if self.supply is not None and "desired" in self.supply.workers:
            # It hears of pauses at once; the lanes of an idle queue are not asked at each look.
            return pauses_of(paused=Pause.COMMAND in self.supply.paused_by, supply=self.supply)
        return pauses_of(paused=self.backlog is not None and self.backlog.paused, supply=self.supply)

    @property
    def problem(self) -> str:
        """Why its tasks do not run, or what is wrong with its scaling; empty if all is well."""
        if self.backlog is None:
            return "the broker does not tell what waits"
        if self.supply is None or self.paused_by:
            return ""
        return self.supply.problem or self.supply.scaling_problem


async def glances(gateway: Gateway, namespace: str) -> list[Glance]:
    """Return the queues of a namespace, by name.

    Raises:
        BrokerUnreachable, BrokerRefused: the broker does not tell which there are.
    """
    queues = await gateway.reader.queues(namespace)
    backlogs, supplies = await asyncio.gather(
        _backlogs(gateway, namespace, queues), _supplies(gateway.broker, namespace, queues)
    )
    return [
        Glance(queue, None if isinstance(backlog, Unknown) else backlog, supplies.get(queue))
        for queue, backlog in zip(queues, backlogs, strict=True)
    ]


async def _backlogs(gateway: Gateway, namespace: str, queues: Sequence[str]) -> list[QueueBacklog | Unknown]:
    found: list[QueueBacklog | Unknown] = []
    for some in (queues[first : first + _AT_ONCE] for first in range(0, len(queues), _AT_ONCE)):
        found += await asyncio.gather(*(gateway.reader.read(namespace, queue) for queue in some))
    return found


async def _supplies(broker: Broker, namespace: str, queues: Sequence[str]) -> Mapping[str, Supply]:
    """Return what starts the workers says of each queue, as far as it answers in time."""
    asked = {asyncio.ensure_future(ask_supply(broker, namespace, queue)): queue for queue in queues}
    if not asked:
        return {}
    try:
        answered, _ = await asyncio.wait(asked, timeout=SUPPLY_SECONDS)
    finally:
        for each in asked:
            each.cancel()
    found = {}
    for each in answered:
        try:
            supply = each.result()
        except BrokerError:
            continue
        if supply is not None:
            found[asked[each]] = supply
    return found
