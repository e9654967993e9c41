"""The client for programs without an event loop: scripts, notebooks, views of Flask and Django."""

import os
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from galley.batch import SubmitIncomplete, SubmitInterrupted, in_turn
from galley.broker.topics import Published
from galley.calls import Call
from galley.client import AsyncClient, task_address
from galley.encryption.given import Given
from galley.event import Attribute
from galley.file import File
from galley.handle import AsyncHandle
from galley.note import LogLine
from galley.portal import Portal
from galley.sync_handle import Handle
from galley.sync_parts import DeadLetters, Queues, Schedules, Topics
from galley.sync_workflows import Workflow, Workflows, workflow_of
from galley.task_status import Phase, TaskStatus
from galley.tls import Tls
from galley.unique import Asked
from galley.when import When
from galley.workflow.shape import Shape
from galley.workflows import (
    AsyncWorkflow,
)

R = TypeVar("R")
T = TypeVar("T")


class Client:
    """Submits tasks to the queues of one namespace and finds them again.

    It connects at its first use, or with `with galley.Client() as client:`. Threads may share it. A forked
    process uses its own connection, so one client per program is enough: create it with the program's other
    global objects. It blocks an event loop that calls it; use `AsyncClient` there.
    """

    def __init__(
        self,
        server: str | None = None,
        namespace: str | None = None,
        *,
        credentials: Path | None = None,
        tls: Tls | None = None,
        keys: Given | None = None,
    ) -> None:
        """Describe the client, with the arguments of `AsyncClient`.

        Raises:
            EncryptionKeysInvalid: if the keys cannot be used.
            SubmissionInvalid: if there can be no such namespace.
        """

        def make() -> AsyncClient:
            return AsyncClient(server, namespace, credentials=credentials, tls=tls, keys=keys)

        self.namespace = make().namespace
        self._portal = Portal(make)

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            BrokerUnreachable, BrokerTooOld, ServerInvalid: there is no usable broker.
            CredentialsInvalid, CredentialsExpired, AccessRefused: authentication failed.
            TlsInvalid, TlsFailed: there is no encrypted connection.
            ClientClosed: it was closed before.
        """
        self._portal.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Calls that wait in other threads, and later ones, raise `ClientClosed`.

        Not needed at the end of a program.
        """
        self._portal.close()

    @overload
    def submit(
        self, call: Call[R], when: When | None = None, *, task_id: str | None = None,
        labels: dict[str, str] | None = None, unique: Asked | None = None, key: str | None = None,
    ) -> Handle[R]: ...  # fmt: skip
    @overload
    def submit(
        self, call: Shape, when: When | None = None, *, task_id: str | None = None,
        labels: dict[str, str] | None = None, unique: None = None, key: None = None,
    ) -> "Workflow[Any]": ...  # fmt: skip
    def submit(
        self, call: Call[R] | Shape, when: When | None = None, *, task_id: str | None = None,
        labels: dict[str, str] | None = None,
        unique: Asked | None = None, key: str | None = None,
    ) -> Handle[R] | Workflow[Any]:  # fmt: skip
        """Submit one task or workflow; return when the broker has stored it: `AsyncClient.submit`.

        Raises:
            TaskConflict, UniqueConflict, QueueNotFound, LaneNotEnabled, QueueFull: as there.
            SubmissionInvalid, LabelInvalid, NotAllowed: as there.
            BrokerUnreachable, BrokerSilent, BrokerFull: as there.
            ClientClosed: the client is closed.
        """
        if isinstance(call, Shape):
            shape, rules = call, {"unique": unique or None, "key": key}
            submit: Callable[..., Any] = AsyncClient.submit
            made: AsyncWorkflow[Any] = self._portal.call(
                lambda client: submit(client, shape, when, task_id=task_id, labels=labels, **rules)
            )
            return workflow_of(self._portal, made)
        return self._sync(
            self._submit(
                lambda client: client.submit(
                    call, when, task_id=task_id, labels=labels, unique=unique, key=key
                )
            )
        )

    def submit_many(
        self, calls: Iterable[Call[R]], when: When | None = None, *, labels: dict[str, str] | None = None
    ) -> list[Handle[R]]:
        """Submit many tasks, pipelined: `AsyncClient.submit_many`.

        `calls` is read to its end first, in the calling thread.

        Raises:
            SubmissionInvalid: `calls` is not iterable.
            SomeRefused, SubmitInterrupted: not all were stored; they hold the handles of those that were.
                After Ctrl-C, `SubmitInterrupted.of(error)` returns the same details.
            ClientClosed: the client is closed.
        """
        # Here, and not in the thread of the event loop: connections of databases belong to their thread.
        read = _Read(calls)
        handles = self._submit(lambda client: client.submit_many(read, when, labels=labels))
        return [self._sync(handle) for handle in handles]

    def _submit(self, submit: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        """Submit, and convert the handles that an error holds to those of this client."""
        try:
            return self._portal.call(submit)
        except BaseException as error:
            incomplete = error if isinstance(error, SubmitIncomplete) else SubmitInterrupted.of(error)
            if incomplete is not None:
                for known in (incomplete.submitted, incomplete.unknown):
                    known.update({place: self._sync(handle) for place, handle in known.items()})
            raise

    def put_file(
        self, queue: str, file: str | os.PathLike[str] | File, *, keep: timedelta | float = 3600.0
    ) -> File:
        """Store a file for tasks that are submitted later: `AsyncClient.put_file`.

        Raises:
            SubmissionInvalid, EncryptionRequired, QueueNotEncrypted, KeyServiceUnavailable: as there.
            ObjectsFull, ObjectStoreUnavailable, FileUnreadable, FileChanged: as there.
            QueueNotFound, NotAllowed, QueueNameInvalid, BrokerUnreachable: as there.
            ClientClosed: the client is closed.
        """
        return self._portal.call(lambda client: client.put_file(queue, file, keep=keep))

    def download(self, file: File, to: str | os.PathLike[str]) -> Path:
        """Write the content of a file in a result to a path and return the path: `AsyncClient.download`.

        Raises:
            ObjectMissing, ObjectDamaged, ObjectStoreUnavailable, ObjectStoreUnknown: as there.
            FileUnreadable, FileElsewhere: as there.
            ClientClosed: the client is closed.
        """
        return self._portal.call(lambda client: client.download(file, to))

    def handle(self, queue: str, task_id: str) -> Handle[Any]:
        """Return a handle on a task submitted earlier, by this or another program.

        Raises:
            SubmissionInvalid, QueueNameInvalid: if no task can have that id, or no queue that name.
        """
        return Handle(self._portal, task_address(self.namespace, queue, task_id), None)

    @property
    def dead_letters(self) -> DeadLetters:
        """Dead letters: list, edit, drop and redrive them."""
        return DeadLetters(self._portal)

    @property
    def topics(self) -> Topics:
        """Topics: publish, list, read and replay events."""
        return Topics(self._portal)

    def publish(
        self, topic: str, data: Any = None, attributes: Mapping[str, Attribute] | None = None, **rules: Any
    ) -> Published:
        """Publish an event: `AsyncTopics.publish`, with its other arguments.

        Raises:
            EventInvalid, TopicNotFound, TopicFull, HopLimit, NotAllowed: as there.
            BrokerUnreachable, BrokerSilent, ClientClosed: as there.
        """
        return self.topics.publish(topic, data, attributes, **rules)

    @property
    def schedules(self) -> Schedules:
        """Schedules: create, inspect, suspend, resume, run and delete them."""
        return Schedules(self._portal)

    @property
    def workflows(self) -> Workflows:
        """Workflows: submit, inspect, cancel and redrive them."""
        return Workflows(self._portal)

    @property
    def queues(self) -> Queues:
        """Operations on queues: inspect, pause, drain and purge them, cancel many tasks at once."""
        return Queues(self._portal)

    def logs(self, queue: str, task_id: str, attempt: int | None = None) -> list[LogLine]:
        """Return the output of a task's handler: `AsyncHandle.logs`.

        Raises:
            SubmissionInvalid, QueueNameInvalid, DecryptionKeyMissing, BrokerUnreachable: as there.
            ClientClosed: the client is closed.
        """
        return self._portal.call(lambda client: client.logs(queue, task_id, attempt))

    def tasks(
        self, queue: str, phase: Phase | None = None, *, labels: str = "", limit: int | None = None
    ) -> list[TaskStatus]:
        """Return the tasks of a queue, in the order they were submitted: `AsyncClient.tasks`.

        Raises:
            QueueNotFound, QueueNameInvalid, SelectorInvalid, SubmissionInvalid, NotAllowed,
                BrokerUnreachable: as there.
            ClientClosed: the client is closed.
        """
        return self._portal.call(lambda client: client.tasks(queue, phase, labels=labels, limit=limit))

    def as_completed(self, handles: Iterable[Handle[R]], within: float | None = None) -> Iterator[Handle[R]]:
        """Yield each handle when its task has ended, in the order in which they end.

        Args:
            handles: any number of them.
            within: seconds for all of them; None waits without a limit.

        Raises:
            ResultTimeout, WaitsForOwnQueue, WaitsInCircle, QueueNotFound, BrokerUnreachable: as
                `AsyncClient.as_completed`.
            ClientClosed: the client is closed.
        """
        waiting = list(handles)

        for handle in self._portal.iterate(
            lambda client: client.as_completed([one.over(client.broker) for one in waiting], within)
        ):
            yield self._sync(handle)

    def _sync(self, handle: AsyncHandle[R]) -> Handle[R]:
        return Handle(
            self._portal, handle.address, handle.envelope, handle.result_type, existed=handle.existed
        )


class _Read(Generic[R]):
    """What an iterable yields, and then raises."""

    def __init__(self, calls: Iterable[Call[R]]) -> None:
        self._calls: list[Call[R]] = []
        self._problem: Exception | None = None
        waiting = in_turn(calls)
        try:
            self._calls.extend(waiting)
        except Exception as problem:
            self._problem = problem

    def __iter__(self) -> Iterator[Call[R]]:
        yield from self._calls
        if self._problem is not None:
            raise self._problem
