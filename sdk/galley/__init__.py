"""Galley: a task queue that lives in Kubernetes. This is what producers and handlers import."""

import importlib
from typing import TYPE_CHECKING, Any

from galley.public_names import MODULES

if TYPE_CHECKING:
    from galley.batch import SomeRefused, SubmitIncomplete, SubmitInterrupted
    from galley.batching import Batch
    from galley.broker.cancel import Cancelled
    from galley.broker.errors import (
        AccessRefused,
        BrokerError,
        BrokerFull,
        BrokerRefused,
        BrokerSilent,
        BrokerTooOld,
        BrokerUnreachable,
        CertificateRefused,
        ClientCertificateRefused,
        CredentialsExpired,
        NotAllowed,
        NotEncrypted,
        TlsFailed,
    )
    from galley.broker.queue_view import QueueView
    from galley.broker.topics import Published, StoredEvent
    from galley.calls import Call, call
    from galley.client import AsyncClient, connect
    from galley.current import CurrentTask, current_batch, current_task
    from galley.dead_task import DeadTask, Selection
    from galley.encryption.errors import (
        DecryptionKeyMissing,
        EncryptionError,
        EncryptionKeysInvalid,
        EncryptionRequired,
        KeyServiceUnavailable,
        PayloadAltered,
        PlaintextRefused,
        QueueNotEncrypted,
    )
    from galley.errors import (
        AttemptOver,
        CancelIncomplete,
        CheckpointInvalid,
        ClientClosed,
        ClientElsewhere,
        ClientUnusable,
        CredentialsInvalid,
        DeadLetterNotFound,
        DrainTimeout,
        EventInvalid,
        FilterInvalid,
        GalleyError,
        HandlerExists,
        HandlerNameInvalid,
        HandlerUnusable,
        HopLimit,
        IdReserved,
        InputInvalid,
        Invalid,
        LabelInvalid,
        LaneNotEnabled,
        NonRetryable,
        NotRedrivable,
        ProgressInvalid,
        QueueFull,
        QueueNameInvalid,
        QueueNotFound,
        RedriveIncomplete,
        Refused,
        ResultMismatch,
        ResultTimeout,
        RetryAfter,
        ScheduleChanged,
        ScheduleInvalid,
        ScheduleNotFound,
        ScheduleTaken,
        SelectorInvalid,
        Snooze,
        SubmissionInvalid,
        TaskCancelled,
        TaskConflict,
        TaskEnded,
        TaskFailed,
        TaskNotFound,
        TlsInvalid,
        TopicFull,
        TopicNotFound,
        UniqueConflict,
        WaitsForOwnQueue,
        WaitsInCircle,
    )
    from galley.event import Event
    from galley.file import File
    from galley.handle import AsyncHandle
    from galley.handler import Handler, task
    from galley.hooks import on_start, on_stop
    from galley.lanes import Lane
    from galley.listener import AsyncListener
    from galley.note import LogLine, Progress
    from galley.objects.errors import (
        CacheUnusable,
        FileChanged,
        FileElsewhere,
        FileUnreadable,
        ObjectDamaged,
        ObjectError,
        ObjectMissing,
        ObjectsFull,
        ObjectStoreInvalid,
        ObjectStoreUnavailable,
        ObjectStoreUnknown,
    )
    from galley.queues import AsyncQueues, TaskSelection
    from galley.redrive import AsyncDeadLetters, Redriven
    from galley.repeat import CatchUp, Overlap, Repeat
    from galley.retry import FailureRule, RetryPolicy, on
    from galley.schedules import AsyncSchedules, ScheduleView
    from galley.sync_client import Client
    from galley.sync_handle import Handle
    from galley.sync_parts import DeadLetters, Listener, Queues, Schedules, Topics
    from galley.sync_workflows import Workflow, Workflows
    from galley.task_status import Phase, TaskStatus
    from galley.tls import Tls
    from galley.topic import Subscribe
    from galley.topics import AsyncTopics, Replayed, TopicView
    from galley.unique import Unique
    from galley.when import When
    from galley.workflow.continuation import then
    from galley.workflow.errors import (
        WorkflowCancelled,
        WorkflowConflict,
        WorkflowFailed,
        WorkflowInvalid,
        WorkflowNotFailed,
        WorkflowNotFound,
        WorkflowsFull,
    )
    from galley.workflow.result import previous
    from galley.workflow.shape import Graph, chain, chord, group
    from galley.workflow.state import OnFailure
    from galley.workflows import AsyncWorkflow, AsyncWorkflows, StepStatus, WorkflowStatus

