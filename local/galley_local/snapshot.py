"""The state that `galley dev` shows."""

from dataclasses import dataclass
from datetime import datetime

from galley.backlog import LaneBacklog, QueueBacklog
from galley.lanes import Lane
from galley.task_status import TaskStatus
from galley_local.queue_runtime import QueueRuntime
from galley_operator.fleet.fleet import WorkerPhase, WorkerView


@dataclass(frozen=True)
class QueueSnapshot:
    """One queue with its backlog and its workers."""

    name: str
    lanes: tuple[LaneBacklog, ...]
    later: int
    workers: tuple[WorkerView, ...]
    wanted: int
    most: int
    reason: str
    problem: str

    @property
    def ready(self) -> int:
        """Number of workers that take tasks."""
        return sum(worker.phase is WorkerPhase.READY for worker in self.workers)

    @property
    def empty(self) -> tuple[Lane, ...]:
        """Lanes without tasks, as the scaler saw them last: it looks whenever one comes."""
        if self.later:
            return ()
        return tuple(lane.lane for lane in self.lanes if not (lane.waiting or lane.in_flight or lane.stale))


@dataclass(frozen=True)
class Snapshot:
    """The state at one time."""

    now: datetime
    server: str
    queues: tuple[QueueSnapshot, ...]
    tasks: tuple[TaskStatus, ...]
    note: str = ""
    """What Ctrl-C does."""
    passed_over: int = 0
    """Changes of tasks that are not among `tasks`, since there were too many at once; so far."""


async def of_queue(runtime: QueueRuntime) -> QueueSnapshot:
    """Return a queue as its scaler last saw it, with its current workers."""
    scaler = runtime.scaler
    force = await runtime.fleet.observe()
    backlog = await runtime.backlog()
    known = backlog if isinstance(backlog, QueueBacklog) else QueueBacklog(())
    return QueueSnapshot(
        name=runtime.queue.resource.metadata.name,
        lanes=known.lanes,
        later=known.later,
        workers=force.workers,
        wanted=scaler.last.desired if scaler.last is not None else 0,
        most=runtime.queue.resource.spec.scaled.most,
        reason=scaler.last.reason if scaler.last is not None else "not looked yet",
        problem=force.problem or runtime.scaling_problem,
    )
