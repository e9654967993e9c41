"""Where a task lives: the five words that name it everywhere."""

from enum import StrEnum
from typing import NamedTuple

from galley.lanes import Lane


class Kind(StrEnum):
    """How a task came to be, which decides who reads its outcome."""

    DECLARED = "k8s"
    """A custom resource; the operator writes the outcome into its status."""
    DIRECT = "sdk"
    """Submitted straight to the broker; only its producer asks for the outcome."""


class TaskAddress(NamedTuple):
    """Names one task: no other has the same namespace, queue, kind and id. The lane is its road."""

    namespace: str
    queue: str
    lane: Lane
    kind: Kind
    id: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.queue}/{self.id}"
