"""The tasks of a client for tests, and the rules by which they run."""

import itertools
import traceback
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.batching import outcomes
from galley.broker.cancel import Cancelled
from galley.cached import TRIES, Cached, entry_of, numbered
from galley.calls import Call
from galley.current import CurrentTask, find_by
from galley.envelope import digest_of
from galley.errors import (
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
from galley.handler import Handler, check_call
from galley.history import EndedBy, PastAttempt
from galley.json_value import encode_value
from galley.labels import selector
from galley.lanes import Lane
from galley.limit import check_limit
from galley.note import Progress
from galley.record import Failure
from galley.registry import REGISTRY
from galley.retry import RetryPolicy, Then, kinds_of
from galley.task_id import check_task_id, new_task_id
from galley.task_status import Phase, TaskStatus
from galley.testing.schedules import Clockwork
from galley.typed import Misfit, Typed
from galley.unique import OnConflict, Wanted, wanted
from galley.unique_key import Until
from galley.when import NO_RULES, When
from galley.workflow.continuation import Continuation

R = TypeVar("R")
T = TypeVar("T")

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Where a client's clock begins, unless it is told otherwise."""
_NO_WORKFLOWS: Final = (
    "the handler returned galley.then(...), and the clients of galley.testing run no workflows: use the "
    "fixture galley_queue"
)
_MOST_ATTEMPTS: Final = 10_000
"""Attempts after which a task is taken to snooze without end."""
_orders: Final = itertools.count(1)
_running: Final[dict[int, tuple["Tasks", "Held"]]] = {}
"""The tasks whose handlers run now, of all clients."""
_present: Final[ContextVar[CurrentTask | None]] = ContextVar("galley task under test", default=None)
_batch: Final[ContextVar[tuple[CurrentTask, ...]]] = ContextVar("galley batch under test", default=())

_GOOD: Final = (Phase.SUCCEEDED, Phase.QUEUED, Phase.RUNNING)
"""Phases in which the result of a cached task is there, or on its way."""

Invoke = Callable[[Handler[..., Any], dict[str, Any]], Coroutine[Any, Any, Any]]
"""Calls a handler."""


@dataclass
class Held:
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


class Reports:
    """Takes what handlers report."""

    @staticmethod
    def progress(order: int, fraction: float | None, text: str) -> bool:
        """Keep the progress of the task with that number; returns whether it runs."""
        tasks, held = _running.get(order, (None, None))
        if tasks is None or held is None:
            return False
        held.progress = Progress(tasks.now, held.status.attempt, fraction, text)
        return True

    @staticmethod
    def checkpoint(order: int, body: bytes) -> bool:
        """Keep the checkpoint of the task with that number; returns whether it runs."""
        _, held = _running.get(order, (None, None))
        if held is None:
            return False
        held.saved = Raw(body)
        return True


class Tasks:
    """The tasks of one client, and the rules by which they run."""

    def __init__(self, namespace: str, now: datetime, retry: RetryPolicy, *, run: bool) -> None:
        find_by(_present.get, Reports, _batch.get)
        self.namespace, self.now = namespace, now
        self._retry, self._run = retry, run
        self._held: dict[tuple[str, str], Held] = {}
        self._keys: dict[tuple[str, str], tuple[str, Until, datetime]] = {}
        """Unique keys: the task that has each, until when, and the end of its period."""
        self.schedules = Clockwork(self)
        self._files: list[File] = []
        """Files in inputs and results: what stands for them in JSON leads to these."""

    def add(
        self, call: Call[Any], when: When | None, task_id: str | None, labels: dict[str, str] | None = None
    ) -> tuple[TaskAddress, bool]:
        """Take in a task; returns where it is, and whether it was there before."""
        check_call(call)
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
            key=call.key_under(rules),
        )
        self._held[key] = Held(status, call.input, digest, rules)
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
        entry = entry_of(call, rules, self.now)
        for number in range(TRIES) if (call.queue, entry.id) not in self._held else ():
            known = self._held.get((call.queue, numbered(entry.before, number)))
            if known is None:
                break
            if (known.status.submitted_at or self.now) > entry.since and known.status.phase in _GOOD:
                return known.status.address.id
        chosen = entry.id
        for number in range(TRIES):
            chosen = numbered(entry.id, number)
            known = self._held.get((call.queue, chosen))
            if known is None or known.status.phase in _GOOD:
                break
        return chosen

    def find(self, address: TaskAddress) -> Held:
        """Return a task.

        Raises:
            TaskNotFound: if there is none.
        """
        held = self._held.get((address.queue, address.id))
        if held is None:
            raise TaskNotFound(address.queue, address.id)
        return held

    def has_ended(self, queue: str, task_id: str) -> bool:
        """Return whether a task has ended, or is not there."""
        held = self._held.get((queue, task_id))
        return held is None or held.status.phase.ended

    def address_of(self, queue: str, task_id: str) -> TaskAddress:
        """Return where a task is."""
        return self._held[queue, task_id].status.address

    def all(self) -> list[Held]:
        """Return all tasks, in the order they were submitted."""
        return list(self._held.values())

    def of_queue(self, queue: str, phase: Phase | None, labels: str, limit: int | None) -> list[TaskStatus]:
        """Return the tasks of a queue in the order they were submitted."""
        fits = selector(labels)
        found = [held.status for (of, _), held in self._held.items() if of == queue]
        chosen = [status for status in found if phase in (None, status.phase) and fits(status.labels)]
        return chosen if limit is None else chosen[-check_limit(limit) :]

    def next_due(self, until: datetime | None) -> Held | None:
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

    async def run_due(self, invoke: "Invoke", until: datetime | None = None) -> None:
        """Run all that is due, up to a time, to which the clock moves."""
        if not self._run and until is None:
            return
        while True:
            held, tick = self.next_due(until), self.schedules.next_at()
            begins = (until or self.now) if held is None else (held.status.due_at or self.now)
            if tick is not None and tick <= begins:
                self.now = max(self.now, tick)
                self.schedules.fire()
            elif held is not None:
                self.now = max(self.now, begins)
                await self.attempt(held, invoke)
            else:
                break
        self.now = max(self.now, until or self.now)

    async def finish(self, held: Held, invoke: "Invoke", within: float | None) -> None:
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

    async def attempt(self, held: Held, invoke: "Invoke") -> None:
        """Run one attempt of a task, and settle it; a handler of batches gets what else is due, too."""
        handler = self._begin(held)
        if handler is None:
            return
        together = [held]
        if handler.batch is not None:
            neighbours = self._neighbours(held, handler.batch.size - 1)
            together += [other for other in neighbours if self._begin(other) is not None]
        orders = [next(_orders) for _ in together]
        tasks = tuple(map(_seen, together, orders))
        _running.update({order: (self, each) for order, each in zip(orders, together, strict=True)})
        token, batch = _present.set(tasks[0] if handler.batch is None else None), _batch.set(())
        try:
            if handler.batch is None:
                await self._one(held, handler, invoke)
            else:
                await self._several(together, tasks, handler, invoke)
        finally:
            for order in orders:
                del _running[order]
            _present.reset(token)
            _batch.reset(batch)

    def _begin(self, held: Held) -> Handler[..., Any] | None:
        """Mark an attempt as begun; returns its handler, or None if it is not to run."""
        status = held.status
        if status.deadline is not None and self.now >= status.deadline:
            self._fail(held, Failure("DeadlineExceeded", "it had not started by its deadline"))
            return None
        number = 1 + status.history.errors
        held.status = replace(
            status, phase=Phase.RUNNING, attempt=number, started_at=self.now, due_at=None, worker="testing"
        )
        handler = REGISTRY.of_queue(status.address.queue).get(status.handler)
        if handler is None:
            self._fail(held, Failure("HandlerNotFound", f"no handler {status.handler!r} is imported here"))
        return handler

    def _neighbours(self, held: Held, most: int) -> list[Held]:
        """Return what a batch has beside a task: what is due, unless one of them failed in a batch before."""
        if held.status.history.apart:
            return []
        place, handler = held.status.address.queue, held.status.handler
        return [
            other for other in self._held.values()
            if (other.status.address.queue, other.status.handler) == (place, handler)
            and not other.status.phase.ended and other.status.phase is not Phase.RUNNING
            and (other.status.due_at or self.now) <= self.now and not other.status.history.apart
        ][:most]  # fmt: skip

    async def _one(self, held: Held, handler: Handler[..., Any], invoke: "Invoke") -> None:
        try:
            value = await invoke(handler, _arguments(held, handler))
        except Exception as error:
            self._settle(held, handler, error)
        else:
            self._settle(held, handler, value)

    async def _several(
        self, together: list[Held], tasks: tuple[CurrentTask, ...], handler: Handler[..., Any],
        invoke: "Invoke",
    ) -> None:  # fmt: skip
        fitting, named = [], []
        for held, task in zip(together, tasks, strict=True):
            try:
                named.append(_arguments(held, handler))
                fitting.append((held, task))
            except Misfit as error:
                self._settle(held, handler, error)
        if not fitting:
            return
        _batch.set(tuple(task for _, task in fitting))
        (name,) = handler.signature.parameters
        size = len(fitting) if len(fitting) > 1 else 0
        try:
            value = await invoke(handler, {name: [each[name] for each in named]})
            each_outcome = outcomes(value, len(fitting))
        except Exception as error:
            for held, _ in fitting:
                self._settle(held, handler, error, size)
        else:
            for (held, _), outcome in zip(fitting, each_outcome, strict=True):
                self._settle(held, handler, outcome)

    def _settle(self, held: Held, handler: Handler[..., Any], outcome: Any, batch: int = 0) -> None:
        """Settle an attempt by what its handler returned, or by the exception it raised."""
        if isinstance(outcome, Misfit):
            self._fail(held, Failure("InputInvalid", f"the input does not fit the handler: {outcome}"))
        elif isinstance(outcome, Snooze):
            self._wait(held, outcome.seconds, Failure("Snooze", str(outcome)))
        elif isinstance(outcome, Exception):
            held.error = outcome
            self._failed(held, handler, outcome, batch)
        elif isinstance(outcome, Continuation):
            self._settle(held, handler, NonRetryable(_NO_WORKFLOWS), batch)
        else:
            try:
                held.result = Raw(encode_value(outcome if handler.store_result else None))
            except Exception as error:
                held.error = error
                self._failed(held, handler, error, batch)
                return
            self._files += files_in(held.result)
            held.status = replace(held.status, phase=Phase.SUCCEEDED, ended_at=self.now)

    def _failed(self, held: Held, handler: Handler[..., Any], error: Exception, batch: int) -> None:
        reason = "HandlerRaised"
        if isinstance(error, RetryAfter | NonRetryable):
            reason = "RetryAfter" if isinstance(error, RetryAfter) else "NonRetryable"
        lines = "".join(traceback.format_exception(error))
        failure = Failure(reason, f"{type(error).__name__}: {error}", lines)
        status = held.status
        past = PastAttempt(
            status.attempt, EndedBy.ERROR, reason, failure.message, "testing", self.now, status.started_at,
            failure.traceback, batch,
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

    def _wait(self, held: Held, seconds: float, failure: Failure) -> None:
        due_at = self.now + timedelta(seconds=max(0.0, seconds))
        if held.status.deadline is not None and due_at >= held.status.deadline:
            self._fail(held, Failure("DeadlineExceeded", f"no time before its deadline; {failure.message}"))
        else:
            held.status = replace(held.status, phase=Phase.RETRYING, due_at=due_at, failure=failure)

    def _fail(self, held: Held, failure: Failure) -> None:
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
            return expected.read(held.result)
        except Misfit as error:
            raise ResultMismatch(address.id, str(error)) from None


def _seen(held: Held, order: int) -> CurrentTask:
    """Return a task as its handler sees it."""
    status = held.status
    last = status.history.attempts[-1] if status.history.attempts else None
    return CurrentTask(
        status.address.id, status.address.queue, status.address.lane, status.handler, status.attempt,
        status.submitted_at or status.started_at or START, status.deadline,
        f"{last.reason}: {last.message}" if last else "", saved=held.saved, order=order,
    )  # fmt: skip


def _arguments(held: Held, handler: Handler[..., Any]) -> dict[str, Any]:
    """Return the input of a task as its handler takes it.

    Raises:
        Misfit: it does not fit.
    """
    return handler.types.decode(bytes(held.input), msgspec.json.decode(held.input))