__all__ = [
    "AccessRefused",
    "AsyncClient",
    "AsyncDeadLetters",
    "AsyncHandle",
    "AsyncListener",
    "AsyncQueues",
    "AsyncSchedules",
    "AsyncTopics",
    "AsyncWorkflow",
    "AsyncWorkflows",
    "AttemptOver",
    "Batch",
    "BrokerError",
    "BrokerFull",
    "BrokerRefused",
    "BrokerSilent",
    "BrokerTooOld",
    "BrokerUnreachable",
    "CacheUnusable",
    "Call",
    "CancelIncomplete",
    "Cancelled",
    "CatchUp",
    "CertificateRefused",
    "CheckpointInvalid",
    "Client",
    "ClientCertificateRefused",
    "ClientClosed",
    "ClientElsewhere",
    "ClientUnusable",
    "CredentialsExpired",
    "CredentialsInvalid",
    "CurrentTask",
    "DeadLetterNotFound",
    "DeadLetters",
    "DeadTask",
    "DecryptionKeyMissing",
    "DrainTimeout",
    "EncryptionError",
    "EncryptionKeysInvalid",
    "EncryptionRequired",
    "Event",
    "EventInvalid",
    "FailureRule",
    "File",
    "FileChanged",
    "FileElsewhere",
    "FileUnreadable",
    "FilterInvalid",
    "GalleyError",
    "Graph",
    "Handle",
    "Handler",
    "HandlerExists",
    "HandlerNameInvalid",
    "HandlerUnusable",
    "HopLimit",
    "IdReserved",
    "InputInvalid",
    "Invalid",
    "KeyServiceUnavailable",
    "LabelInvalid",
    "Lane",
    "LaneNotEnabled",
    "Listener",
    "LogLine",
    "NonRetryable",
    "NotAllowed",
    "NotEncrypted",
    "NotRedrivable",
    "ObjectDamaged",
    "ObjectError",
    "ObjectMissing",
    "ObjectStoreInvalid",
    "ObjectStoreUnavailable",
    "ObjectStoreUnknown",
    "ObjectsFull",
    "OnFailure",
    "Overlap",
    "PayloadAltered",
    "Phase",
    "PlaintextRefused",
    "Progress",
    "ProgressInvalid",
    "Published",
    "QueueFull",
    "QueueNameInvalid",
    "QueueNotEncrypted",
    "QueueNotFound",
    "QueueView",
    "Queues",
    "RedriveIncomplete",
    "Redriven",
    "Refused",
    "Repeat",
    "Replayed",
    "ResultMismatch",
    "ResultTimeout",
    "RetryAfter",
    "RetryPolicy",
    "ScheduleChanged",
    "ScheduleInvalid",
    "ScheduleNotFound",
    "ScheduleTaken",
    "ScheduleView",
    "Schedules",
    "Selection",
    "SelectorInvalid",
    "Snooze",
    "SomeRefused",
    "StepStatus",
    "StoredEvent",
    "SubmissionInvalid",
    "SubmitIncomplete",
    "SubmitInterrupted",
    "Subscribe",
    "TaskCancelled",
    "TaskConflict",
    "TaskEnded",
    "TaskFailed",
    "TaskNotFound",
    "TaskSelection",
    "TaskStatus",
    "Tls",
    "TlsFailed",
    "TlsInvalid",
    "TopicFull",
    "TopicNotFound",
    "TopicView",
    "Topics",
    "Unique",
    "UniqueConflict",
    "WaitsForOwnQueue",
    "WaitsInCircle",
    "When",
    "Workflow",
    "WorkflowCancelled",
    "WorkflowConflict",
    "WorkflowFailed",
    "WorkflowInvalid",
    "WorkflowNotFailed",
    "WorkflowNotFound",
    "WorkflowStatus",
    "Workflows",
    "WorkflowsFull",
    "call",
    "chain",
    "chord",
    "connect",
    "current_batch",
    "current_task",
    "group",
    "on",
    "on_start",
    "on_stop",
    "previous",
    "task",
    "then",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used.

    A process that only runs a handler, or declares one, needs neither the client nor what that imports, which
    would be most of the time it takes to start.
    """
    module = MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'galley' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(module), name)
    return found


def __dir__() -> list[str]:
    """Return the public names, imported or not, and the modules that are."""
    return sorted({*globals(), *__all__})
