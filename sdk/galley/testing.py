"""For tests of programs that use Galley: clients that run tasks in memory, by a clock of their own.

Handlers run in the process of the test. Input and result are encoded as JSON and back by the code that
producers and workers use, and retries, pauses, deadlines and own ids follow the same rules. There is no
broker, no worker and no waiting: a task that is due runs when it is submitted, and `result()` moves the clock
to the end of its task.
"""

import asyncio
import functools
import inspect
import itertools
import os
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Generic, Self, TypeVar

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.batch import SomeRefused
from galley.broker.cancel import Cancelled
from galley.cached import Cached, cached_id
from galley.client import task_address
from galley.current import CurrentTask, find_by
from galley.eager_letters import AsyncEagerDeadLetters, EagerDeadLetters
from galley.envelope import digest_of
from galley.errors import (
    GalleyError,
    NonRetryable,
    ResultMismatch,
    ResultTimeout,
    RetryAfter,
    Snooze,
    SubmissionInvalid,
    TaskCancelled,
    TaskConflict,
    TaskFailed,
    TaskNotFound,
    UniqueConflict,
)
from galley.file import File, files_in, with_files, with_references
from galley.handler import Call, Handler
from galley.history import EndedBy, PastAttempt
from galley.json_value import encode_value
from galley.labels import selector
from galley.lanes import Lane
from galley.note import LogLine, Progress
from galley.record import Failure
from galley.registry import REGISTRY
from galley.retry import RetryPolicy, Then, kinds_of
from galley.task_id import check_task_id, new_task_id
from galley.task_status import Phase, TaskStatus
from galley.typed import Misfit, Typed
from galley.unique import Asked, OnConflict, Wanted, wanted
from galley.unique_key import Until
from galley.when import NO_RULES, When

R = TypeVar("R")
T = TypeVar("T")

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Where a client's clock begins, unless it is told otherwise."""
_MOST_ATTEMPTS: Final = 10_000
"""Attempts after which a task is taken to snooze without end."""
_orders: Final = itertools.count(1)
_running: Final[dict[int, tuple["_Tasks", "_Held"]]] = {}
"""The tasks whose handlers run now, of all clients."""
_present: Final[ContextVar[CurrentTask | None]] = ContextVar("galley task under test", default=None)


@dataclass
class _Held:
    """A task, and what is known of it."""

    status: TaskStatus
    input: Raw
    digest: str
    rules: When
    result: Raw | None = None
    error: Exception | None = None
    """What the handler raised last."""
    saved: Raw | None = None
    """The last checkpoint."""
    progress: Progress | None = None


class _Reports:
    """Takes what handlers report."""

    @staticmethod
    def progress(order: int, fraction: float | None, text: str) -> bool:
        tasks, held = _running.get(order, (None, None))
        if tasks is None or held is None:
            return False
        held.progress = Progress(tasks.now, held.status.attempt, fraction, text)
        return True

    @staticmethod
    def checkpoint(order: int, body: bytes) -> bool:
        _, held = _running.get(order, (None, None))
        if held is None:
            return False
        held.saved = Raw(body)
        return True


