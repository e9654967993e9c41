"""The resources people write, as models; manifests are read into them."""

from galley.resources.manifest import parse_manifests, read_manifests
from galley.resources.meta import API_VERSION, DEFAULT_NAMESPACE, Metadata
from galley.resources.task import Task, TaskSpec
from galley.resources.task_queue import (
    Command,
    Handlers,
    InputAs,
    Limits,
    Retention,
    Retry,
    Scaling,
    TaskQueue,
    TaskQueueSpec,
    Worker,
)

__all__ = [
    "API_VERSION",
    "DEFAULT_NAMESPACE",
    "Command",
    "Handlers",
    "InputAs",
    "Limits",
    "Metadata",
    "Retention",
    "Retry",
    "Scaling",
    "Task",
    "TaskQueue",
    "TaskQueueSpec",
    "TaskSpec",
    "Worker",
    "parse_manifests",
    "read_manifests",
]
