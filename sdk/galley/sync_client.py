"""The client for programs without an event loop: scripts, notebooks, views of Flask and Django."""

import os
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from galley.address import TaskAddress
from galley.batch import SubmitIncomplete, SubmitInterrupted
from galley.broker.cancel import Cancelled
from galley.broker.connection import Broker
from galley.broker.inspect import QueueView
from galley.broker.topics import Published, StoredEvent
from galley.client import AsyncClient, task_address
from galley.encryption.given import Given
from galley.envelope import Envelope
from galley.event import Attribute
from galley.file import File
from galley.handle import AsyncHandle
from galley.handler import Call, check_queue_name
from galley.note import LogLine, Progress
from galley.portal import Portal
from galley.queues import ALL as ANY_TASK
from galley.queues import TaskSelection
from galley.redrive import ALL, DeadTask, Redriven, Selection
from galley.repeat import Repeat
from galley.schedules import ScheduleView
from galley.task_status import Phase, TaskStatus
from galley.tls import Tls
from galley.topics import Replayed, TopicView
from galley.typed import Typed
from galley.unique import Asked
from galley.when import When
from galley.workflow.shape import Item, Shape
from galley.workflow.state import OnFailure
from galley.workflows import (
    DAY_SECONDS,
    AsyncWorkflow,
    StepStatus,
    WorkflowStatus,
    check_workflow_id,
)

R = TypeVar("R")
T = TypeVar("T")


