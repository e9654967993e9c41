"""Where a task lives: namespace, queue and id name it, whichever command submitted it."""

from enum import StrEnum

from msgspec import Struct

from galley.lanes import Lane


class Kind(StrEnum):
    """A word of every subject of a task, which has one value for all tasks today."""

    DECLARED = "k8s"
    """Of Task objects that an operator before 0.2 admitted: their id is the object's uid."""
    DIRECT = "sdk"
    """Of all other tasks."""
    TURN = "turn"
    """Of no task: it has a worker look at the tasks that wait under a key, whose digest is its id."""


class TaskAddress(Struct, frozen=True, gc=False):
    """Names one task: no other has the same namespace, queue and id. The lane is where it waits."""

    namespace: str
    queue: str
    lane: Lane
    kind: Kind
    id: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.queue}/{self.id}"
