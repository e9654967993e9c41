"""The clients that run tasks in memory, and their handles."""

import asyncio
import functools
import inspect
import os
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextvars import copy_context
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import msgspec

from galley.address import TaskAddress
from galley.batch import SomeRefused
from galley.broker.cancel import Cancelled
from galley.broker.topics import Published
from galley.calls import Call, check_queue_name
from galley.client import task_address
from galley.errors import (
    GalleyError,
)
from galley.event import Attribute, event_of
from galley.file import File
from galley.handler import Handler
from galley.note import LogLine, Progress
from galley.registry import REGISTRY
from galley.retry import RetryPolicy
from galley.task_status import Phase, TaskStatus
from galley.testing.letters import EagerDeadLetters
from galley.testing.schedules import EagerSchedules
from galley.testing.tasks import START, Tasks
from galley.topic import Subscription, concerns, copy_id, subscription_name, task_of
from galley.typed import Typed
from galley.unique import Asked
from galley.when import When

R = TypeVar("R")
T = TypeVar("T")


class Handle(Protocol):
    """What names a task."""

    @property
    def address(self) -> TaskAddress:
        """Where it is."""


class Eager:
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
        self.namespace = namespace
        self._tasks = Tasks(namespace, now, retry or RetryPolicy(), run=run)

    @property
    def now(self) -> datetime:
        """The time of the client's clock."""
        return self._tasks.now

    def input(self, handle: "Handle") -> Any:
        """Return the input of a task as JSON has it: the arguments of a handler by name."""
        return msgspec.json.decode(self._tasks.find(handle.address).input)

    def _event(
        self, topic: str, data: Any, attributes: Mapping[str, Attribute] | None, rules: dict[str, Any]
    ) -> tuple[Published, list[Call[Any]]]:
        """Return an event, and the calls of the handlers in this process that subscribe to it."""
        source = rules.pop("source", "") or "galley"
        event = event_of(data, self.now, source=source, attributes=attributes, **rules)
        calls = []
        for queue in REGISTRY.queues():
            for name, handler in REGISTRY.of_queue(queue).items():
                for asked in handler.subscribes:
                    named = subscription_name(queue, name)
                    subscription = Subscription(
                        named, queue, name, asked.filter, input=asked.input, key=asked.key
                    )
                    if asked.topic != topic or not concerns(subscription, topic, event, self.now):
                        continue
                    task = task_of(topic, subscription, event, self.now)
                    own = copy_id(topic, named, event)
                    calls.append(Call[Any](queue, name, task.input, lane=handler.lane, task_id=own))
        return Published(topic, event.id, 0), calls


class EagerClient(Eager):
    """Takes the place of `galley.Client` in tests."""

    @functools.cached_property
    def dead_letters(self) -> EagerDeadLetters:
        """Tasks that failed: to look at, edit, drop, and run again, which happens at once."""
        return EagerDeadLetters(
            self._tasks.all, lambda: self.now, lambda: _finished(self._tasks.run_due(_invoke))
        )

    @functools.cached_property
    def schedules(self) -> EagerSchedules:
        """Schedules, which fire as `advance` moves the clock."""

        def run(address: TaskAddress, existed: bool) -> EagerHandle[Any]:
            _finished(self._tasks.run_due(_invoke))
            return EagerHandle(self._tasks, address, None, existed=existed)

        return EagerSchedules(self._tasks.schedules, run)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing, as there is nothing to close."""

    def submit(
        self, call: Call[R], when: When | None = None, *, task_id: str | None = None,
        labels: dict[str, str] | None = None, unique: Asked | None = None, key: str | None = None,
    ) -> "EagerHandle[R]":  # fmt: skip
        """Submit a task, and run it if it is due. Tasks run one at a time here, whatever their `key`.

        Raises:
            TaskConflict, UniqueConflict, SubmissionInvalid: as `galley.Client.submit`.
        """
        call = call if unique is None and key is None else call.options(unique=unique, key=key)
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
                address, existed = self._tasks.add(call, when, None, labels)
            except GalleyError as error:
                refused[place] = error
            else:
                submitted[place] = EagerHandle(self._tasks, address, call.result, existed=existed)
        _finished(self._tasks.run_due(_invoke))
        if refused:
            raise SomeRefused(dict(submitted), refused)
        return list(submitted.values())

    def publish(
        self, topic: str, data: Any = None, attributes: Mapping[str, Attribute] | None = None, **rules: Any
    ) -> Published:
        """Publish an event, and run the handlers in this process that subscribe to its topic.

        Raises:
            EventInvalid: as `galley.Client.publish`.
            FilterFailed, MappingFailed: where a worker stores a dead letter.
        """
        published, calls = self._event(topic, data, attributes, rules)
        for call in calls:
            self.submit(call)
        return published

    def put_file(
        self,
        queue: str,
        file: str | os.PathLike[str] | File,
        *,
        keep: timedelta | float = 3600.0,  # noqa: ARG002
    ) -> File:
        """Return the file, which tasks of this client use where it is: `galley.Client.put_file`."""
        check_queue_name(queue)
        return file if isinstance(file, File) else File(file)

    def download(self, file: File, to: str | os.PathLike[str]) -> Path:
        """Copy the content of a file to a path and return the path: `galley.Client.download`."""
        return file.save(to)

    def handle(self, queue: str, task_id: str) -> "EagerHandle[Any]":
        """Return a handle on a task of this client."""
        return EagerHandle(self._tasks, task_address(self.namespace, queue, task_id), None)

    def logs(self, queue: str, task_id: str, attempt: int | None = None) -> list[LogLine]:
        """Return nothing: handlers run in this process, and what they write goes where its output goes."""
        return self.handle(queue, task_id).logs(attempt)

    def tasks(
        self, queue: str, phase: Phase | None = None, *, labels: str = "", limit: int | None = None
    ) -> list[TaskStatus]:
        """Return the tasks of a queue, in the order they were submitted."""
        return self._tasks.of_queue(queue, phase, labels, limit)

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
        self, tasks: Tasks, address: TaskAddress, result: Typed | None, *, existed: bool = False
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


async def _invoke(handler: Handler[..., Any], named: dict[str, Any]) -> Any:
    """Call a handler where no event loop is used: an `async def` one gets a loop of its own."""
    value = handler.function(**named)
    return _in_own_loop(value) if inspect.iscoroutine(value) else value


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