class Client:
    """Submits tasks to the queues of one namespace and finds them again.

    It connects at its first use, or as `with galley.Client() as client:`. Threads may share it. A process
    that was forked uses a connection of its own, so one client per program is enough: make it where the
    program's other global objects are. An event loop that calls it waits meanwhile; use `AsyncClient` there.
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
        labels: dict[str, str] | None = None, unique: Asked | None = None,
    ) -> "Handle[R]": ...  # fmt: skip
    @overload
    def submit(
        self, call: Shape, when: When | None = None, *, task_id: str | None = None,
        labels: dict[str, str] | None = None, unique: None = None,
    ) -> "Workflow[Any]": ...  # fmt: skip
    def submit(
        self, call: Call[R] | Shape, when: When | None = None, *, task_id: str | None = None,
        labels: dict[str, str] | None = None,
        unique: Asked | None = None,
    ) -> "Handle[R] | Workflow[Any]":  # fmt: skip
        """Submit one task, or a workflow, and return when the broker has it on disk: `AsyncClient.submit`.

        Raises:
            TaskConflict, UniqueConflict, QueueNotFound, LaneNotEnabled, QueueFull: as there.
            SubmissionInvalid, LabelInvalid, NotAllowed: as there.
            BrokerUnreachable, BrokerSilent, BrokerFull: as there.
            ClientClosed: the client is closed.
        """
        if isinstance(call, Shape):
            shape, key = call, unique or None
            submit: Callable[..., Any] = AsyncClient.submit
            made: AsyncWorkflow[Any] = self._portal.call(
                lambda client: submit(client, shape, when, task_id=task_id, labels=labels, unique=key)
            )
            return _workflow(self._portal, made)
        return self._sync(
            self._submit(
                lambda client: client.submit(call, when, task_id=task_id, labels=labels, unique=unique)
            )
        )

    def submit_many(
        self, calls: Iterable[Call[R]], when: When | None = None, *, labels: dict[str, str] | None = None
    ) -> list["Handle[R]"]:
        """Submit many tasks as fast as the broker takes them: `AsyncClient.submit_many`.

        `calls` is read to its end first, in the calling thread.

        Raises:
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

    def download(self, file: File, to: str | os.PathLike[str]) -> Path:
        """Write the content of a file of a result to a path and return the path: `AsyncClient.download`.

        Raises:
            ObjectMissing, ObjectDamaged, ObjectStoreUnavailable, ObjectStoreUnknown: as there.
            FileUnreadable, FileElsewhere: as there.
            ClientClosed: the client is closed.
        """
        return self._portal.call(lambda client: client.download(file, to))

    def handle(self, queue: str, task_id: str) -> "Handle[Any]":
        """Return a handle on a task submitted earlier, by this or another program.

        Raises:
            SubmissionInvalid, QueueNameInvalid: if no task can have that id, or no queue that name.
        """
        return Handle(self._portal, task_address(self.namespace, queue, task_id), None)

    @property
    def dead_letters(self) -> "DeadLetters":
        """Tasks that will not be tried again: to look at, edit, drop, and run again."""
        return DeadLetters(self._portal)

    @property
    def topics(self) -> "Topics":
        """Topics: to publish events, look at who subscribes, read events, and replay them."""
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
    def schedules(self) -> "Schedules":
        """What runs again and again: to make, look at, suspend, resume, run now and delete."""
        return Schedules(self._portal)

    @property
    def workflows(self) -> "Workflows":
        """Tasks that belong together: to submit with rules of their own, look at, cancel and run again."""
        return Workflows(self._portal)

    @property
    def queues(self) -> "Queues":
        """Queues as a whole: look at them, pause, drain and empty them, cancel many tasks at once."""
        return Queues(self._portal)

    def logs(self, queue: str, task_id: str, attempt: int | None = None) -> list[LogLine]:
        """Return what the handler of a task wrote: `AsyncHandle.logs`.

        Raises:
            SubmissionInvalid, QueueNameInvalid, DecryptionKeyMissing, BrokerUnreachable: as there.
            ClientClosed: the client is closed.
        """
        return self._portal.call(lambda client: client.logs(queue, task_id, attempt))

    def tasks(self, queue: str, phase: Phase | None = None, *, labels: str = "") -> list[TaskStatus]:
        """Return the tasks of a queue, in the order they were submitted: `AsyncClient.tasks`.

        Raises:
            QueueNotFound, QueueNameInvalid, SelectorInvalid, NotAllowed, BrokerUnreachable: as there.
            ClientClosed: the client is closed.
        """
        return self._portal.call(lambda client: client.tasks(queue, phase, labels=labels))

    def as_completed(
        self, handles: Iterable["Handle[R]"], within: float | None = None
    ) -> Iterator["Handle[R]"]:
        """Yield each handle once its task has ended, in the order in which they end.

        Args:
            handles: any number of them.
            within: seconds for all of them; None waits as long as it takes.

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

    def _sync(self, handle: AsyncHandle[R]) -> "Handle[R]":
        return Handle(
            self._portal, handle.address, handle.envelope, handle.result_type, existed=handle.existed
        )


class Queues:
    """The queues of a namespace: `AsyncQueues`, which says what each call raises."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def get(self, queue: str) -> QueueView:
        """Return one queue: its lanes, how many tasks it holds, and whether it is paused."""
        return self._portal.call(lambda client: client.queues.get(queue))

    def find(self, queue: str, which: TaskSelection = ANY_TASK) -> list[TaskStatus]:
        """Return the tasks of a queue that are meant, in the order they were submitted."""
        return self._portal.call(lambda client: client.queues.find(queue, which))

    def cancel_all(self, queue: str, which: TaskSelection = ANY_TASK) -> list[TaskStatus]:
        """Cancel the tasks that are meant and have not ended; returns those that were cancelled."""
        return self._portal.call(lambda client: client.queues.cancel_all(queue, which))

    def purge(self, queue: str) -> list[TaskStatus]:
        """Cancel all tasks that wait, whether for a slot, a time or a retry; what runs goes on."""
        return self._portal.call(lambda client: client.queues.purge(queue))

    def pause(self, queue: str) -> None:
        """Start no further task of a queue until `resume`; what runs goes on."""
        self._portal.call(lambda client: client.queues.pause(queue))

    def resume(self, queue: str) -> None:
        """Start tasks of a queue again."""
        self._portal.call(lambda client: client.queues.resume(queue))

    def drain(self, queue: str, within: float | None = None) -> None:
        """Pause a queue, and return when no worker holds a task of it. It stays paused."""
        self._portal.call(lambda client: client.queues.drain(queue, within))


