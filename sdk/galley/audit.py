"""What an audit line contains: who did what to which queue and task, and when.

Which kind of writer a line is from is part of its subject, which the rights of the accounts of NATS enforce,
and the broker notes its time. `user` is a user of the API server in lines of the gateway and the operator. In
those of a client it is what the client says of itself.
"""

import getpass
import platform
from contextvars import ContextVar
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

USER_LENGTH: Final = 253
TASK_LENGTH: Final = 127
DETAIL_LENGTH: Final = 253


class Writer(StrEnum):
    """Who writes lines."""

    CLIENT = "client"
    """A program or a command with the credentials of a queue's manager."""
    GATEWAY = "gateway"
    OPERATOR = "operator"


class Action(StrEnum):
    """What is written down."""

    SUBMIT = "submit"
    CANCEL = "cancel"
    REDRIVE = "redrive"
    DROP = "drop"
    EDIT = "edit"
    PAUSE = "pause"
    RESUME = "resume"
    SCALE = "scale"
    DELETE = "delete"
    SCHEDULE = "schedule"
    RUN = "run"
    REPLAY = "replay"


class Actor(Struct, frozen=True):
    """On whose behalf this process acts."""

    writer: Writer
    user: str = ""
    origin: str = ""
    """Where the request came from: an address, or a host."""


class Entry(Struct, frozen=True, omit_defaults=True):
    """A line as it is stored."""

    action: Action
    user: Annotated[str, Meta(max_length=USER_LENGTH)] = ""
    origin: Annotated[str, Meta(max_length=USER_LENGTH)] = ""
    task: Annotated[str, Meta(max_length=TASK_LENGTH)] = ""
    """Id of the task, or name of the schedule or workflow; empty if it was about several, or the queue."""
    count: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    """How many tasks, if it was about several."""
    detail: Annotated[str, Meta(max_length=DETAIL_LENGTH)] = ""


class AuditLine(Struct, frozen=True):
    """A line as it is read."""

    at: datetime
    """When the broker stored it."""
    queue: str
    writer: Writer
    entry: Entry

    @property
    def attested(self) -> bool:
        """Whether `user` was named by the API server, and not by the client itself."""
        return self.writer is not Writer.CLIENT


def entry_of(
    actor: Actor, action: Action, task: str = "", count: int | None = None, detail: str = ""
) -> Entry:
    """Return a line, each field as long as it may be."""
    return Entry(
        action, actor.user[:USER_LENGTH], actor.origin[:USER_LENGTH], task[:TASK_LENGTH], count,
        detail[:DETAIL_LENGTH],
    )  # fmt: skip


acting: Final[ContextVar[Actor | None]] = ContextVar("acting", default=None)
"""On whose behalf requests are made; None is this program's own."""

encode: Final = msgspec.json.Encoder().encode
decode: Final = msgspec.json.Decoder(Entry).decode


def actor() -> Actor:
    """Return on whose behalf this process acts now."""
    return acting.get() or _own()


@cache
def _own() -> Actor:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        user = ""
    return Actor(Writer.CLIENT, user, platform.node())