class _Tasks:
    """The tasks of one client, and the rules by which they run."""

    def __init__(self, namespace: str, now: datetime, retry: RetryPolicy, *, run: bool) -> None:
        self.namespace, self.now = namespace, now
        self._retry, self._run = retry, run
        self._held: dict[tuple[str, str], _Held] = {}
        self._keys: dict[tuple[str, str], tuple[str, Until, datetime]] = {}
        """Unique keys: the task that has each, until when, and the end of its period."""
        self._files: list[File] = []
        """Files in inputs and results: what stands for them in JSON leads to these."""

    def add(
        self, call: Call[Any], when: When | None, task_id: str | None, labels: dict[str, str] | None = None
    ) -> tuple[TaskAddress, bool]:
        """Take in a task; returns where it is, and whether it was there before."""
        rules = (call.rules or NO_RULES).over(When(labels=labels).over(when)).over(When(labels=call.labels))
        own_id = call.task_id if task_id is None else check_task_id(task_id)
        if call.cache is not None and own_id is None:
            own_id = self._cached_id(call, call.cache)
        key = call.queue, own_id or new_task_id()
        data = call.input
        if call.files:
            self._files += call.files
            data = Raw(with_references(data, {file.mark: file.hashed() for file in call.files}))
        digest = digest_of(call.handler, data)
        known = self._held.get(key)
        if known is not None:
            if known.digest != digest:
                raise TaskConflict(*key, "handler" if known.status.handler != call.handler else "input")
            return known.status.address, True
        unique = call.unique if rules.unique is None else rules.unique
        if unique and own_id is not None:
            raise SubmissionInvalid(
                "unique", "a task of a unique key cannot have an id of your own", "leave one of them out"
            )
        existing = self._take_key(call, key[1], wanted(unique, call.handler, data)) if unique else None
        if existing is not None:
            return existing, True
        lane = Lane(rules.lane or call.lane or Lane.NORMAL)
        address = TaskAddress(self.namespace, call.queue, lane, Kind.DIRECT, key[1])
        later = rules.not_before is not None and rules.not_before > self.now
        status = TaskStatus(
            address,
            Phase.SCHEDULED if later else Phase.QUEUED,
            handler=call.handler,
            submitted_at=self.now,
            due_at=rules.not_before if later else None,
            deadline=rules.deadline,
            input=call.input,
            labels=rules.labels or {},
        )
        self._held[key] = _Held(status, call.input, digest, rules)
        return address, False

    def _take_key(self, call: Call[Any], task_id: str, asked: Wanted) -> TaskAddress | None:
        """Give a key to a new task; returns the task that has it, if that is to be returned instead.

        Raises:
            UniqueConflict: if another task has it and is to keep it.
        """
        place = call.queue, asked.key.digest
        owner, until, ends_at = self._keys.get(place, ("", asked.key.until, self.now))
        held = self._held.get((call.queue, owner))
        if held is not None:
            begun = held.status.attempt > 0
            taken = {
                Until.PERIOD: self.now < ends_at,
                Until.STARTED: not begun and not held.status.phase.ended,
                Until.FINISHED: not held.status.phase.ended,
            }[until]
            if taken and asked.on_conflict is OnConflict.EXISTING:
                return held.status.address
            if taken and (begun or asked.on_conflict is OnConflict.REJECT):
                raise UniqueConflict(call.queue, asked.shown, owner, "has begun" if begun else "waits")
            if taken:
                failure = Failure("Replaced", f"task {task_id} of the same unique key took its place")
                held.status = replace(
                    held.status, phase=Phase.CANCELLED, ended_at=self.now, due_at=None, failure=failure
                )
        self._keys[place] = task_id, asked.key.until, self.now + timedelta(seconds=asked.key.seconds)
        return None

    def _cached_id(self, call: Call[Any], rules: Cached) -> str:
        """Return the id of the task of a cached handler; what failed is tried with another one."""
        chosen, number = cached_id(call, rules, self.now), 0
        while (known := self._held.get((call.queue, f"{chosen}-{number}" if number else chosen))) is not None:
            if known.status.phase in (Phase.SUCCEEDED, Phase.QUEUED, Phase.RUNNING) or number == 9:
                break
            number += 1
        return f"{chosen}-{number}" if number else chosen

    def find(self, address: TaskAddress) -> _Held:
        """Return a task.

        Raises:
            TaskNotFound: if there is none.
        """
        held = self._held.get((address.queue, address.id))
        if held is None:
            raise TaskNotFound(address.queue, address.id)
        return held

    def all(self) -> list[_Held]:
        """Return all tasks, in the order they were submitted."""
        return list(self._held.values())

    def of_queue(self, queue: str, phase: Phase | None, labels: str) -> list[TaskStatus]:
        """Return the tasks of a queue in the order they were submitted."""
        fits = selector(labels)
        found = [held.status for (of, _), held in self._held.items() if of == queue]
        return [status for status in found if phase in (None, status.phase) and fits(status.labels)]

    def next_due(self, until: datetime | None) -> _Held | None:
        """Return the task that is due first, up to a time; None means up to now. Higher lanes go first."""
        waiting = [
            held
            for held in self._held.values()
            if not held.status.phase.ended
            and held.status.phase is not Phase.RUNNING
            and (held.status.due_at or self.now) <= (until or self.now)
        ]
        lanes = list(Lane)
        return min(
            waiting,
            key=lambda held: (held.status.due_at or self.now, lanes.index(held.status.address.lane)),
            default=None,
        )

    async def run_due(self, invoke: "_Invoke", until: datetime | None = None) -> None:
        """Run all that is due, up to a time, to which the clock moves."""
        if not self._run and until is None:
            return
        while (held := self.next_due(until)) is not None:
            self.now = max(self.now, held.status.due_at or self.now)
            await self.attempt(held, invoke)
        self.now = max(self.now, until or self.now)

    async def finish(self, held: _Held, invoke: "_Invoke", within: float | None) -> None:
        """Run tasks by their times until one has ended.

        Raises:
            ResultTimeout: if that takes more than `within` seconds of the client's clock.
        """
        end = None if within is None else self.now + timedelta(seconds=within)
        for _ in range(_MOST_ATTEMPTS):
            if held.status.phase.ended:
                return
            due_at = held.status.due_at or self.now
            if held.status.phase is Phase.RUNNING or (end is not None and due_at > end):
                break
            await self.run_due(invoke, due_at)
        raise ResultTimeout(held.status.address.id, within or 0.0)

    async def attempt(self, held: _Held, invoke: "_Invoke") -> None:
        """Run one attempt of a task, and settle it."""
        status = held.status
        if status.deadline is not None and self.now >= status.deadline:
            self._fail(held, Failure("DeadlineExceeded", "it had not started by its deadline"))
            return
        number = 1 + status.history.errors
        held.status = replace(
            status, phase=Phase.RUNNING, attempt=number, started_at=self.now, due_at=None, worker="testing"
        )
        handler = REGISTRY.of_queue(status.address.queue).get(status.handler)
        if handler is None:
            self._fail(held, Failure("HandlerNotFound", f"no handler {status.handler!r} is imported here"))
            return
        last = status.history.attempts[-1] if status.history.attempts else None
        order = next(_orders)
        _running[order] = self, held
        token = _present.set(
            CurrentTask(
                status.address.id, status.address.queue, status.address.lane, status.handler, number,
                status.submitted_at or self.now, status.deadline,
                f"{last.reason}: {last.message}" if last else "", saved=held.saved, order=order,
            )
        )  # fmt: skip
        try:
            named = msgspec.json.decode(held.input)
            value = await invoke(handler, handler.types.decode(bytes(held.input), named))
            held.result = Raw(encode_value(value if handler.store_result else None))
            self._files += files_in(held.result)
        except Misfit as error:
            self._fail(held, Failure("InputInvalid", f"the input does not fit the handler: {error}"))
        except Snooze as error:
            self._wait(held, error.seconds, Failure("Snooze", str(error)))
        except Exception as error:
            held.error = error
            self._failed(held, handler, error)
        else:
            held.status = replace(held.status, phase=Phase.SUCCEEDED, ended_at=self.now)
        finally:
            del _running[order]
            _present.reset(token)

    def _failed(self, held: _Held, handler: Handler[..., Any], error: Exception) -> None:
        reason = "HandlerRaised"
        if isinstance(error, RetryAfter | NonRetryable):
            reason = "RetryAfter" if isinstance(error, RetryAfter) else "NonRetryable"
        failure = Failure(reason, f"{type(error).__name__}: {error}", traceback.format_exc())
        status = held.status
        past = PastAttempt(
            status.attempt, EndedBy.ERROR, reason, failure.message, "testing", self.now, status.started_at,
            failure.traceback,
        )  # fmt: skip
        held.status = replace(status, history=status.history.with_attempt(past))
        policy = held.rules.retry or handler.retry or self._retry
        said = isinstance(error, RetryAfter | NonRetryable)
        rule = None if said else policy.rule_for((reason, *kinds_of(type(error))))
        if rule is not None and rule.then is Then.SNOOZE:
            held.status = status
            later = policy.backoff_seconds if rule.after_seconds is None else rule.after_seconds
            self._wait(held, later, failure)
            return
        due_at = policy.next_at(held.status.history, self.now, lambda: 1.0)
        fails = rule is not None and rule.then is Then.FAIL
        if isinstance(error, NonRetryable) or due_at is None or fails:
            self._fail(held, failure)
            return
        pause = error.seconds if isinstance(error, RetryAfter) else (due_at - self.now).total_seconds()
        if rule is not None and rule.after_seconds is not None:
            pause = rule.after_seconds
        self._wait(held, pause, failure)

    def _wait(self, held: _Held, seconds: float, failure: Failure) -> None:
        due_at = self.now + timedelta(seconds=max(0.0, seconds))
        if held.status.deadline is not None and due_at >= held.status.deadline:
            self._fail(held, Failure("DeadlineExceeded", f"no time before its deadline; {failure.message}"))
        else:
            held.status = replace(held.status, phase=Phase.RETRYING, due_at=due_at, failure=failure)

    def _fail(self, held: _Held, failure: Failure) -> None:
        held.status = replace(
            held.status, phase=Phase.FAILED, ended_at=self.now, failure=failure, due_at=None
        )

    def cancel(self, address: TaskAddress) -> Cancelled:
        """Cancel a task."""
        held = self.find(address)
        if held.status.phase.ended:
            return Cancelled.TOO_LATE
        held.status = replace(held.status, phase=Phase.CANCELLED, ended_at=self.now, due_at=None)
        return Cancelled.BEFORE_START

    def result(self, address: TaskAddress, expected: Typed | None) -> Any:
        """Return what an ended task returned, as `Handle.result` does."""
        held = self.find(address)
        if held.status.phase is Phase.CANCELLED:
            raise TaskCancelled(address.id, held.status.failure.message if held.status.failure else "")
        if held.result is None:
            failure = held.status.failure or Failure("Unknown", "")
            raise TaskFailed(address.id, failure.reason, failure.message) from held.error
        try:
            if expected is None:
                return with_files(msgspec.json.decode(held.result))
            return expected.decode(held.result)
        except Misfit as error:
            raise ResultMismatch(address.id, str(error)) from None


