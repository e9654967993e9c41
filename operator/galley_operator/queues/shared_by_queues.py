"""SharedByQueues: what the queues of all namespaces share, such as the budget and the reader of backlogs."""

import asyncio
from typing import Final

from galley.broker.connection import Broker
from galley.broker.signals import SignalReader
from galley_operator.autoscaler.ledger import Ledger
from galley_operator.autoscaler.shares import Cost
from galley_operator.fleet.workloads import Queue
from galley_operator.queues.quota import Reservations
from galley_operator.settings import OperatorSettings

_AT_ONCE: Final = 4
"""Queues looked at side by side."""


class SharedByQueues:
    """What the queues of all namespaces share."""

    def __init__(self, broker: Broker, settings: OperatorSettings) -> None:
        self.reader = SignalReader(broker)
        self.ledger = Ledger(settings.budget) if settings.budget.limited else None
        self.reservations = Reservations(broker, settings.quotas)
        """For all who set bytes aside on NATS."""
        self.room = asyncio.Semaphore(_AT_ONCE)

    def leave(self, queue: Queue, left: Cost | None) -> bool:
        """Note that a queue is not scaled any more; returns whether its workers hold of the budget."""
        return self.ledger is not None and self.ledger.leave(queue, left)