class DeadLetters:
    """The dead letters of the queues of a namespace: `AsyncDeadLetters`, which says what each call raises."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def find(self, queue: str, which: Selection = ALL) -> list[DeadTask]:
        """Return the dead letters of a queue, oldest first."""
        return self._portal.call(lambda client: client.dead_letters.find(queue, which))

    def get(self, queue: str, task_id: str) -> DeadTask:
        """Return one dead letter."""
        return self._portal.call(lambda client: client.dead_letters.get(queue, task_id))

    def redrive(self, queue: str, task_id: str) -> Redriven:
        """Have a dead task run again, under its own id, with a fresh budget of retries."""
        return self._portal.call(lambda client: client.dead_letters.redrive(queue, task_id))

    def redrive_all(self, queue: str, which: Selection = ALL, *, rate: float | None = None) -> list[DeadTask]:
        """Redrive all dead letters that are meant, at most `rate` a second; returns them."""
        return self._portal.call(lambda client: client.dead_letters.redrive_all(queue, which, rate=rate))

    def drop(self, queue: str, task_id: str) -> None:
        """Delete a dead letter for good."""
        self._portal.call(lambda client: client.dead_letters.drop(queue, task_id))

    def drop_all(self, queue: str, which: Selection = ALL) -> list[DeadTask]:
        """Delete all dead letters that are meant; returns them."""
        return self._portal.call(lambda client: client.dead_letters.drop_all(queue, which))

    def edit(self, queue: str, task_id: str, **changes: Any) -> DeadTask:
        """Change `input` or `handler` of a dead task before it is redriven; returns it."""
        return self._portal.call(lambda client: client.dead_letters.edit(queue, task_id, **changes))


class Schedules:
    """The schedules of the queues of a namespace: `AsyncSchedules`, which says what each call raises."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def create(
        self, name: str, call: Call[Any], cron: str | Repeat, *, suspended: bool | None = None, **rules: Any
    ) -> ScheduleView:
        """Make a schedule, or change the one of that name: `AsyncSchedules.create`."""
        return self._portal.call(
            lambda client: client.schedules.create(name, call, cron, suspended=suspended, **rules)
        )

    def get(self, queue: str, name: str) -> ScheduleView:
        """Return a schedule."""
        return self._portal.call(lambda client: client.schedules.get(queue, name))

    def list(self, queue: str) -> list[ScheduleView]:
        """Return the schedules of a queue, by name."""
        return self._portal.call(lambda client: client.schedules.list(queue))

    def delete(self, queue: str, name: str) -> None:
        """Delete a schedule: when this returns it fires no more."""
        self._portal.call(lambda client: client.schedules.delete(queue, name))

    def suspend(self, queue: str, name: str) -> ScheduleView:
        """Have a schedule fire no more until `resume`."""
        return self._portal.call(lambda client: client.schedules.suspend(queue, name))

    def resume(self, queue: str, name: str) -> ScheduleView:
        """Have a suspended schedule fire again, from its next tick on."""
        return self._portal.call(lambda client: client.schedules.resume(queue, name))

    def run_now(self, queue: str, name: str, token: str = "") -> "Handle[Any]":
        """Submit what a schedule runs, once and now; the same token submits the same task."""
        handle = self._portal.call(lambda client: client.schedules.run_now(queue, name, token))
        return Handle(self._portal, handle.address, handle.envelope, existed=handle.existed)


