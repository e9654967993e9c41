"""LeftWorkers: workers whose queue is not scaled; they hold their part of the budget until they are gone."""

import logging
from collections.abc import Mapping

from galley_operator.autoscaler.left import left_of
from galley_operator.errors import FleetUnknown
from galley_operator.fleet.workloads import Queue, Workloads
from galley_operator.queues.served_queue import ServedQueue
from galley_operator.queues.shared_by_queues import SharedByQueues

log = logging.getLogger(__name__)


class LeftWorkers:
    """Those of queues that are gone, or cannot be understood."""

    def __init__(
        self,
        workloads: Workloads,
        shared: SharedByQueues,
        namespaces: tuple[str | None, ...],
        served: Mapping[Queue, ServedQueue],
    ) -> None:
        """Describe where to look.

        Args:
            workloads: the pods.
            shared: what has the budget.
            namespaces: whose workers; None is all.
            served: the queues that are served; one that is scaled tells itself what it has.
        """
        self.queues: set[Queue] = set()
        """Queues that are not scaled, and of whose workers some may be there."""
        self.counted = shared.ledger is None
        """Whether it was seen, since the start, which those are; nothing has to be without a budget."""
        self._workloads, self._shared = workloads, shared
        self._namespaces, self._served = namespaces, served

    def count(self) -> None:
        """Look which there are, and what they hold."""
        if self._shared.ledger is None:
            return
        try:
            for namespace in self._namespaces:
                self.queues |= self._workloads.queues_in(namespace)
        except FleetUnknown:
            log.debug("workers of queues that are gone not counted yet")
        else:
            self.counted = True
        for key in list(self.queues):
            self.add(key)

    def add(self, key: Queue) -> None:
        """Give back what a queue that is not scaled holds of the budget, less its workers that are there."""
        self.queues.add(key)
        served = self._served.get(key)
        if served is not None and served.scaled:
            self.queues.discard(key)
            return
        try:
            left = left_of(self._workloads.pods_of(key))
        except FleetUnknown:
            left = None
        if not self._shared.leave(key, left):
            self.queues.discard(key)
