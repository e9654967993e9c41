"""Everything that can go wrong for a producer, as one tree.

    GalleyError
    ├── Invalid            what was passed in can never work
    │   ├── ManifestInvalid    a manifest, with its line and field
    │   ├── InputInvalid       not JSON, or too large
    │   ├── SubmissionInvalid  a task's id, times or retries
    │   ├── LabelInvalid       a label of a task
    │   ├── SelectorInvalid    an expression that selects by labels
    │   ├── ScheduleInvalid    a cron line, time zone or rule of a schedule
    │   ├── EventInvalid       an event, or a rule of a topic or a subscription
    │   │   └── FilterInvalid      the filter of a subscription
    │   ├── ProgressInvalid    not a fraction from 0 to 1
    │   ├── CheckpointInvalid  not JSON, or too large
    │   ├── HandlerUnusable    `@task` on something a worker cannot run
    │   ├── HandlerNameInvalid
    │   ├── HandlerExists      two functions with one handler name
    │   ├── HandlersMissing    a queue without handlers
    │   ├── QueueNameInvalid
    │   ├── EnvelopeInvalid    bytes from the broker that Galley cannot read
    │   ├── ServerInvalid      not the address of a broker
    │   ├── CredentialsInvalid the credentials file cannot be used
    │   └── TlsInvalid         a file with certificates or a key cannot be used
    ├── Refused            the queue did not accept the task; nothing was stored
    │   ├── QueueNotFound
    │   ├── LaneNotEnabled
    │   ├── QueueFull
    │   ├── TopicFull
    │   ├── IdReserved         the id belongs to a tick of a schedule
    │   ├── ScheduleTaken      the name is that of a schedule that is declared elsewhere
    │   └── TaskConflict       the id is in use for another handler or input
    ├── SubmitIncomplete   (in galley.batch) `submit_many` did not store every task
    │   ├── SomeRefused        (a Refused, too)
    │   └── SubmitInterrupted
    ├── ClientUnusable     the client cannot be used here
    │   ├── ClientClosed
    │   └── ClientElsewhere    it belongs to another event loop, thread or process
    ├── AttemptOver        progress or a checkpoint of a task that does not run here any more
    ├── WaitsForOwnQueue   a handler waits for a task of its own queue
    ├── WaitsInCircle      a handler waits for a task of a queue it descends from
    ├── TaskEnded          what `result()` raises when there is no result
    │   ├── TaskFailed
    │   └── TaskCancelled
    ├── TaskNotFound
    ├── DeadLetterNotFound
    ├── ScheduleNotFound
    ├── TopicNotFound
    ├── HopLimit           a handler publishes, for an event that came of too many others
    ├── ScheduleChanged    others changed a schedule at the same moment, again and again
    ├── NotRedrivable      a dead letter that cannot run again as it is
    ├── RedriveIncomplete  some of many dead letters were not redriven
    ├── CancelIncomplete   some of many tasks were not cancelled
    ├── DrainTimeout       tasks of a drained queue still run
    ├── ResultTimeout
    ├── ResultMismatch     the result is not of the annotated type
    └── BrokerError            (in galley.broker.errors) the broker could not do what was asked

Each error carries `reason`, a constant for metrics and conditions; `hint`, what to do about it; and the
values it is about as typed attributes, which its constructor takes. All errors can be pickled. A traceback
shows the hint as a note.
"""

from galley.errors.invalid import (
    CheckpointInvalid,
    CredentialsInvalid,
    EnvelopeInvalid,
    EventInvalid,
    FilterInvalid,
    HandlerExists,
    HandlerNameInvalid,
    HandlersMissing,
    HandlerUnusable,
    InputInvalid,
    LabelInvalid,
    ManifestInvalid,
    ProgressInvalid,
    QueueNameInvalid,
    ScheduleInvalid,
    SelectorInvalid,
    ServerInvalid,
    SubmissionInvalid,
    TlsInvalid,
)
from galley.errors.of_handlers import (
    AttemptOver,
    NonRetryable,
    RetryAfter,
    Snooze,
    WaitsForOwnQueue,
    WaitsInCircle,
)
from galley.errors.of_requests import (
    CancelIncomplete,
    ClientClosed,
    ClientElsewhere,
    ClientUnusable,
    DeadLetterNotFound,
    DrainTimeout,
    HopLimit,
    NotRedrivable,
    RedriveIncomplete,
    ScheduleChanged,
    ScheduleNotFound,
    TaskNotFound,
    TopicNotFound,
)
from galley.errors.of_results import ResultMismatch, ResultTimeout, TaskCancelled, TaskEnded, TaskFailed
from galley.errors.refused import (
    IdReserved,
    LaneNotEnabled,
    QueueFull,
    QueueNotFound,
    ScheduleTaken,
    TaskConflict,
    TopicFull,
    UniqueConflict,
)
from galley.errors.tree import GalleyError, Invalid, Refused

__all__ = [
    "AttemptOver",
    "CancelIncomplete",
    "CheckpointInvalid",
    "ClientClosed",
    "ClientElsewhere",
    "ClientUnusable",
    "CredentialsInvalid",
    "DeadLetterNotFound",
    "DrainTimeout",
    "EnvelopeInvalid",
    "EventInvalid",
    "FilterInvalid",
    "GalleyError",
    "HandlerExists",
    "HandlerNameInvalid",
    "HandlerUnusable",
    "HandlersMissing",
    "HopLimit",
    "IdReserved",
    "InputInvalid",
    "Invalid",
    "LabelInvalid",
    "LaneNotEnabled",
    "ManifestInvalid",
    "NonRetryable",
    "NotRedrivable",
    "ProgressInvalid",
    "QueueFull",
    "QueueNameInvalid",
    "QueueNotFound",
    "RedriveIncomplete",
    "Refused",
    "ResultMismatch",
    "ResultTimeout",
    "RetryAfter",
    "ScheduleChanged",
    "ScheduleInvalid",
    "ScheduleNotFound",
    "ScheduleTaken",
    "SelectorInvalid",
    "ServerInvalid",
    "Snooze",
    "SubmissionInvalid",
    "TaskCancelled",
    "TaskConflict",
    "TaskEnded",
    "TaskFailed",
    "TaskNotFound",
    "TlsInvalid",
    "TopicFull",
    "TopicNotFound",
    "UniqueConflict",
    "WaitsForOwnQueue",
    "WaitsInCircle",
]

for _name in __all__:
    # Users name them, and pickles find them, as of this package, wherever they stand in it.
    globals()[_name].__module__ = __name__
