"""A TaskQueue as the API server has it."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from galley.resources import TaskQueue, TaskQueueStatus
from galley.resources.problem import explain, field_path
from galley_operator.errors import QueueInvalid

_METADATA = ("name", "namespace")
"""All that is read of it: labels and annotations are for others, and follow other rules."""


@dataclass(frozen=True, slots=True)
class QueueObject:
    """A TaskQueue with its identity and what was last found of it."""

    namespace: str
    name: str
    uid: str
    generation: int
    queue: TaskQueue | None
    """None if it cannot be understood."""
    problem: QueueInvalid | None = None
    """Why not."""
    status: TaskQueueStatus = field(default_factory=TaskQueueStatus)
    going: bool = False
    """Whether it was deleted, and only waits for what it owns to go before it."""

    @property
    def key(self) -> tuple[str, str]:
        """Its namespace and name."""
        return self.namespace, self.name


def read_queue(found: dict[str, Any]) -> QueueObject:
    """Return a TaskQueue from its object; one that cannot be understood says why."""
    metadata = found["metadata"]
    queue, problem = None, None
    try:
        queue = TaskQueue.model_validate(
            {
                "metadata": {key: metadata[key] for key in _METADATA},
                "spec": found.get("spec") or {},
            },
            by_alias=True,
            by_name=False,
        )
    except ValidationError as invalid:
        problem = QueueInvalid(metadata["name"], _in_words(invalid))
    return QueueObject(
        metadata["namespace"],
        metadata["name"],
        metadata["uid"],
        metadata.get("generation", 0),
        queue,
        problem,
        _status(found.get("status") or {}),
        going="deletionTimestamp" in metadata,
    )


def _status(found: dict[str, Any]) -> TaskQueueStatus:
    try:
        return TaskQueueStatus.model_validate(found, by_alias=True, by_name=False)
    except ValidationError:
        # Written by another version; what we find replaces it.
        return TaskQueueStatus()


def _in_words(invalid: ValidationError) -> str:
    problems = (explain(TaskQueue, error) for error in invalid.errors(include_url=False))
    return "; ".join(f"{field_path(place)}: {problem} ({hint})" for place, problem, hint in problems)