class Workflows:
    """The workflows of a namespace: `AsyncWorkflows`, which says what each call raises."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def submit(
        self, item: Item, *, id: str | None = None, when: When | None = None,  # noqa: A002 - its name
        on_failure: OnFailure | str = OnFailure.STOP, timeout_seconds: float = DAY_SECONDS,
        labels: dict[str, str] | None = None,
    ) -> "Workflow[Any]":  # fmt: skip
        """Submit a workflow, and return when the broker has all of it on disk: `AsyncWorkflows.submit`."""
        made: AsyncWorkflow[Any] = self._portal.call(
            lambda client: client.workflows.submit(
                item, id=id, when=when, on_failure=on_failure, timeout_seconds=timeout_seconds, labels=labels
            )
        )
        return _workflow(self._portal, made)

    def get(self, queue: str, id: str) -> "Workflow[Any]":  # noqa: A002 - its name
        """Return a handle on a workflow submitted earlier, by this or another program."""
        check_queue_name(queue)
        return Workflow(self._portal, queue, check_workflow_id(id))

    def list(self, queue: str) -> list[WorkflowStatus]:
        """Return the workflows of a queue, oldest first; ended ones until they expire."""
        return self._portal.call(lambda client: client.workflows.list(queue))


class Workflow(Generic[R]):
    """A submitted workflow, one handle for the whole: `AsyncWorkflow`, which says what each call raises."""

    def __init__(
        self, portal: Portal, queue: str, id: str, result: Typed | None = None,  # noqa: A002 - its name
        *, existed: bool = False,
    ) -> None:  # fmt: skip
        self._portal = portal
        self.queue, self.id = queue, id
        self.existed = existed
        """Whether it was there before this submission, which then added nothing."""
        self._result = result

    def __repr__(self) -> str:
        return f"<workflow {self.queue}/{self.id}>"

    def result(self, within: float | None = None, *, hold_slot: bool = False) -> R:
        """Wait until the workflow has ended and return its result."""
        return self._call(lambda it: it.result(within, hold_slot=hold_slot))

    def wait(self, within: float | None = None, *, hold_slot: bool = False) -> WorkflowStatus:
        """Wait until the workflow has ended, however it did, and return its status."""
        return self._call(lambda it: it.wait(within, hold_slot=hold_slot))

    def status(self) -> WorkflowStatus:
        """Return how far the workflow is."""
        return self._call(lambda it: it.status())

    def steps(self) -> list[StepStatus]:
        """Return all steps, in the order in which they were written."""
        return self._call(lambda it: it.steps())

    def cancel(self) -> Cancelled:
        """Cancel the workflow: no further step begins, and what runs is stopped."""
        return self._call(lambda it: it.cancel())

    def redrive(self) -> "Workflow[R]":
        """Run what did not succeed of a workflow that failed or was cancelled, as a new workflow."""
        return _workflow(self._portal, self._call(lambda it: it.redrive()))

    def _call(self, ask: Callable[[AsyncWorkflow[R]], Coroutine[Any, Any, T]]) -> T:
        return self._portal.call(lambda client: ask(client.workflows.get(self.queue, self.id, self._result)))


def _workflow(portal: Portal, made: AsyncWorkflow[R]) -> Workflow[R]:
    return Workflow(portal, made.queue, made.id, made.result_type, existed=made.existed)


class _Read(Generic[R]):
    """What an iterable yields, and then raises."""

    def __init__(self, calls: Iterable[Call[R]]) -> None:
        self._calls: list[Call[R]] = []
        self._problem: Exception | None = None
        try:
            self._calls.extend(calls)
        except Exception as problem:
            self._problem = problem

    def __iter__(self) -> Iterator[Call[R]]:
        yield from self._calls
        if self._problem is not None:
            raise self._problem


class Handle(Generic[R]):
    """A submitted task: ask for its status, wait for its result, cancel it.

    It can be used in every thread, and in processes that are forked, as long as its client is open.
    """

    def __init__(
        self, portal: Portal, address: TaskAddress, envelope: Envelope | None, result: Typed | None = None,
        *, existed: bool = False,
    ) -> None:  # fmt: skip
        self._portal = portal
        self._envelope = envelope
        self._result = result
        self.address = address
        self.existed = existed
        """Whether the task was there before this submission, which then added nothing."""

    @property
    def id(self) -> str:
        """The task's id."""
        return self.address.id

    def __repr__(self) -> str:
        return f"<task {self.address}>"

    def result(self, within: float | None = None, *, hold_slot: bool = False) -> R:
        """Wait until the task has ended and return what its handler returned: `AsyncHandle.result`.

        Args:
            within: seconds to wait at most; None waits as long as it takes.
            hold_slot: in a handler, wait even for a task of the handler's own queue.

        Raises:
            TaskFailed, TaskCancelled, ResultTimeout, TaskConflict, ResultMismatch: as there.
            WaitsForOwnQueue, WaitsInCircle, QueueNotFound, BrokerUnreachable: as there.
            ClientClosed: its client is closed.
        """
        return self._call(lambda handle: handle.result(within, hold_slot=hold_slot))

    def wait(self, within: float | None = None, *, hold_slot: bool = False) -> TaskStatus:
        """Wait until the task has ended, however it did, and return its status: `AsyncHandle.wait`.

        Raises:
            ResultTimeout, WaitsForOwnQueue, WaitsInCircle, QueueNotFound, BrokerUnreachable: as there.
            ClientClosed: its client is closed.
        """
        return self._call(lambda handle: handle.wait(within, hold_slot=hold_slot))

    def status(self) -> TaskStatus:
        """Return where the task is now.

        Raises:
            TaskNotFound, QueueNotFound, BrokerUnreachable: as `AsyncHandle.status`.
            ClientClosed: its client is closed.
        """
        return self._call(lambda handle: handle.status())

    def progress(self) -> Progress | None:
        """Return how far the task is, as its handler said last; None if it did not say.

        Raises:
            DecryptionKeyMissing, BrokerUnreachable: as `AsyncHandle.progress`.
            ClientClosed: its client is closed.
        """
        return self._call(lambda handle: handle.progress())

    def logs(self, attempt: int | None = None) -> list[LogLine]:
        """Return what the task's handler wrote, of all attempts or of one: `AsyncHandle.logs`.

        Raises:
            DecryptionKeyMissing, BrokerUnreachable: as there.
            ClientClosed: its client is closed.
        """
        return self._call(lambda handle: handle.logs(attempt))

    def follow_logs(self, attempt: int | None = None) -> Iterator[LogLine]:
        """Yield what the task's handler wrote and writes, until the task has ended.

        Raises:
            DecryptionKeyMissing, QueueNotFound, BrokerUnreachable: as there.
            ClientClosed: its client is closed.
        """
        yield from self._portal.iterate(lambda client: self.over(client.broker).follow_logs(attempt))

    def worker_problem(self) -> str:
        """Return why no worker runs the task; empty if one does or will, or nothing is known."""
        return self._call(lambda handle: handle.worker_problem())

    def cancel(self) -> Cancelled:
        """Cancel the task, in whatever state it is; says what that came to.

        Raises:
            TaskNotFound, QueueNotFound, BrokerUnreachable: as `AsyncHandle.cancel`.
            ClientClosed: its client is closed.
        """
        return self._call(lambda handle: handle.cancel())

    def over(self, broker: Broker) -> AsyncHandle[R]:
        """Return the same handle for the event loop of a connection."""
        return AsyncHandle(broker, self.address, self._envelope, self._result, existed=self.existed)

    def _call(self, use: Callable[[AsyncHandle[R]], Coroutine[Any, Any, T]]) -> T:
        return self._portal.call(lambda client: use(self.over(client.broker)))


