"""What a look at a Task came to: the values that intake hands to the status, and to the order of looks."""

from enum import Enum
from typing import TypeAlias

from msgspec import Struct

from galley.record import Stored


class Until(Enum):
    """What has to happen before a Task is looked at again."""

    QUEUE_CHANGES = "its TaskQueue is made or changed"
    ROOM = "its queue takes tasks again"
    LATER = "a few seconds have passed"
    PAUSE = "a pause is over that grows with each failure"


class Pending(Struct, frozen=True):
    """The Task is not admitted yet."""

    reason: str
    """A constant in CamelCase: the reason of the Task's condition."""
    message: str
    """Why, as a sentence that says what to do."""
    until: Until


class Rejected(Struct, frozen=True):
    """The Task is never admitted: it has failed."""

    reason: str
    message: str


class Admitted(Struct, frozen=True):
    """The broker has the task."""


class Recorded(Struct, frozen=True):
    """The task has a record, which tells more."""

    stored: Stored


class AlreadyRan(Struct, frozen=True):
    """The work ran before the Task was made."""

    stored: Stored


class Unclear(Struct, frozen=True):
    """The broker has a task of that name, and it is still to be found out whose."""


class Gone(Struct, frozen=True):
    """The Task object is not there any more."""


Report: TypeAlias = Pending | Rejected | Admitted | Recorded | AlreadyRan | Unclear | Gone
