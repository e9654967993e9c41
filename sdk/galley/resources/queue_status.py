"""The status of a TaskQueue: what the operator found, and when."""

from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from galley.lanes import Lane
from galley.resources.condition import Condition
from galley.resources.meta import Number, Part, Whole
from galley.resources.rule import keyed_by

_MOST = 2**53 - 1

Count = Annotated[Whole, Field(ge=0, le=_MOST)]
"""How many there are."""


class LaneStatus(Part):
    """The work in one lane."""

    name: Lane
    """The lane."""

    waiting: Count = 0
    """Tasks that wait for a free slot."""

    in_flight: Count = 0
    """Tasks that workers hold, nearly all of them running."""


class ScalingMode(StrEnum):
    """What decides on the number of workers."""

    AUTOMATIC = "Automatic"
    """The work that waits and runs."""
    FIXED = "Fixed"
    """`spec.scaling.workers`."""
    PAUSED = "Paused"
    """`spec.scaling.workers`, which is 0."""


class WorkersStatus(Part):
    """The workers of a queue."""

    ready: Count = 0
    """Workers that take tasks."""

    desired: Count = 0
    """Desired number of workers."""

    replicas: Count = 0
    """Pods of workers, in any state."""

    selector: str = Field("", max_length=256)
    """Label selector of those pods, as text."""


class ScalingLimit(StrEnum):
    """What keeps the number of workers from what the work needs."""

    NONE = "None"
    """Nothing: there are as many as are needed."""
    MAX_WORKERS = "MaxWorkers"
    """`spec.scaling.maxWorkers`."""
    MIN_WORKERS = "MinWorkers"
    """`spec.scaling.minWorkers`: the work needs fewer."""
    STEP = "Step"
    """More come in the next seconds."""
    FIXED = "Fixed"
    """`spec.scaling.workers`."""
    BUDGET = "Budget"
    """The budget that all queues share."""
    SIGNALS = "Signals"
    """The backlog or the workers are not known, and nothing is changed."""


class ScalingStatus(Part):
    """What the number of workers was decided from. An operator that restarts continues with it."""

    needed: Count | None = None
    """Workers that the tasks need, before limits are applied; left out while it is not known."""

    limit: ScalingLimit = ScalingLimit.NONE
    """What limits the number of workers: `None`, `MaxWorkers`, `MinWorkers`, `Step`, `Fixed`, `Budget`
    or `Signals`."""

    arrivals_per_second: Annotated[Number, Field(ge=0, le=1e9)] | None = None
    """Tasks that become due in a second."""

    task_seconds: Annotated[Number, Field(ge=0, le=1e9)] | None = None
    """Seconds a task takes of a slot, on average; left out until five tasks have ended."""

    start_seconds: Annotated[Number, Field(ge=0, le=1e9)] | None = None
    """Seconds a worker took to start lately; left out until one was seen to start."""

    steady_tasks: Count | None = None
    """Tasks that came at a rate that nothing contradicted, up to 130; left out while there are none."""

    pause_worth: Annotated[Number, Field(ge=-1, le=1)] | None = None
    """What keeping workers through the last pauses saved, from -1 to 1, in parts of the longest pause for
    which that pays: twice a worker's start, from 10 to 30 seconds, or a start if that takes longer. Below 0
    they go at once. Left out until a pause was seen, and where `idleSeconds` is set."""


class TaskQueueStatus(Part):
    """State of a queue as last observed. Figures are up to a few seconds old."""

    observed_generation: Count | None = None
    """Generation of the queue that was observed last."""

    conditions: tuple[Condition, ...] = Field((), max_length=16, json_schema_extra=keyed_by("type"))
    """Conditions of the queue; `Ready` says whether its tasks can run, and if not, why."""

    waiting: Count | None = None
    """Tasks that wait for a free slot, in all lanes; left out while it is not known."""

    in_flight: Count | None = None
    """Tasks that workers hold, in all lanes, nearly all of them running."""

    later: Count | None = None
    """Tasks for a later time, and those that wait for their next attempt."""

    oldest_waiting_time: AwareDatetime | None = None
    """Time at which the task that waits longest began to wait."""

    lanes: tuple[LaneStatus, ...] = Field((), max_length=4, json_schema_extra=keyed_by("name"))
    """The work in each lane, highest first."""

    workers: WorkersStatus | None = None
    """The workers: how many there are, and how many there should be."""

    dead_letters: Count | None = None
    """Tasks that will not be tried again and are kept with their history."""

    scaling_mode: ScalingMode | None = None
    """What decides on the number of workers: `Automatic`, the work; `Fixed`, `spec.scaling.workers`;
    `Paused`, `spec.scaling.workers` is 0."""

    scaling: ScalingStatus | None = None
    """What the number of workers was decided from."""

    scaling_reason: str = Field("", max_length=1024)
    """Why the queue has the workers it has, as a sentence."""