class Topics:
    """The topics of a namespace: `AsyncTopics`, which says what each call raises."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def publish(
        self, topic: str, data: Any = None, attributes: Mapping[str, Attribute] | None = None, **rules: Any
    ) -> Published:
        """Publish an event, and return when the broker has it on disk."""
        return self._portal.call(lambda client: client.topics.publish(topic, data, attributes, **rules))

    def publish_cloudevent(self, topic: str, body: bytes | str) -> Published:
        """Publish a CloudEvent in structured JSON."""
        return self._portal.call(lambda client: client.topics.publish_cloudevent(topic, body))

    def get(self, topic: str) -> TopicView:
        """Return a topic, who subscribes to it, and how far they are."""
        return self._portal.call(lambda client: client.topics.get(topic))

    def list(self) -> list[TopicView]:
        """Return all topics of the namespace, by name."""
        return self._portal.call(lambda client: client.topics.list())

    def events(self, topic: str, since: datetime | None = None) -> Iterator[StoredEvent]:
        """Yield the events of a topic that are kept, oldest first."""
        return self._portal.iterate(lambda client: client.topics.events(topic, since))

    def replay(
        self, topic: str, subscription: str, since: datetime, until: datetime | None = None
    ) -> Replayed:
        """Run the handler of a subscription for events that are kept."""
        return self._portal.call(lambda client: client.topics.replay(topic, subscription, since, until))
