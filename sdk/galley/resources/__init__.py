"""The resources people write, as models; manifests are read into them."""

from galley.resources.condition import Condition, Truth
from galley.resources.declared_status import DeclaredFailure, DeclaredStatus
from galley.resources.manifest import parse_manifests, read_manifests
from galley.resources.meta import API_VERSION, DEFAULT_NAMESPACE, Metadata
from galley.resources.pod_template import (
    EnvironmentVariable,
    PodResources,
    PodTemplate,
    PullSecret,
    SecretKeyRef,
    TaintEffect,
    Toleration,
    TolerationOperator,
    ValueFrom,
)
from galley.resources.queue_status import LaneStatus, ScalingMode, TaskQueueStatus, WorkersStatus
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
)
from galley.resources.worker import Code, Worker

__all__ = [
    "API_VERSION",
    "DEFAULT_NAMESPACE",
    "Code",
    "Command",
    "Condition",
    "DeclaredFailure",
    "DeclaredStatus",
    "EnvironmentVariable",
    "Handlers",
    "InputAs",
    "LaneStatus",
    "Limits",
    "Metadata",
    "PodResources",
    "PodTemplate",
    "PullSecret",
    "Retention",
    "Retry",
    "Scaling",
    "ScalingMode",
    "SecretKeyRef",
    "TaintEffect",
    "Task",
    "TaskQueue",
    "TaskQueueSpec",
    "TaskQueueStatus",
    "TaskSpec",
    "Toleration",
    "TolerationOperator",
    "Truth",
    "ValueFrom",
    "Worker",
    "WorkersStatus",
    "parse_manifests",
    "read_manifests",
]
