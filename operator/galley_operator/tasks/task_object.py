"""A Task as the API server shows it, of which only what is needed is read."""

from datetime import datetime

import msgspec
from msgspec import Raw, Struct, field

from galley.lanes import Lane
from galley_operator.audit import USER_ANNOTATION


class _Annotations(Struct, frozen=True, gc=False):
    user: str = field(default="", name=USER_ANNOTATION)


class TaskMetadata(Struct, frozen=True, gc=False):
    """What is read of a Task's metadata."""

    name: str
    uid: str
    namespace: str = ""
    resource_version: str = field(default="", name="resourceVersion")
    generation: int = 0
    created: datetime | None = field(default=None, name="creationTimestamp")
    annotations: _Annotations | None = None
    labels: dict[str, str] | None = None


class _Condition(Struct, frozen=True, gc=False):
    type: str = ""
    reason: str = ""


class SeenProgress(Struct, frozen=True, gc=False):
    """What is read of the progress in a Task's status."""

    fraction: float | None = None
    note: str = ""


class SeenStatus(Struct, frozen=True, rename="camel"):
    """What is read of a Task's status."""

    phase: str = ""
    attempts: int = 0
    worker: str = ""
    progress: SeenProgress | None = None
    queued_time: datetime | None = None
    conditions: list[_Condition] = []


class TaskObject(Struct, frozen=True):
    """What is read of a Task."""

    metadata: TaskMetadata
    spec: Raw = Raw(b"{}")
    status: SeenStatus | None = None


class Route(Struct, frozen=True, rename="camel", gc=False):
    """Where a Task goes, and when."""

    queue_name: str = ""
    priority: str = Lane.NORMAL.value
    not_before: str = ""


_route = msgspec.json.Decoder(Route).decode


def route_of(spec: Raw) -> Route:
    """Return what a Task's spec says of its queue, lane and start; the defaults if it is not valid."""
    try:
        return _route(spec)
    except (msgspec.ValidationError, RecursionError):
        return Route()  # a look at the whole spec says what is wrong with it
