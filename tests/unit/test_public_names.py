"""The names users import, and no others: each is a promise."""

import importlib
import pickle

import pytest

import galley
from galley.public_names import MODULES

PUBLIC = {
    "CacheUnusable", "File", "FileChanged", "FileElsewhere", "FileUnreadable", "ObjectDamaged", "ObjectError",
    "ObjectMissing", "ObjectStoreInvalid", "ObjectStoreUnavailable", "ObjectStoreUnknown", "ObjectsFull",
    "LabelInvalid", "SelectorInvalid", "AttemptOver", "CheckpointInvalid", "LogLine", "Progress",
    "ProgressInvalid", "AsyncQueues", "CancelIncomplete", "DrainTimeout", "QueueView", "Queues",
    "TaskSelection",
    "DecryptionKeyMissing", "EncryptionError", "EncryptionKeysInvalid", "EncryptionRequired",
    "KeyServiceUnavailable", "PayloadAltered", "PlaintextRefused", "QueueNotEncrypted",
    "AsyncDeadLetters", "DeadLetters", "DeadLetterNotFound", "DeadTask", "NotRedrivable",
    "RedriveIncomplete", "Redriven", "Selection",
    "AsyncSchedules", "CatchUp", "Overlap", "Repeat", "ScheduleChanged", "ScheduleInvalid",
    "ScheduleNotFound", "ScheduleTaken", "ScheduleView", "Schedules",
    "AccessRefused", "AsyncClient", "AsyncHandle", "BrokerError", "BrokerFull", "BrokerRefused",
    "BrokerSilent", "BrokerTooOld", "BrokerUnreachable", "Call", "Cancelled", "CertificateRefused",
    "Client", "ClientCertificateRefused", "ClientClosed", "ClientElsewhere", "ClientUnusable",
    "CredentialsExpired", "CredentialsInvalid", "CurrentTask", "FailureRule", "GalleyError", "Handle",
    "Handler",    "HandlerExists", "HandlerNameInvalid", "HandlerUnusable", "InputInvalid", "Invalid", "Lane",
    "LaneNotEnabled", "NonRetryable", "NotAllowed", "NotEncrypted", "Phase", "QueueFull",
    "QueueNameInvalid", "QueueNotFound", "Refused", "ResultMismatch", "ResultTimeout", "RetryAfter",
    "RetryPolicy", "Snooze", "SomeRefused", "SubmissionInvalid", "SubmitIncomplete", "SubmitInterrupted",
    "TaskCancelled", "TaskConflict", "TaskEnded", "TaskFailed", "TaskNotFound", "TaskStatus", "Tls",
    "TlsFailed", "TlsInvalid", "Unique", "UniqueConflict", "WaitsForOwnQueue",
    "WaitsInCircle", "When", "call", "connect", "current_task", "on", "on_start",
    "on_stop", "task",
    "AsyncListener", "AsyncTopics", "Event", "EventInvalid", "FilterInvalid", "HopLimit", "IdReserved",
    "Listener", "Published", "Replayed",
    "StoredEvent", "Subscribe", "TopicFull", "TopicNotFound", "TopicView", "Topics",
    "AsyncWorkflow", "AsyncWorkflows", "Graph", "OnFailure", "previous", "StepStatus", "Workflow",
    "WorkflowCancelled", "WorkflowConflict", "WorkflowFailed", "WorkflowInvalid", "WorkflowNotFailed",
    "WorkflowNotFound", "WorkflowStatus", "Workflows", "WorkflowsFull", "chain", "chord", "group", "then",
    "Batch", "current_batch",
}  # fmt: skip


def test_the_public_names_of_galley_are_these() -> None:
    assert set(galley.__all__) == PUBLIC


def test_every_public_name_is_there_and_described() -> None:
    undescribed = {name for name in galley.__all__ if not getattr(galley, name).__doc__}
    assert undescribed == set()


def test_public_names_are_in_alphabetical_order() -> None:
    assert galley.__all__ == sorted(galley.__all__)


def test_each_public_name_is_made_in_the_module_it_is_imported_from() -> None:
    assert set(galley.__all__) == MODULES.keys()
    for name, module in MODULES.items():
        assert getattr(galley, name) is getattr(importlib.import_module(module), name)


def test_a_star_imports_all_public_names() -> None:
    names: dict[str, object] = {}
    exec("from galley import *", names)  # a star is allowed in a module alone
    assert names.keys() - {"__builtins__"} == PUBLIC


def test_all_public_names_are_listed_before_they_are_imported() -> None:
    assert set(dir(galley)) >= PUBLIC


def test_what_is_imported_by_a_public_name_is_pickled_by_its_own_module() -> None:
    assert pickle.loads(pickle.dumps(galley.QueueFull)) is galley.QueueFull


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="module 'galley' has no attribute 'nothing'"):
        galley.nothing  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing' from 'galley'"):
        exec("from galley import nothing")
