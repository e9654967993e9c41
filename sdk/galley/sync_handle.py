"""A submitted task, for programs without an event loop."""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

from galley.address import TaskAddress
from galley.broker.cancel import Cancelled
from galley.broker.connection import Broker
from galley.envelope import Envelope
from galley.handle import AsyncHandle
from galley.note import LogLine, Progress
from galley.portal import Portal
from galley.task_status import TaskStatus
from galley.typed import Typed

R = TypeVar("R")
T = TypeVar("T")


class Handle(Generic[R]):
    """A submitted task: get its status, wait for its result, cancel it.

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
            within: seconds to wait at most; None waits without a limit.
            hold_slot: in a handler, wait even for a task of the handler's own queue.

        Raises:
            TaskFailed, TaskCancelled, TaskNotFound, ResultTimeout, TaskConflict, ResultMismatch: as there.
            WaitsForOwnQueue, WaitsInCircle, QueueNotFound, BrokerUnreachable: as there.
            ClientClosed: its client is closed.
        """
        return self._call(lambda handle: handle.result(within, hold_slot=hold_slot))

    def wait(self, within: float | None = None, *, hold_slot: bool = False) -> TaskStatus:
        """Wait until the task has ended, however it did, and return its status: `AsyncHandle.wait`.

        Raises:
            TaskNotFound, ResultTimeout, WaitsForOwnQueue, WaitsInCircle, QueueNotFound, BrokerUnreachable:
                as there.
            ClientClosed: its client is closed.
        """
        return self._call(lambda handle: handle.wait(within, hold_slot=hold_slot))

    def status(self) -> TaskStatus:
        """Return the present status of the task.

        Raises:
            TaskNotFound, QueueNotFound, BrokerUnreachable: as `AsyncHandle.status`.
            ClientClosed: its client is closed.
        """
        return self._call(lambda handle: handle.status())

    def progress(self) -> Progress | None:
        """Return the latest progress that the handler reported; None if there is none.

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
        """Yield the past and future output of the task's handler, until the task has ended.

        Raises:
            DecryptionKeyMissing, QueueNotFound, BrokerUnreachable: as there.
            ClientClosed: its client is closed.
        """
        yield from self._portal.iterate(lambda client: self.over(client.broker).follow_logs(attempt))

    def worker_problem(self) -> str:
        """Return why no worker runs the task; empty if one does or will, or nothing is known."""
        return self._call(lambda handle: handle.worker_problem())

    def cancel(self) -> Cancelled:
        """Cancel the task in any state; return the outcome.

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
