"""The parts of a client, for programs without an event loop: queues, dead letters, schedules and topics."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from galley.broker.queue_view import QueueView
from galley.broker.topics import Published, StoredEvent
from galley.calls import Call
from galley.client import AsyncClient
from galley.dead_task import ALL, DeadTask, Selection
from galley.errors import ClientClosed, EventInvalid
from galley.event import Attribute
from galley.listener import BUFFER, AsyncListener
from galley.portal import Portal
from galley.queues import ALL as ANY_TASK
from galley.queues import TaskSelection
from galley.redrive import Redriven
from galley.repeat import Repeat
from galley.schedules import ScheduleView
from galley.sync_handle import Handle
from galley.task_status import TaskStatus
from galley.topics import Replayed, TopicView


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

    def cancel_all(
        self, queue: str, which: TaskSelection = ANY_TASK, *, dry_run: bool = False
    ) -> list[TaskStatus]:
        """Cancel the tasks that are meant and have not ended; returns those that were, or would be."""
        return self._portal.call(lambda client: client.queues.cancel_all(queue, which, dry_run=dry_run))

    def purge(self, queue: str, *, dry_run: bool = False) -> list[TaskStatus]:
        """Cancel all tasks that wait, whether for a slot, a time or a retry; what runs goes on."""
        return self._portal.call(lambda client: client.queues.purge(queue, dry_run=dry_run))

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

    def redrive_all(
        self, queue: str, which: Selection = ALL, *, rate: float | None = None, dry_run: bool = False
    ) -> list[DeadTask]:
        """Redrive all dead letters that are meant, at most `rate` a second; returns them."""
        return self._portal.call(
            lambda client: client.dead_letters.redrive_all(queue, which, rate=rate, dry_run=dry_run)
        )

    def drop(self, queue: str, task_id: str) -> None:
        """Delete a dead letter for good."""
        self._portal.call(lambda client: client.dead_letters.drop(queue, task_id))

    def drop_all(self, queue: str, which: Selection = ALL, *, dry_run: bool = False) -> list[DeadTask]:
        """Delete all dead letters that are meant; returns them."""
        return self._portal.call(lambda client: client.dead_letters.drop_all(queue, which, dry_run=dry_run))

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

    def run_now(self, queue: str, name: str, token: str = "") -> Handle[Any]:
        """Submit what a schedule runs, once and now; the same token submits the same task."""
        handle = self._portal.call(lambda client: client.schedules.run_now(queue, name, token))
        return Handle(self._portal, handle.address, handle.envelope, existed=handle.existed)


class Topics:
    """The topics of a namespace: `AsyncTopics`, which says what each call raises."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def publish(
        self, topic: str, data: Any = None, attributes: Mapping[str, Attribute] | None = None, **rules: Any
    ) -> Published:
        """Publish an event, and return when the broker has it on disk."""
        return self._portal.call(lambda client: client.topics.publish(topic, data, attributes, **rules))

    def publish_cloudevent(
        self, topic: str, body: bytes | str, headers: Mapping[str, str] | None = None
    ) -> Published:
        """Publish a CloudEvent in structured JSON."""
        return self._portal.call(lambda client: client.topics.publish_cloudevent(topic, body, headers))

    def get(self, topic: str) -> TopicView:
        """Return a topic, who subscribes to it, and how far they are."""
        return self._portal.call(lambda client: client.topics.get(topic))

    def list(self) -> list[TopicView]:
        """Return all topics of the namespace, by name."""
        return self._portal.call(lambda client: client.topics.list())

    def events(self, topic: str, since: datetime | None = None) -> Iterator[StoredEvent]:
        """Yield the events of a topic that are kept, oldest first."""
        return self._portal.iterate(lambda client: client.topics.events(topic, since))

    def listen(self, topic: str, filter: str = "", *, buffer: int = BUFFER) -> "Listener":  # noqa: A002
        """Hear the events of a topic as they are published, while a block runs."""
        return Listener(self._portal, lambda client: client.topics.listen(topic, filter, buffer=buffer))

    def replay(
        self, topic: str, subscription: str, since: datetime, until: datetime | None = None
    ) -> Replayed:
        """Run the handler of a subscription for events that are kept."""
        return self._portal.call(lambda client: client.topics.replay(topic, subscription, since, until))


class Listener:
    """The events of a topic as they are published: `AsyncListener`, which says what its use raises."""

    def __init__(self, portal: Portal, make: Callable[[AsyncClient], AsyncListener]) -> None:
        self._portal, self._make = portal, make
        self._listener: AsyncListener | None = None

    @property
    def dropped(self) -> int:
        """Events that were heard and not taken before newer ones needed their place."""
        return 0 if self._listener is None else self._listener.dropped

    @property
    def gaps(self) -> int:
        """How often events may have been missed: the connection was lost, or more came than is heard."""
        return 0 if self._listener is None else self._listener.gaps

    @property
    def failed(self) -> int:
        """Events to which the filter could not be applied, or that are none."""
        return 0 if self._listener is None else self._listener.failed

    def __enter__(self) -> Self:
        """Listen."""

        async def enter(client: AsyncClient) -> AsyncListener:
            return await self._make(client).__aenter__()

        self._listener = self._portal.call(enter)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        listener = self._listener
        with suppress(ClientClosed):  # it ended with the client
            if listener is not None:
                self._portal.call(lambda _: listener.__aexit__(None, None, None))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StoredEvent:
        listener = self._listener
        if listener is None:
            hint = "use it as: with client.topics.listen(...) as events"
            raise EventInvalid("listener", "does not listen", hint)
        return self._portal.call(lambda _: listener.__anext__())