_Invoke = Callable[[Handler[..., Any], dict[str, Any]], Coroutine[Any, Any, Any]]


class _Eager:
    """What both clients have."""

    def __init__(
        self, namespace: str = "default", *, now: datetime = START, retry: RetryPolicy | None = None,
        run: bool = True,
    ) -> None:  # fmt: skip
        """Make a client without tasks.

        Args:
            namespace: as of a client.
            now: where its clock begins.
            retry: policy of the queues; tasks and `@task` may have their own.
            run: whether a task runs as soon as it is submitted. Otherwise tasks wait for `advance`, or until
                the result of one is asked for.
        """
        find_by(_present.get, _Reports)
        self.namespace = namespace
        self._tasks = _Tasks(namespace, now, retry or RetryPolicy(), run=run)

    @property
    def now(self) -> datetime:
        """The time of the client's clock."""
        return self._tasks.now

    def input(self, handle: "EagerHandle[Any] | AsyncEagerHandle[Any]") -> Any:
        """Return the input of a task as JSON has it: the arguments of a handler by name."""
        return msgspec.json.decode(self._tasks.find(handle.address).input)


class EagerClient(_Eager):
    """Takes the place of `galley.Client` in tests."""

    @functools.cached_property
    def dead_letters(self) -> EagerDeadLetters:
        """Tasks that failed: to look at, edit, drop, and run again, which happens at once."""
        return EagerDeadLetters(
            self._tasks.all, lambda: self.now, lambda: _finished(self._tasks.run_due(_invoke))
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing, as there is nothing to close."""

    def submit(
        self, call: Call[R], when: When | None = None, *, task_id: str | None = None,
        labels: dict[str, str] | None = None, unique: Asked | None = None,
    ) -> "EagerHandle[R]":  # fmt: skip
        """Submit a task, and run it if it is due.

        Raises:
            TaskConflict, UniqueConflict, SubmissionInvalid: as `galley.Client.submit`.
        """
        call = call if unique is None else call.options(unique=unique)
        address, existed = self._tasks.add(call, when, task_id, labels)
        _finished(self._tasks.run_due(_invoke))
        return EagerHandle(self._tasks, address, call.result, existed=existed)

    def submit_many(
        self, calls: Iterable[Call[R]], when: When | None = None, *, labels: dict[str, str] | None = None
    ) -> "list[EagerHandle[R]]":
        """Submit several tasks, and run those that are due.

        Raises:
            SomeRefused: as `galley.Client.submit_many`.
        """
        submitted: dict[int, EagerHandle[R]] = {}
        refused: dict[int, GalleyError] = {}
        for place, call in enumerate(calls):
            try:
                submitted[place] = self.submit(call, when, labels=labels)
            except GalleyError as error:
                refused[place] = error
        if refused:
            raise SomeRefused(dict(submitted), refused)
        return list(submitted.values())

    def download(self, file: File, to: str | os.PathLike[str]) -> Path:
        """Copy the content of a file to a path and return the path: `galley.Client.download`."""
        return file.save(to)

    def handle(self, queue: str, task_id: str) -> "EagerHandle[Any]":
        """Return a handle on a task of this client."""
        return EagerHandle(self._tasks, task_address(self.namespace, queue, task_id), None)

    def logs(self, queue: str, task_id: str, attempt: int | None = None) -> list[LogLine]:
        """Return nothing: handlers run in this process, and what they write goes where its output goes."""
        return self.handle(queue, task_id).logs(attempt)

    def tasks(self, queue: str, phase: Phase | None = None, *, labels: str = "") -> list[TaskStatus]:
        """Return the tasks of a queue, in the order they were submitted."""
        return self._tasks.of_queue(queue, phase, labels)

    def as_completed(
        self, handles: "Iterable[EagerHandle[R]]", within: float | None = None
    ) -> "Iterator[EagerHandle[R]]":
        """Yield each handle once its task has ended."""
        for handle in handles:
            handle.wait(within)
            yield handle

    def advance(self, seconds: float) -> None:
        """Move the clock, and run what becomes due on the way."""
        _finished(self._tasks.run_due(_invoke, self._tasks.now + timedelta(seconds=seconds)))


class EagerHandle(Generic[R]):
    """Takes the place of `galley.Handle`."""

    def __init__(
        self, tasks: _Tasks, address: TaskAddress, result: Typed | None, *, existed: bool = False
    ) -> None:
        self._tasks, self._result = tasks, result
        self.address, self.existed = address, existed

    @property
    def id(self) -> str:
        """The task's id."""
        return self.address.id

    def __repr__(self) -> str:
        return f"<task {self.address}>"

    def result(self, within: float | None = None, *, hold_slot: bool = False) -> R:
        """Run the task to its end, moving the clock, and return what its handler returned.

        Raises:
            TaskFailed, TaskCancelled, TaskNotFound, ResultTimeout, ResultMismatch: as `galley.Handle.result`.
        """
        self.wait(within, hold_slot=hold_slot)
        made: R = self._tasks.result(self.address, self._result)
        return made

    def wait(self, within: float | None = None, *, hold_slot: bool = False) -> TaskStatus:  # noqa: ARG002
        """Run the task to its end, however it ends, and return its status.

        Raises:
            TaskNotFound, ResultTimeout: as `galley.Handle.wait`.
        """
        _finished(self._tasks.finish(self._tasks.find(self.address), _invoke, within))
        return self.status()

    def status(self) -> TaskStatus:
        """Return where the task is.

        Raises:
            TaskNotFound: the client has no such task.
        """
        return self._tasks.find(self.address).status

    def progress(self) -> Progress | None:
        """Return how far the task is, as its handler said last."""
        return self._tasks.find(self.address).progress

    def logs(self, attempt: int | None = None) -> list[LogLine]:  # noqa: ARG002
        """Return nothing: handlers run in this process, and what they write goes where its output goes.

        Raises:
            TaskNotFound: the client has no such task.
        """
        self.status()
        return []

    def follow_logs(self, attempt: int | None = None) -> Iterator[LogLine]:
        """Run the task to its end; yields nothing, as `logs`."""
        self.wait()
        yield from self.logs(attempt)

    def worker_problem(self) -> str:
        """Return nothing, as no worker is needed."""
        return ""

    def cancel(self) -> Cancelled:
        """Cancel the task.

        Raises:
            TaskNotFound: the client has no such task.
        """
        return self._tasks.cancel(self.address)


class AsyncEagerClient(_Eager):
    """Takes the place of `galley.AsyncClient` in tests."""

    @functools.cached_property
    def dead_letters(self) -> AsyncEagerDeadLetters:
        """Tasks that failed: to look at, edit, drop, and run again."""
        letters = EagerDeadLetters(self._tasks.all, lambda: self.now, lambda: None)
        return AsyncEagerDeadLetters(letters)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def submit(
        self, call: Call[R], when: When | None = None, *, task_id: str | None = None,
        labels: dict[str, str] | None = None, unique: Asked | None = None,
    ) -> "AsyncEagerHandle[R]":  # fmt: skip
        """Submit a task, and run it if it is due.

        Raises:
            TaskConflict, UniqueConflict, SubmissionInvalid: as `galley.AsyncClient.submit`.
        """
        call = call if unique is None else call.options(unique=unique)
        address, existed = self._tasks.add(call, when, task_id, labels)
        await self._tasks.run_due(_invoke_in_loop)
        return AsyncEagerHandle(EagerHandle(self._tasks, address, call.result, existed=existed))

    async def submit_many(
        self, calls: Iterable[Call[R]], when: When | None = None, *, labels: dict[str, str] | None = None
    ) -> "list[AsyncEagerHandle[R]]":
        """Submit several tasks, and run those that are due.

        Raises:
            SomeRefused: as `galley.AsyncClient.submit_many`.
        """
        submitted: dict[int, AsyncEagerHandle[R]] = {}
        refused: dict[int, GalleyError] = {}
        for place, call in enumerate(calls):
            try:
                submitted[place] = await self.submit(call, when, labels=labels)
            except GalleyError as error:
                refused[place] = error
        if refused:
            raise SomeRefused(dict(submitted), refused)
        return list(submitted.values())

    async def download(self, file: File, to: str | os.PathLike[str]) -> Path:
        """Copy the content of a file to a path and return the path: `galley.AsyncClient.download`."""
        return await asyncio.to_thread(file.save, to)

    def handle(self, queue: str, task_id: str) -> "AsyncEagerHandle[Any]":
        """Return a handle on a task of this client."""
        address = task_address(self.namespace, queue, task_id)
        return AsyncEagerHandle(EagerHandle(self._tasks, address, None))

    async def logs(self, queue: str, task_id: str, attempt: int | None = None) -> list[LogLine]:
        """Return nothing: handlers run in this process, and what they write goes where its output goes."""
        return await self.handle(queue, task_id).logs(attempt)

    async def tasks(self, queue: str, phase: Phase | None = None, *, labels: str = "") -> list[TaskStatus]:
        """Return the tasks of a queue, in the order they were submitted."""
        return self._tasks.of_queue(queue, phase, labels)

    async def as_completed(
        self, handles: "Iterable[AsyncEagerHandle[R]]", within: float | None = None
    ) -> "AsyncIterator[AsyncEagerHandle[R]]":
        """Yield each handle once its task has ended."""
        for handle in handles:
            await handle.wait(within)
            yield handle

    async def advance(self, seconds: float) -> None:
        """Move the clock, and run what becomes due on the way."""
        await self._tasks.run_due(_invoke_in_loop, self._tasks.now + timedelta(seconds=seconds))


class AsyncEagerHandle(Generic[R]):
    """Takes the place of `galley.AsyncHandle`."""

    def __init__(self, handle: EagerHandle[R]) -> None:
        self._handle = handle
        self.address, self.existed, self.id = handle.address, handle.existed, handle.id

    def __repr__(self) -> str:
        return repr(self._handle)

    async def result(self, within: float | None = None, *, hold_slot: bool = False) -> R:
        """Run the task to its end, moving the clock, and return what its handler returned.

        Raises:
            TaskFailed, TaskCancelled, TaskNotFound, ResultTimeout, ResultMismatch: as
                `galley.AsyncHandle.result`.
        """
        await self.wait(within, hold_slot=hold_slot)
        return self._handle.result()

    async def wait(self, within: float | None = None, *, hold_slot: bool = False) -> TaskStatus:  # noqa: ARG002
        """Run the task to its end, however it ends, and return its status.

        Raises:
            TaskNotFound, ResultTimeout: as `galley.AsyncHandle.wait`.
        """
        tasks = self._handle._tasks  # noqa: SLF001 - of the same module
        await tasks.finish(tasks.find(self.address), _invoke_in_loop, within)
        return self._handle.status()

    async def status(self) -> TaskStatus:
        """Return where the task is.

        Raises:
            TaskNotFound: the client has no such task.
        """
        return self._handle.status()

    async def progress(self) -> Progress | None:
        """Return how far the task is, as its handler said last."""
        return self._handle.progress()

    async def logs(self, attempt: int | None = None) -> list[LogLine]:
        """Return nothing: handlers run in this process, and what they write goes where its output goes."""
        return self._handle.logs(attempt)

    async def follow_logs(self, attempt: int | None = None) -> AsyncIterator[LogLine]:
        """Run the task to its end; yields nothing, as `logs`."""
        await self.wait()
        for line in self._handle.logs(attempt):
            yield line

    async def worker_problem(self) -> str:
        """Return nothing, as no worker is needed."""
        return ""

    async def cancel(self) -> Cancelled:
        """Cancel the task.

        Raises:
            TaskNotFound: the client has no such task.
        """
        return self._handle.cancel()


async def _invoke(handler: Handler[..., Any], named: dict[str, Any]) -> Any:
    """Call a handler where no event loop is used: an `async def` one gets a loop of its own."""
    value = handler.function(**named)
    return _in_own_loop(value) if inspect.iscoroutine(value) else value


async def _invoke_in_loop(handler: Handler[..., Any], named: dict[str, Any]) -> Any:
    """Call a handler from an event loop: a plain one in a thread, as it may use a loop of its own."""
    if handler.is_async:
        return await handler.function(**named)
    value = await asyncio.to_thread(handler.function, **named)
    return await value if inspect.iscoroutine(value) else value


def _in_own_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(coroutine))
        except BaseException as error:
            errors.append(error)

    # In a thread, since the test itself may run in an event loop; with the context of the caller.
    thread = threading.Thread(target=copy_context().run, args=(run,))
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _finished(steps: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that waits for nothing."""
    try:
        steps.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("a coroutine that should not wait did")
