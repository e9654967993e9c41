"""The task that the present code runs for, as its handler sees it."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

from galley.errors import AttemptOver, CheckpointInvalid, ProgressInvalid
from galley.json_value import encode_value
from galley.note import CHECKPOINT_LIMIT, TEXT_LIMIT

_ROUNDING = 1e-6
"""By so much a sum of fractions may exceed 1."""


class Reporter(Protocol):
    """Takes what a handler reports, for one attempt after the other."""

    def progress(self, order: int, fraction: float | None, text: str) -> bool:
        """Pass on how far an attempt is; return False if it does not run here."""

    def checkpoint(self, order: int, body: bytes) -> bool:
        """Pass on a checkpoint; return False if its attempt does not run here."""


class CurrentTask(Struct, frozen=True):
    """The task a handler runs for, and which attempt of it this is."""

    id: str
    queue: str
    lane: str
    handler: str
    attempt: int
    """Number of this attempt, counted from 1."""
    submitted_at: datetime
    deadline: datetime | None
    """Time at which this attempt is stopped and the task given up; None if there is none."""
    last_error: str
    """Reason and message of the attempt before; empty if there was none."""
    ancestors: tuple[str, ...] = ()
    """Queues (`NAMESPACE/QUEUE`) of the handlers it descends from: the one that submitted it is the last."""
    saved: Raw | None = None
    """The last checkpoint of an earlier attempt, as JSON; None if there is none."""
    order: int = 0
    """Which attempt of this process it is; of use to Galley alone."""

    @property
    def last_checkpoint(self) -> Any:
        """The value of the last checkpoint that an earlier attempt stored; None if there is none."""
        return None if self.saved is None else msgspec.json.decode(self.saved)

    def progress(self, fraction: float | None = None, text: str = "") -> None:
        """Say how far the task is.

        It may be called as often as one likes: at most one value a second is stored, and always the last.
        `handle.progress()`, `galley get tasks`, `galley show` and those who wait with the command show it.

        Args:
            fraction: from 0 to 1; None if it is not known.
            text: what is being done, such as "page 40 of 100". At most 200 characters are kept.

        Raises:
            ProgressInvalid: it is no such number, or no text.
            AttemptOver: this attempt does not run in this process: it has ended, or the handler started
                another process, which calls this.
        """
        _check_progress(fraction, text)
        kept = text.encode(errors="backslashreplace").decode()[:TEXT_LIMIT]
        if not _reporter().progress(
            self.order, None if fraction is None else min(1.0, float(fraction)), kept
        ):
            raise AttemptOver(self.id, self.attempt)

    def checkpoint(self, value: Any) -> None:
        """Store a value for the next attempt of the task, which finds it as `last_checkpoint`.

        It replaces the one before. It is written within a second, and in any case when the attempt ends; if
        the worker itself is killed before that, the next attempt gets the one before. What is done between
        a checkpoint and the end of the attempt is done again.

        Args:
            value: anything that can be written as JSON, at most 512 KiB.

        Raises:
            CheckpointInvalid: it is not JSON, or is too large; the checkpoint before it stays.
            AttemptOver: as `progress`.
        """
        try:
            body = encode_value(value)
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            advice = "use numbers, text, lists and objects only"
            raise CheckpointInvalid(self.id, f"it cannot be written as JSON: {error}", advice) from None
        if len(body) > CHECKPOINT_LIMIT:
            raise CheckpointInvalid(
                self.id, f"{len(body)} bytes of JSON, the limit is {CHECKPOINT_LIMIT}",
                "store the data elsewhere, and its place in the checkpoint",
            )  # fmt: skip
        if not _reporter().checkpoint(self.order, body):
            raise AttemptOver(self.id, self.attempt)


def _check_progress(fraction: Any, text: Any) -> None:
    number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    fits = fraction is None or (number and 0 <= fraction <= 1 + _ROUNDING)
    if not fits or not isinstance(text, str):
        raise ProgressInvalid(f"{fraction!r}, {text!r}")


class _Nowhere:
    """Outside of a worker no attempt runs."""

    def progress(self, _order: int, _fraction: float | None, _text: str) -> bool:
        return False

    def checkpoint(self, _order: int, _body: bytes) -> bool:
        return False


def _nothing() -> CurrentTask | None:
    return None


def _none() -> tuple[CurrentTask, ...]:
    return ()


def _nowhere() -> Reporter:
    return _Nowhere()


_find: Callable[[], CurrentTask | None] = _nothing
_find_batch: Callable[[], tuple[CurrentTask, ...]] = _none
_reporter: Callable[[], Reporter] = _nowhere


def current_task() -> CurrentTask | None:
    """Return the task that this code runs for; None outside of a worker, and in a handler of batches.

    Threads and asyncio tasks that a handler starts see the handler's task. `id` and `attempt` make a key for
    calls that must not be repeated; `id` alone is the same for all attempts.
    """
    return _find()


def current_batch() -> tuple[CurrentTask, ...]:
    """Return the tasks whose inputs a handler of batches has, in the order of the inputs.

    Each has its own id, attempt, progress and checkpoints. Empty outside of such a handler.
    """
    return _find_batch()


def find_by(
    find: Callable[[], CurrentTask | None],
    reporter: Callable[[], Reporter] = _nowhere,
    batch: Callable[[], tuple[CurrentTask, ...]] = _none,
) -> None:
    """Set how `current_task` and `current_batch` find it, and where reports go.

    A worker does, in each of its processes.
    """
    global _find, _reporter, _find_batch
    _find, _reporter, _find_batch = find, reporter, batch
