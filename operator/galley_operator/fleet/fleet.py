"""What the autoscaler may see of a queue's workers, and what it may ask for."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class WorkerPhase(StrEnum):
    """Where a worker stands in its life."""

    STARTING = "starting"
    """Asked for, and not yet taking tasks."""
    READY = "ready"
    """Takes tasks."""
    DRAINING = "draining"
    """Takes no new tasks, by its own word: asked-for drains that it has not confirmed do not count."""
    STOPPING = "stopping"
    """Told to end for good; no longer one of the fleet's number."""
    FAILED = "failed"
    """Ended by itself, or did not come up. The fleet starts it again with growing pauses, and it stays
    `failed` all that time, until it is ready."""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker as it was seen."""

    name: str
    phase: WorkerPhase
    busy: int | None
    """Attempts it runs; None when it has not said so lately, which is not the same as 0."""
    slots: int
    since: datetime
    """When it was started (not when its phase began): among equals the youngest goes first."""
    done: int = 0
    """Attempts that ended since its process began, as last heard."""
    busy_seconds: float = 0.0
    """Seconds that its slots were busy since then, all together, as last heard."""
    circuit_open: bool = False
    """Whether it takes no tasks, or a single one to try, since its attempts all failed; as last heard."""
    heard: datetime | None = None
    """When it last said so; None if that makes no difference, since it is seen as it is."""


@dataclass(frozen=True, slots=True)
class Workforce:
    """All workers of one queue at one moment."""

    workers: tuple[WorkerView, ...] = ()
    problem: str = ""
    """Why workers do not come up, as a sentence for people, such as
    "module thumbs does not import: No module named 'PIL'"; empty if they do."""
    replacing: bool = False
    """Whether newer ones come up beside those there are, and take their places one by one. No worker is
    drained meanwhile: the others wait for a newer one to be ready."""

    @property
    def present(self) -> tuple[WorkerView, ...]:
        """The workers the number given to `Fleet.scale` counts: all but those stopping."""
        return tuple(worker for worker in self.workers if worker.phase is not WorkerPhase.STOPPING)


def removable(worker: WorkerView) -> bool:
    """Whether removing a worker interrupts no task: it is drained, or has failed."""
    drained = worker.phase is WorkerPhase.DRAINING and worker.busy == 0
    return drained or worker.phase is WorkerPhase.FAILED


class Fleet(Protocol):
    """The workers of one queue: how many there are, which they are, which shall take no more tasks.

    What holds for every fleet, and is checked by `tests/conformance/fleet.py`:

    - It keeps the number it was last told. A worker that dies is started again, at once the first
      time, then with growing pauses (at most half a minute) as long as it keeps dying.
    - It starts at once and removes only what `removable` allows; `scale` interrupts no task.
    - A worker that is removed ends by the same drain as one that gets SIGTERM: should a task slip in
      between, it is finished within the grace period or handed back.
    - The three methods may be called at any time and concurrently, never wait for a worker to come up
      or to end, and return within a few seconds or raise.
    """

    async def observe(self) -> Workforce:
        """Return the workers as they are now, stopping ones included until they are gone.

        A worker asked for by `scale` is seen from the moment `scale` returns, as `starting`.

        Raises:
            FleetUnknown: if that cannot be told. An empty workforce always means that there are no workers.
        """
        ...

    async def scale(self, workers: int) -> None:
        """Have so many workers: `Workforce.present` is what counts, draining and failed ones too.

        More than present: the missing ones are started. Fewer: failed ones go first, then drained
        ones, the youngest first. Asking for the number there is changes nothing.

        Args:
            workers: 0 or more. The bounds of the queue are the caller's business.

        Raises:
            FleetRefused: if too few are removable; then none was removed.
        """
        ...

    async def drain(self, names: Collection[str], seconds: float) -> None:
        """Ask workers to take no new tasks; what they run they finish.

        The drain is a lease: it ends by itself after `seconds`, and asking again renews it, so that a
        worker whose drainer has died goes back to work. Each worker confirms in its phase, within a few
        seconds. Unknown names are ignored: that worker has ended meanwhile.

        Args:
            names: of `WorkerView.name`; none drains nothing.
            seconds: how long from now; 0 ends the drain.
        """
        ...
