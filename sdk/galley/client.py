"""The producer's side: submit tasks, and hold on to them."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec import Struct

from galley import dev_file
from galley.address import Kind, TaskAddress
from galley.batch import Batch, SubmitInterrupted
from galley.bounds import ATTEMPTS, BACKOFF_SECONDS, CRASHES, TIMEOUT_SECONDS, Range, is_queue_name
from galley.broker.connection import DEFAULT_SERVER, Broker
from galley.broker.publish import Publisher
from galley.envelope import Envelope, digest_of, in_range
from galley.errors import SubmissionInvalid
from galley.handle import Handle
from galley.handler import Call, check_handler_name, check_queue_name
from galley.lanes import HIGHEST_FIRST, Lane
from galley.retry import RetryPolicy
from galley.target import (
    CREDENTIALS_VARIABLE,
    DEFAULT_NAMESPACE,
    NAMESPACE_VARIABLE,
    Target,
    find_target,
)
from galley.task_id import check_task_id, new_task_id

R = TypeVar("R")

LONGEST_TIMEOUT_SECONDS: Final = float(TIMEOUT_SECONDS.most)
"""Of one attempt: a day, as in a TaskQueue."""

_ANY_TIMEOUT: Final = Range(0, TIMEOUT_SECONDS.most)


class When(Struct, frozen=True):
    """The rules a task is submitted under; None means the queue's own."""

    lane: Lane = Lane.NORMAL
    not_before: datetime | None = None
    """Earliest start; a time with its offset from UTC."""
    deadline: datetime | None = None
    """Time after which the task is not started any more, and a running attempt is killed."""
    timeout_seconds: float | None = None
    """Time one attempt may take."""
    retry: RetryPolicy | None = None

    def __post_init__(self) -> None:
        """Refuse rules under which no task can run.

        Raises:
            SubmissionInvalid: naming the field, and what it may be.
        """
        if self.lane not in HIGHEST_FIRST:
            raise SubmissionInvalid("lane", repr(self.lane), f"use one of {', '.join(HIGHEST_FIRST)}")
        _check_time("not_before", self.not_before)
        _check_time("deadline", self.deadline)
        if self.not_before is not None and self.deadline is not None and self.deadline <= self.not_before:
            raise SubmissionInvalid(
                "deadline", "it is not after not_before", "set a later deadline, or an earlier not_before"
            )
        if self.timeout_seconds is not None and not (
            _ANY_TIMEOUT.holds(self.timeout_seconds) and self.timeout_seconds > 0
        ):
            raise SubmissionInvalid(
                "timeout_seconds", f"{self.timeout_seconds!r} s", "use more than 0 and at most a day"
            )
        if self.retry is not None:
            _check_retry(self.retry)


def _check_time(name: str, moment: datetime | None) -> None:
    if moment is None:
        return
    if moment.utcoffset() is None:
        raise SubmissionInvalid(
            name, "the time has no offset from UTC", "pass an aware datetime, such as datetime.now(UTC)"
        )
    if not in_range(moment):
        raise SubmissionInvalid(name, moment.isoformat(), "use a time between the years 1970 and 9998")


def _check_retry(retry: RetryPolicy) -> None:
    for name, bounds, kinds in (
        ("attempts", ATTEMPTS, int),
        ("crashes", CRASHES, int),
        ("backoff_seconds", BACKOFF_SECONDS, int | float),
        ("max_backoff_seconds", BACKOFF_SECONDS, int | float),
    ):
        value = getattr(retry, name)
        if not isinstance(value, kinds) or not bounds.holds(value):
            raise SubmissionInvalid(f"retry.{name}", repr(value), f"use {bounds}; 1 attempt means no retry")


