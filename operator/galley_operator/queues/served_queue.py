"""A queue that the operator serves."""

import asyncio
from dataclasses import dataclass, field

from galley.resources import TaskQueueStatus
from galley_operator.credentials.client_tls import ClientTls
from galley_operator.events import Failures
from galley_operator.queues.reconcile import Reconciled
from galley_operator.queues.scaled_queue import ScaledQueue
from galley_operator.queues.scaling_condition import Interference
from galley_operator.tasks.known_queues import QueueObject


@dataclass(slots=True)
class ServedQueue:
    """One queue, what was last found of it, and who scales it."""

    found: QueueObject
    outcome: Reconciled | None = None
    """None before the first look has ended."""
    reconciled_at: float = float("-inf")
    """When it was reconciled last, by the loop's clock."""
    reconciled_with: ClientTls | None = None
    """What its workers need to encrypt connections, then."""
    dead_letters: int | None = None
    """How many there were at the last look; None if that is not known."""
    runtime: ScaledQueue | None = None
    scaling: asyncio.Task[None] | None = None
    written: TaskQueueStatus = field(default_factory=TaskQueueStatus)
    """The status on the cluster, as far as we know."""
    written_at: float = float("-inf")
    found_from: object = None
    """What `written` was found from: while the queue is at rest, the same gives the same."""
    write_again_at: float = float("-inf")
    """Before this, none is tried."""
    interference: Interference | None = None
    """What another client did to its Deployment."""
    failures: Failures = field(default_factory=lambda: Failures(None))

    @property
    def scaled(self) -> bool:
        """Whether its workers are scaled."""
        return self.runtime is not None
