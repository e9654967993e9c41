"""Galley: a task queue that lives in Kubernetes. This is what producers and handlers import."""

from galley.broker.cancel import Cancelled
from galley.client import Client, SomeRefused, When, connect
from galley.errors import (
    BrokerError,
    BrokerFull,
    BrokerRefused,
    BrokerSilent,
    BrokerTooOld,
    BrokerUnreachable,
    GalleyError,
    InputInvalid,
    Invalid,
    LaneNotEnabled,
    QueueFull,
    QueueNotFound,
    Refused,
    ResultTimeout,
    SubmissionInvalid,
    TaskCancelled,
    TaskEnded,
    TaskFailed,
    TaskNotFound,
)
from galley.handle import Handle
from galley.handler import Call, Handler, NonRetryable, call, task
from galley.lanes import Lane
from galley.retry import RetryPolicy
from galley.task_status import Phase, TaskStatus

__all__ = [
    "BrokerError",
    "BrokerFull",
    "BrokerRefused",
    "BrokerSilent",
    "BrokerTooOld",
    "BrokerUnreachable",
    "Call",
    "Cancelled",
    "Client",
    "GalleyError",
    "Handle",
    "Handler",
    "InputInvalid",
    "Invalid",
    "Lane",
    "LaneNotEnabled",
    "NonRetryable",
    "Phase",
    "QueueFull",
    "QueueNotFound",
    "Refused",
    "ResultTimeout",
    "RetryPolicy",
    "SomeRefused",
    "SubmissionInvalid",
    "TaskCancelled",
    "TaskEnded",
    "TaskFailed",
    "TaskNotFound",
    "TaskStatus",
    "When",
    "call",
    "connect",
    "task",
]