class Client:
    """Submits tasks to the queues of one namespace and finds them again."""

    def __init__(
        self, broker: Broker, namespace: str = DEFAULT_NAMESPACE, patience_seconds: float = 30.0
    ) -> None:
        """Make a client of an open connection.

        Args:
            broker: the connection.
            namespace: the one whose queues it submits to.
            patience_seconds: how long a submit is tried again while the broker gives no answer.

        Raises:
            SubmissionInvalid: if there can be no such namespace.
        """
        if not is_queue_name(namespace):
            raise SubmissionInvalid(
                "namespace", f"{namespace[:80]!r} is not the name of a namespace",
                "use 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit",
            )  # fmt: skip
        self.broker = broker
        self.namespace = namespace
        self._publisher = Publisher(broker, patience_seconds)

    async def submit(
        self, call: Call[R], when: When | None = None, *, task_id: str | None = None
    ) -> Handle[R]:
        """Submit one task and return when the broker has it on disk.

        Args:
            call: the handler and its input, from `handler.call(...)` or `galley.call(...)`.
            when: lane, times and retries; the queue's own by default.
            task_id: an id of your own, 1 to 64 characters of A-Z, a-z, 0-9, `_` and `-`. The same handler and
                input under the same id is the same task, waiting, running or ended: it is not stored again,
                `handle.existed` is true, the handle leads to its outcome, and lane, times and retries stay
                those of the first submission. An id is remembered until the record of its task expires
                (`spec.retention.resultsSeconds` after its end); then it can be used again.

        Raises:
            TaskConflict: the id is in use for another handler or another input; nothing was stored. If two
                such submissions meet at the same moment, or the record of a task that ended does not have
                its input, it is raised by `handle.result()` or not at all.
            QueueNotFound, LaneNotEnabled, QueueFull: not accepted.
            SubmissionInvalid: the id or the times are not valid.
            BrokerUnreachable, BrokerSilent: no answer; submitting the same id again is safe.
            BrokerFull: the broker has no room; nothing was stored.
            NotAllowed: the credentials are of another queue or role.
            ClientClosed, ClientElsewhere: the client is closed, or belongs to another event loop.
        """
        address, envelope = self._task(call, when or When(), task_id)
        publish = self._publisher.publish if task_id is None else self._publisher.publish_once
        try:
            receipt = await publish(address, envelope)
        except asyncio.CancelledError as cancelled:
            unknown: dict[int, Handle[Any]] = {0: Handle(self.broker, address, envelope)}
            cancelled.__cause__ = SubmitInterrupted({}, {}, unknown, 1, "it was cancelled")
            raise
        return Handle(self.broker, receipt.address, envelope, existed=receipt.duplicate)

    async def submit_many(self, calls: Iterable[Call[R]], when: When | None = None) -> list[Handle[R]]:
        """Submit many tasks as fast as the broker takes them; returns when it has them all on disk.

        Raises:
            SomeRefused: if any was not accepted; it holds the handles of those that were, and for each of
                the others what `submit` would have raised.
            SubmitInterrupted: if it ended early, because `calls` raised or the broker went away; it holds
                the handles of all that were sent. If it is cancelled or times out, `CancelledError` or
                `TimeoutError` is raised as usual, and `SubmitInterrupted.of(error)` returns this one.
            ClientClosed, ClientElsewhere: the client is closed, or belongs to another event loop.
        """
        self.broker.check_usable()
        return await self._batch(when).submit(calls)

    def _batch(self, when: When | None) -> Batch[Any]:
        rules = when or When()

        def handle(address: TaskAddress, envelope: Envelope) -> Handle[Any]:
            return Handle(self.broker, address, envelope)

        return Batch(self._publisher, lambda call: self._task(call, rules, None), handle)

    def handle(self, queue: str, task_id: str) -> Handle[Any]:
        """Return a handle on a task submitted earlier, by this or another program.

        Raises:
            SubmissionInvalid, QueueNameInvalid: if no task can have that id, or no queue that name.
        """
        check_queue_name(queue)
        address = TaskAddress(self.namespace, queue, Lane.NORMAL, Kind.DIRECT, check_task_id(task_id))
        return Handle(self.broker, address, None)

    def _task(self, call: Call[R], when: When, task_id: str | None) -> tuple[TaskAddress, Envelope]:
        check_queue_name(call.queue)
        check_handler_name(call.handler)
        now = datetime.now(UTC)
        chosen = new_task_id() if task_id is None else check_task_id(task_id)
        return (
            TaskAddress(self.namespace, call.queue, when.lane, Kind.DIRECT, chosen),
            Envelope(
                call.handler,
                now,
                input=call.input,
                not_before=when.not_before if when.not_before and when.not_before > now else None,
                deadline=when.deadline,
                timeout_seconds=when.timeout_seconds,
                retry=when.retry,
                digest="" if task_id is None else digest_of(call.handler, call.input),
            ),
        )


@asynccontextmanager
async def connect(
    server: str | None = None, namespace: str | None = None, *, credentials: Path | None = None
) -> AsyncIterator[Client]:
    """Open a client: `async with galley.connect() as client: ...`.

    Args:
        server: address of NATS; else `GALLEY_SERVER`, else the `galley dev` that runs in this folder or one
            above it, else `nats://127.0.0.1:4222`.
        namespace: the one whose queues it submits to; else `GALLEY_NAMESPACE`, else that of the `galley dev`
            it connects to, else `default`.
        credentials: credentials file; else `GALLEY_CREDENTIALS`, else none. It is read again at each
            reconnection, so it can be renewed while the client is open.

    Raises:
        BrokerUnreachable, BrokerTooOld, ServerInvalid: there is no usable broker.
        CredentialsInvalid, CredentialsExpired, AccessRefused: authentication failed.
    """
    target = _nearest_target(server, namespace)
    if credentials is None and not target.local and (named := os.environ.get(CREDENTIALS_VARIABLE)):
        credentials = Path(named)
    async with Broker(target.server, name="galley client", credentials=credentials) as broker:
        yield Client(broker, target.namespace)


def _nearest_target(server: str | None, namespace: str | None) -> Target:
    nearest = dev_file.nearest(Path.cwd())
    found = find_target(server, namespace, os.environ, nearest[1] if nearest else None)
    return found or Target(
        DEFAULT_SERVER, namespace or os.environ.get(NAMESPACE_VARIABLE) or DEFAULT_NAMESPACE
    )
