"""Dead letters of the clients for tests: the failed tasks they have in memory."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Protocol

from msgspec import Raw
from msgspec.structs import replace

from galley.calls import check_handler_name
from galley.dead_task import ALL, DeadTask, Selection
from galley.envelope import encode_input
from galley.errors import DeadLetterNotFound
from galley.history import History
from galley.record import Failure
from galley.redrive import Redriven
from galley.task_status import Phase, TaskStatus

_UNCHANGED: Any = object()


class HeldTask(Protocol):
    """A task as a client for tests has it."""

    status: TaskStatus
    input: Raw
    error: Exception | None


class EagerDeadLetters:
    """Takes the place of `galley.DeadLetters`."""

    def __init__(
        self, held: Callable[[], Iterable[HeldTask]], now: Callable[[], datetime], run: Callable[[], None]
    ) -> None:
        """Args: held: returns all tasks; now: the client's clock; run: runs what is due."""
        self._held, self._now, self._run = held, now, run
        self._dropped: set[tuple[str, str]] = set()

    def find(self, queue: str, which: Selection = ALL) -> list[DeadTask]:
        """Return the dead letters of a queue, oldest first."""
        dead = [_dead(held) for held in self._of(queue)]
        return [each for each in dead if which.admits(each, self._now())]

    def get(self, queue: str, task_id: str) -> DeadTask:
        """Return one dead letter.

        Raises:
            DeadLetterNotFound: there is none of that id.
        """
        return _dead(self._one(queue, task_id))

    def redrive(self, queue: str, task_id: str) -> Redriven:
        """Have a dead task run again, under its own id, with a fresh budget of retries.

        Raises:
            DeadLetterNotFound: there is none of that id.
        """
        self._again(self._one(queue, task_id))
        self._run()
        return Redriven.QUEUED

    def redrive_all(
        self, queue: str, which: Selection = ALL, *, rate: float | None = None, dry_run: bool = False
    ) -> list[DeadTask]:
        """Redrive all dead letters that are meant; returns them. The rate is not waited for."""
        del rate
        meant = self.find(queue, which)
        if dry_run:
            return meant
        for dead in meant:
            self._again(self._one(queue, dead.id))
        self._run()
        return meant

    def drop(self, queue: str, task_id: str) -> None:
        """Delete a dead letter.

        Raises:
            DeadLetterNotFound: there is none of that id.
        """
        self._one(queue, task_id)
        self._dropped.add((queue, task_id))

    def drop_all(self, queue: str, which: Selection = ALL, *, dry_run: bool = False) -> list[DeadTask]:
        """Delete all dead letters that are meant; returns them."""
        meant = self.find(queue, which)
        if dry_run:
            return meant
        self._dropped.update((queue, dead.id) for dead in meant)
        return meant

    def edit(
        self, queue: str, task_id: str, *,
        input: Any = _UNCHANGED,  # noqa: A002 - as manifests and the command name it
        handler: str | None = None,
    ) -> DeadTask:  # fmt: skip
        """Change what a dead task runs, or with what; returns it.

        Raises:
            DeadLetterNotFound: there is none of that id.
            InputInvalid, HandlerNameInvalid: it could not run like that.
        """
        held = self._one(queue, task_id)
        if handler is not None:
            held.status = replace(held.status, handler=check_handler_name(handler))
        if input is not _UNCHANGED:
            held.input = encode_input(held.status.handler, input)
            held.status = replace(held.status, input=held.input)
        return _dead(held)

    def _of(self, queue: str) -> list[HeldTask]:
        failed = [held for held in self._held() if held.status.phase is Phase.FAILED]
        return [
            held
            for held in failed
            if held.status.address.queue == queue and (queue, held.status.address.id) not in self._dropped
        ]

    def _one(self, queue: str, task_id: str) -> HeldTask:
        found = next((held for held in self._of(queue) if held.status.address.id == task_id), None)
        if found is None:
            raise DeadLetterNotFound(queue, task_id)
        return found

    def _again(self, held: HeldTask) -> None:
        status = held.status
        deadline = status.deadline if status.deadline is not None and status.deadline > self._now() else None
        held.error = None
        held.status = replace(
            status, phase=Phase.QUEUED, failure=None, ended_at=None, due_at=None, deadline=deadline,
            history=History(attempts=status.history.attempts),
        )  # fmt: skip


def _dead(held: HeldTask) -> DeadTask:
    status = held.status
    failure = status.failure or Failure("Unknown", "")
    ended_at = status.ended_at
    assert ended_at is not None
    return DeadTask(
        status.address.queue, status.address.id, status.handler, failure.reason, failure.message,
        failure.traceback, ended_at, status.worker, status.attempt, status.address.lane,
        status.history.attempts, held.input, submitted_at=status.submitted_at, labels=status.labels,
    )  # fmt: skip


class AsyncEagerDeadLetters:
    """Takes the place of `galley.AsyncDeadLetters`; each method is that of `EagerDeadLetters`."""

    def __init__(self, letters: EagerDeadLetters) -> None:
        self._letters = letters

    async def find(self, queue: str, which: Selection = ALL) -> list[DeadTask]:
        """Return the dead letters of a queue, oldest first."""
        return self._letters.find(queue, which)

    async def get(self, queue: str, task_id: str) -> DeadTask:
        """Return one dead letter."""
        return self._letters.get(queue, task_id)

    async def redrive(self, queue: str, task_id: str) -> Redriven:
        """Have a dead task run again when `result()` or `advance` next runs what is due."""
        return self._letters.redrive(queue, task_id)

    async def redrive_all(
        self, queue: str, which: Selection = ALL, *, rate: float | None = None, dry_run: bool = False
    ) -> list[DeadTask]:
        """Redrive all dead letters that are meant; returns them."""
        return self._letters.redrive_all(queue, which, rate=rate, dry_run=dry_run)

    async def drop(self, queue: str, task_id: str) -> None:
        """Delete a dead letter."""
        self._letters.drop(queue, task_id)

    async def drop_all(self, queue: str, which: Selection = ALL, *, dry_run: bool = False) -> list[DeadTask]:
        """Delete all dead letters that are meant; returns them."""
        return self._letters.drop_all(queue, which, dry_run=dry_run)

    async def edit(self, queue: str, task_id: str, **changes: Any) -> DeadTask:
        """Change `input` or `handler` of a dead task."""
        return self._letters.edit(queue, task_id, **changes)
