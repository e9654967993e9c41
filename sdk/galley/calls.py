"""Calls: a handler with its input, which is what programs submit."""

import functools
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from msgspec import Raw, Struct
from msgspec.structs import replace

from galley import file
from galley.bounds import is_handler_name, is_queue_name
from galley.cached import Cached
from galley.envelope import encode_input
from galley.errors import HandlerNameInvalid, QueueNameInvalid, SubmissionInvalid
from galley.file import File
from galley.lanes import Lane
from galley.reference import INLINE_LIMIT, LARGEST
from galley.retry import RetryPolicy
from galley.task_id import check_task_id
from galley.typed import Typed
from galley.unique import Asked, Unique, asked
from galley.when import When, timeout_of
from galley.workflow.result import Partial, split

R_co = TypeVar("R_co", covariant=True)


class Call(Struct, Generic[R_co], frozen=True, gc=False):
    """A handler with its input: what `AsyncClient.submit` takes. `R_co` is what the result will be."""

    queue: str
    handler: str
    input: Raw
    result: Typed | None = None
    """What the handler's annotation says of its result; None if nothing."""
    lane: Lane | None = None
    """That of `@task(lane=...)`."""
    unique: Unique | None = None
    """That of `@task(unique=...)`."""
    rules: When | None = None
    """Those of `options`."""
    task_id: str | None = None
    labels: dict[str, str] | None = None
    """Those of `@task(labels=...)`."""
    files: tuple[File, ...] = ()
    """Those in the input."""
    large: bool = False
    """Whether the input is too large to travel with the task."""
    cache: Cached | None = None
    """Those of `@task(cache=..., version=...)`."""
    partial: Partial | None = None
    """What it lacks as a step of a workflow; None if it can be a task by itself."""
    key: str | None = None
    """That of `@task(key=...)`."""
    keyless: str = ""
    """Why it lacks that key, which is made of the result of another step; empty if it does not."""

    def on(self, queue: str) -> "Call[R_co]":
        """Return the same call for another queue, if its handler does not name one.

        Raises:
            QueueNameInvalid: if there can be no such queue.
        """
        return replace(self, queue=check_queue_name(queue))

    def options(
        self, *, task_id: str | None = None, lane: Lane | str | None = None,
        not_before: datetime | None = None, deadline: datetime | None = None,
        timeout: float | timedelta | None = None, timeout_seconds: float | None = None,
        retry: RetryPolicy | None = None, labels: dict[str, str] | None = None,
        unique: Asked | None = None, key: str | None = None,
    ) -> "Call[R_co]":  # fmt: skip
        """Return the same call with its own rules; omitted ones stay as they were.

        They take precedence over the rules passed to `submit`, those over `@task`, and those over the
        queue.

        Args:
            task_id: an id of your own; see `AsyncClient.submit`.
            lane: one of `critical`, `high`, `normal`, `low`.
            not_before: earliest start; a time with its offset from UTC.
            deadline: time after which it is not started any more, and a running attempt is stopped.
            timeout: time one attempt may take, in seconds or as a `timedelta`.
            timeout_seconds: the same in seconds, by the name it has in `galley.When` and in a manifest.
            retry: how often, and after which pauses, it is tried again.
            labels: words to find it by, with the syntax of Kubernetes; added to those it has.
            unique: at most one task has its key at a time: a key, `galley.Unique(...)`, True for a key made
                of handler and input, or False.
            key: tasks of one key take turns with those of others, and the queue may limit them; see
                `AsyncClient.submit`.

        Raises:
            SubmissionInvalid, LabelInvalid: if no task can have them.
        """
        rules = When(
            lane, not_before, deadline, timeout_of(timeout, timeout_seconds), retry, labels,  # type: ignore[arg-type]
            asked(unique), key,
        )  # fmt: skip
        chosen = self.task_id if task_id is None else check_task_id(task_id)
        return replace(self, rules=rules.over(self.rules), task_id=chosen)

    def key_under(self, rules: When) -> str:
        """Return the key its task has under these rules; empty if it has none.

        Raises:
            SubmissionInvalid: the key is made of what another step returns.
        """
        if rules.key is not None:
            return rules.key
        if self.keyless:
            raise SubmissionInvalid(
                "key", f"that of {self.handler!r} {self.keyless}", "give it with call.options(key=...)"
            )
        return self.key or ""


def call(queue: str, handler: str, /, **arguments: Any) -> Call[Any]:
    """Return a call of a handler that is known by name only, such as a command of the queue.

    Raises:
        QueueNameInvalid, HandlerNameInvalid: if there can be no such queue or handler.
        InputInvalid: if the arguments cannot be encoded as JSON or are too large.
    """
    check_handler_name(handler)
    before = file.encoded
    known, holes = split(arguments)
    encoded = encode_input(handler, known, LARGEST)
    files = () if file.encoded == before else file.files_in(encoded)
    return Call(
        check_queue_name(queue), handler, encoded, files=files, large=len(encoded) > INLINE_LIMIT,
        partial=Partial(holes=holes) if holes else None,
    )  # fmt: skip


@functools.lru_cache
def check_queue_name(name: str) -> str:
    """Return `name` if a TaskQueue can have it; it becomes a part of subjects.

    Raises:
        QueueNameInvalid: if not.
    """
    if not is_queue_name(name):
        raise QueueNameInvalid(str(name))
    return name


@functools.lru_cache
def check_handler_name(name: str) -> str:
    """Return `name` if a task may carry it.

    Raises:
        HandlerNameInvalid: if not.
    """
    if not is_handler_name(name):
        raise HandlerNameInvalid(str(name))
    return name
