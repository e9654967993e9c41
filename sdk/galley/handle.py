"""Handles on submitted tasks."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar, cast

import msgspec
from msgspec import Raw, Struct

from galley import tracing
from galley.address import TaskAddress
from galley.audit import Action
from galley.broker import inspect, queue_view
from galley.broker.audit import note
from galley.broker.cancel import CANCELLED_KEPT_SECONDS, Cancelled, cancel
from galley.broker.connection import Broker
from galley.broker.errors import BrokerError
from galley.broker.known import Known, check_same_work, known_task
from galley.broker.notes import following, lines_of, output_of, progress_of
from galley.broker.records import Records
from galley.broker.waiting import wait_until_done
from galley.envelope import Envelope
from galley.errors import (
    ResultMismatch,
    ResultTimeout,
    TaskCancelled,
    TaskFailed,
    WaitsForOwnQueue,
    WaitsInCircle,
)
from galley.file import FIELD, files_of, with_files
from galley.history import HANDLER_NOT_FOUND
from galley.inside import line
from galley.note import LogLine, Progress
from galley.record import NULL, Outcome, Record, State, Stored
from galley.reference import Reference
from galley.task_status import TaskStatus, of_record
from galley.typed import Misfit, Typed
from galley.workflow.state import PREFIX as WORKFLOW_PREFIX

R = TypeVar("R")

APPEARS_SECONDS: Final = 5.0
"""How long an id may have no task before a wait for it ends: the operator admits a Task of `kubectl apply` a
moment after it was applied, and another program may be about to submit."""

_FILE = FIELD.encode()


class AsyncHandle(Struct, Generic[R], gc=False, eq=False):
    """A submitted task: get its status, wait for its result, cancel it.

    It belongs to the client that created it, and can be used while that client is open.
    """

    _broker: Broker
    address: TaskAddress
    envelope: Envelope | None
    """What this client submitted; None of a task that was found by its id."""
    result_type: Typed | None = None
    """What the handler's annotation says of the result; None if it says nothing or is not known."""
    existed: bool = False
    """Whether the task was there before this submission, which then added nothing."""

    @property
    def id(self) -> str:
        """The task's id."""
        return self.address.id

    def __repr__(self) -> str:
        return f"<task {self.address}>"

    async def result(self, within: float | None = None, *, hold_slot: bool = False) -> R:
        """Wait until the task has ended and return what its handler returned.

        Args:
            within: seconds to wait at most; None waits without a limit.
            hold_slot: in a handler, wait even for a task of the handler's own queue. The handler occupies
                its slot while it waits, so if all slots of the queue wait like this, none continues.

        Raises:
            TaskFailed: it failed and will not be retried.
            TaskCancelled: it was cancelled.
            TaskNotFound: no task has the id after five seconds, or its record has expired.
            ResultTimeout: it had not ended in time; it continues.
            TaskConflict: another task with the same id was stored first; this one does not run.
            ResultMismatch: it succeeded, and what it returned is not what its handler's annotation says.
            WaitsForOwnQueue: this is a handler of the same queue, which submitted the task or found that it
                has not ended. The handler's task is not retried.
            WaitsInCircle: this is a handler whose own task was submitted, perhaps over several steps, by a
                handler of the task's queue, which may be waiting for it. It is not retried either.
            QueueNotFound: the namespace never had a queue.
            DecryptionKeyMissing: the result is encrypted, and the client does not have the key.
            PayloadAltered, PlaintextRefused: the result is not from a worker with the keys of the queue.
            KeyServiceUnavailable: the key service does not answer; asking again is safe.
            ObjectMissing, ObjectDamaged: the result was stored as an object, which is gone or changed.
            ObjectStoreUnavailable, ObjectStoreUnknown: the object store does not answer, or is not ours.
            BrokerUnreachable: the broker does not answer.
            ClientClosed, ClientElsewhere: its client is closed, or belongs to another event loop.
        """
        with tracing.span("wait", self.address.queue):
            stored = await self._ended(within, hold_slot=hold_slot)
        record = await self._broker.payloads.outcome(self.address, stored.record)
        if self.envelope is not None:
            check_same_work(self.address, record.handler, record.digest, self.envelope)
        if record.outcome is Outcome.SUCCEEDED:
            data: bytes | Raw = record.result or NULL
            if record.large is not None:
                data = await self._fetched(record.large)
            return cast("R", self._decoded(data))
        if record.outcome is Outcome.CANCELLED:
            raise TaskCancelled(self.id, record.failure.message if record.failure is not None else "")
        failure = record.failure
        raise TaskFailed(
            self.id, failure.reason if failure else "Unknown", failure.message if failure else ""
        )

    async def _fetched(self, reference: Reference) -> bytes:
        from galley.objects.transfer import fetched  # noqa: PLC0415 - most programs need none of it

        return await fetched(self._broker.objects, self.address, reference)

    def _decoded(self, data: bytes | Raw) -> Any:
        with files_of(self.address.namespace, self.address.queue):
            return self._in_type(data)

    def _in_type(self, data: bytes | Raw) -> Any:
        if self.result_type is None:
            value = msgspec.json.decode(data)
            return with_files(value) if _FILE in bytes(data) else value
        try:
            return self.result_type.read(data)
        except Misfit as error:
            raise ResultMismatch(self.id, str(error)) from None

    async def wait(self, within: float | None = None, *, hold_slot: bool = False) -> TaskStatus:
        """Wait until the task has ended, in any way, and return its status.

        Args:
            within: seconds to wait at most; None waits without a limit.
            hold_slot: as in `result`.

        Raises:
            TaskNotFound: no task has the id after five seconds, or its record has expired.
            ResultTimeout: it had not ended in time; it continues.
            WaitsForOwnQueue, WaitsInCircle, QueueNotFound,
                BrokerUnreachable, ClientClosed, ClientElsewhere: as `result`.
        """
        stored = await self._ended(within, hold_slot=hold_slot)
        record = await self._broker.payloads.look_at_record(self.address, stored.record)
        return of_record(self.address, record)

    async def _ended(self, within: float | None, *, hold_slot: bool) -> Stored:
        self._broker.check_usable()
        if not hold_slot:
            await self._check_circle()
        try:
            async with asyncio.timeout(within):
                if self.envelope is None:
                    stored = await self._ended_if_there()
                else:
                    stored = await wait_until_done(self._broker, self.address)
        except TimeoutError:
            waited = within or 0.0
            # Asking takes a moment, which one who waits for less should not pay for.
            problem = ""
            if waited >= 1:
                await self._check_there()
                problem = await self.worker_problem()
            raise ResultTimeout(self.id, waited, problem) from None
        return stored

    async def _ended_if_there(self) -> Stored:
        """Wait for a task that is known by its id only, which may be wrong."""
        ended = asyncio.create_task(wait_until_done(self._broker, self.address))
        try:
            await asyncio.wait([ended], timeout=APPEARS_SECONDS)
            if not ended.done():
                await self._check_there()
            return await ended
        finally:
            ended.cancel()

    async def _check_there(self) -> None:
        # Of the parts of a workflow, those that have not begun leave no trace; it has a handle of its own.
        if not self.id.startswith(WORKFLOW_PREFIX):
            await inspect.check_there(self._broker, self.address)

    async def _check_circle(self) -> None:
        """Refuse to wait in a handler for a task of a queue whose handlers may be waiting for this one.

        Raises:
            WaitsForOwnQueue, WaitsInCircle: if the task has not ended.
        """
        queues = line()
        target = f"{self.address.namespace}/{self.address.queue}"
        if target not in queues:
            return
        # What was just submitted may have ended by now, or not: that it fails must not depend on it.
        just_submitted = self.envelope is not None and not self.existed
        stored = None if just_submitted else await Records(self._broker).look_up(self.address)
        if stored is None or not stored.record.done:
            if queues[-1] == target:
                raise WaitsForOwnQueue(self.address.queue, self.id)
            raise WaitsInCircle(self.address.queue, self.id, queues[queues.index(target) :])

    async def status(self) -> TaskStatus:
        """Return the present status of the task.

        Raises:
            TaskNotFound: it neither waits nor has a record.
            QueueNotFound: there is no such queue either.
            BrokerUnreachable: the broker does not answer.
        """
        self._broker.check_usable()
        return await inspect.status(self._broker, self.address)

    async def progress(self) -> Progress | None:
        """Return the latest progress that the handler reported; None if there is none.

        Raises:
            DecryptionKeyMissing, PayloadAltered, PlaintextRefused, KeyServiceUnavailable: it is encrypted,
                and cannot be decrypted.
            BrokerUnreachable: the broker does not answer.
        """
        self._broker.check_usable()
        return await progress_of(self._broker, self.address)

    async def logs(self, attempt: int | None = None) -> list[LogLine]:
        """Return the output of the task's handler in all attempts, oldest first.

        It is kept for 30 days, up to `spec.limits.outputBytes` for the whole queue, also when the worker
        is gone. Of each attempt the first 64 KiB are kept.

        Args:
            attempt: only the lines of this attempt.

        Raises:
            DecryptionKeyMissing, PayloadAltered, PlaintextRefused, KeyServiceUnavailable: as `progress`.
            BrokerUnreachable: the broker does not answer.
        """
        self._broker.check_usable()
        found = await output_of(self._broker, self.address, attempt)
        return [line for _, part in found for line in lines_of(part)]

    async def follow_logs(self, attempt: int | None = None) -> AsyncGenerator[LogLine, None]:
        """Yield the past and future output of the task's handler, until the task has ended.

        A line comes within about a second. Those that are written while the connection is lost come with the
        next ones.

        Args:
            attempt: only the lines of this attempt.

        Raises:
            DecryptionKeyMissing, PayloadAltered, PlaintextRefused, KeyServiceUnavailable: as `progress`.
            QueueNotFound, BrokerUnreachable: as `status`.
        """
        self._broker.check_usable()
        seen = 0
        async with following(self._broker, self.address) as heard:
            ended = asyncio.create_task(wait_until_done(self._broker, self.address))
            try:
                while True:
                    over = ended.done()
                    for sequence, part in await output_of(self._broker, self.address, attempt, after=seen):
                        seen = sequence
                        for line in lines_of(part):
                            yield line
                    if over:
                        ended.result()
                        return
                    await _first_of(ended, heard)
            finally:
                ended.cancel()
                await asyncio.wait({ended})

    async def worker_problem(self) -> str:
        """Return a sentence on why no worker runs the task; empty if one does or will, or if it is unknown.

        Either no worker of the queue can start, which the operator and `galley dev` know, or none that has
        started knows the task's handler.
        """
        with suppress(BrokerError):
            if problem := await queue_view.worker_problem(
                self._broker, self.address.namespace, self.address.queue
            ):
                return problem
            return await self._unknown_handler()
        return ""

    async def _unknown_handler(self) -> str:
        stored = await Records(self._broker).look_up(self.address)
        if stored is None or stored.record.done or not stored.record.history.attempts:
            return ""
        last = stored.record.history.attempts[-1]
        if (last.number, last.reason) != (stored.record.attempt, HANDLER_NOT_FOUND):
            return ""
        return f"{last.message}; it fails if no worker that starts soon knows it"

    async def cancel(self) -> Cancelled:
        """Cancel the task in any state; return the outcome.

        Raises:
            TaskNotFound, QueueNotFound: it neither waits nor has a record.
            BrokerUnreachable: the broker does not answer; it may or may not be cancelled.
        """
        outcome = await self.cancel_unnoted()
        if outcome is not Cancelled.TOO_LATE:
            place = self.address.namespace, self.address.queue
            await note(self._broker, *place, Action.CANCEL, self.address.id)
        return outcome

    async def cancel_unnoted(self) -> Cancelled:
        """Cancel the task without an audit line: of many, one line tells.

        Raises:
            As `cancel`.
        """
        self._broker.check_usable()
        if self.envelope is not None:
            envelope = self.envelope
            known = Known(
                self.address, envelope.handler, envelope.digest, envelope.submitted_at, envelope.labels
            )
        else:
            # Looked for first, so that cancelling a task that never was leaves no record behind.
            known = await known_task(self._broker, self.address, for_certain=False) or await self._by_status()
        about = Record(
            State.RUN, 0,
            handler=known.handler, lane=known.address.lane, submitted_at=known.submitted_at,
            digest=known.digest, labels=known.labels,
        )  # fmt: skip
        return await cancel(self._broker, self.address, about, CANCELLED_KEPT_SECONDS)

    async def _by_status(self) -> Known:
        status = await self.status()
        return Known(status.address, status.handler, "", status.submitted_at, status.labels or None)


_LOOK_AGAIN_SECONDS = 5.0
"""News of output travel at most once; this bounds how long a lost one can matter."""


async def _first_of(ended: asyncio.Task[Stored], heard: asyncio.Event) -> None:
    """Wait until there may be more output, or the task has ended."""
    news = asyncio.create_task(heard.wait())
    try:
        await asyncio.wait({ended, news}, timeout=_LOOK_AGAIN_SECONDS, return_when="FIRST_COMPLETED")
    finally:
        news.cancel()
        await asyncio.wait({news})
    heard.clear()
