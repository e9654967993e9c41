"""What a queue's owner allows and asks of its scaling."""

from dataclasses import dataclass
from typing import Self

from galley.resources.task_queue import TaskQueue


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """Bounds and patience of one queue's scaling."""

    min_workers: int
    max_workers: int
    slots: int
    """Attempts one worker runs at the same time."""
    idle_seconds: float
    """For how long fewer workers must have sufficed before any is let go."""

    @classmethod
    def of(cls, queue: TaskQueue) -> Self:
        """Return the policy a TaskQueue asks for."""
        scaling = queue.spec.scaling
        return cls(
            min_workers=scaling.fewest,
            max_workers=scaling.most,
            slots=queue.spec.worker.concurrency,
            # Who says a number means it now; patience is for a number that follows the work.
            idle_seconds=scaling.idle_seconds if scaling.workers is None else 0,
        )

    def workers_for(self, tasks: int) -> int:
        """Return how many workers have a slot for each of so many tasks, whatever the bounds."""
        return -(-tasks // self.slots)

    def within(self, workers: int) -> int:
        """Return the nearest number of workers that the bounds allow."""
        return max(self.min_workers, min(workers, self.max_workers))
