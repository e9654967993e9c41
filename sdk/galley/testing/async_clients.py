"""The clients for tests that are coroutines."""

import asyncio
import functools
import inspect
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from galley.address import TaskAddress
from galley.batch import SomeRefused
from galley.broker.cancel import Cancelled
from galley.broker.topics import Published
from galley.calls import Call, check_queue_name
from galley.client import task_address
from galley.errors import GalleyError
from galley.event import Attribute
from galley.file import File
from galley.handler import Handler
from galley.note import LogLine, Progress
from galley.task_status import Phase, TaskStatus
from galley.testing.clients import Eager, EagerHandle
from galley.testing.letters import AsyncEagerDeadLetters, EagerDeadLetters
from galley.testing.schedules import AsyncEagerSchedules
from galley.unique import Asked
from galley.when import When

R = TypeVar("R")


class AsyncEagerClient(Eager):
    """Takes the place of `galley.AsyncClient` in tests."""

    @functools.cached_property
    def dead_letters(self) -> AsyncEagerDeadLetters:
        """Tasks that failed: to look at, edit, drop, and run again."""
        letters = EagerDeadLetters(self._tasks.all, lambda: self.now, lambda: None)
        return AsyncEagerDeadLetters(letters)

    @functools.cached_property
    def schedules(self) -> AsyncEagerSchedules:
        """Schedules, which fire as `advance` moves the clock."""

        async def run(address: TaskAddress, existed: bool) -> AsyncEagerHandle[Any]:
            await self._tasks.run_due(_invoke_in_loop)
            return AsyncEagerHandle(EagerHandle(self._tasks, address, None, existed=existed))

        return AsyncEagerSchedules(self._tasks.schedules, run)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def submit(
        self, call: Call[R], when: When | None = None, *, task_id: str | None = None,
        labels: dict[str, str] | None = None, unique: Asked | None = None, key: str | None = None,
    ) -> "AsyncEagerHandle[R]":  # fmt: skip
        """Submit a task, and run it if it is due. Tasks run one at a time here, whatever their `key`.

        Raises:
            TaskConflict, UniqueConflict, SubmissionInvalid: as `galley.AsyncClient.submit`.
        """
        call = call if unique is None and key is None else call.options(unique=unique, key=key)
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
                address, existed = self._tasks.add(call, when, None, labels)
            except GalleyError as error:
                refused[place] = error
            else:
                eager: EagerHandle[R] = EagerHandle(self._tasks, address, call.result, existed=existed)
                submitted[place] = AsyncEagerHandle(eager)
        await self._tasks.run_due(_invoke_in_loop)
        if refused:
            raise SomeRefused(dict(submitted), refused)
        return list(submitted.values())

    async def publish(
        self, topic: str, data: Any = None, attributes: Mapping[str, Attribute] | None = None, **rules: Any
    ) -> Published:
        """Publish an event, and run the handlers in this process that subscribe to its topic.

        Raises:
            EventInvalid: as `galley.AsyncClient.publish`.
            FilterFailed, MappingFailed: where a worker stores a dead letter.
        """
        published, calls = self._event(topic, data, attributes, rules)
        for call in calls:
            await self.submit(call)
        return published

    async def put_file(
        self,
        queue: str,
        file: str | os.PathLike[str] | File,
        *,
        keep: timedelta | float = 3600.0,  # noqa: ARG002
    ) -> File:
        """Return the file, which tasks of this client use where it is: `galley.AsyncClient.put_file`."""
        check_queue_name(queue)
        return file if isinstance(file, File) else File(file)

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

    async def tasks(
        self, queue: str, phase: Phase | None = None, *, labels: str = "", limit: int | None = None
    ) -> list[TaskStatus]:
        """Return the tasks of a queue, in the order they were submitted."""
        return self._tasks.of_queue(queue, phase, labels, limit)

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


async def _invoke_in_loop(handler: Handler[..., Any], named: dict[str, Any]) -> Any:
    """Call a handler from an event loop: a plain one in a thread, as it may use a loop of its own."""
    if handler.is_async:
        return await handler.function(**named)
    value = await asyncio.to_thread(handler.function, **named)
    return await value if inspect.iscoroutine(value) else value
