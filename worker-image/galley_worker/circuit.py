"""The circuit: a worker whose attempts all fail takes no tasks for a while, then tries one."""

import logging
from collections.abc import Callable
from enum import StrEnum

log = logging.getLogger(__name__)

Later = Callable[[float, Callable[[], None]], object]
"""Calls something after so many seconds."""


class CircuitState(StrEnum):
    """What a worker does about its queue."""

    CLOSED = "closed"
    """It takes tasks."""
    OPEN = "open"
    """It takes none."""
    TRIAL = "trial"
    """It takes one, and what becomes of it decides."""


class Circuit:
    """Watches the attempts of one worker."""

    def __init__(
        self, failures: int, seconds: float, later: Later, changed: Callable[[], None] = lambda: None
    ) -> None:
        """Describe when it opens.

        Args:
            failures: attempts that fail one after the other, without a success between them.
            seconds: how long it stays open before a trial.
            later: calls something after so many seconds.
            changed: called when the worker may take tasks again.
        """
        self.state = CircuitState.CLOSED
        self.opened = 0
        """How often it opened."""
        self._failures, self._seconds = failures, seconds
        self._later, self._changed = later, changed
        self._in_a_row = 0
        self._besides: int | None = None
        """Attempts that ran before the trial, and may run for long; None until it may begin."""

    @property
    def is_open(self) -> bool:
        """Whether the worker takes no tasks, or a single one to try."""
        return self.state is not CircuitState.CLOSED

    def room(self, free: int, busy: int) -> int:
        """Return how many tasks the worker may take, of so many it could take beside those it runs."""
        if self.state is CircuitState.CLOSED:
            return free
        if self.state is CircuitState.OPEN:
            return 0
        self._besides = busy if self._besides is None else min(busy, self._besides)
        return 1 if busy <= self._besides and free > 0 else 0

    def ended(self, *, failed: bool) -> None:
        """Take in how an attempt ended; those that were handed back or cancelled are left out."""
        if not failed:
            self._in_a_row = 0
            if self.is_open:
                log.info("circuit closed", extra={"after": self._failures})
                self.state = CircuitState.CLOSED
                self._changed()
            return
        self._in_a_row += 1
        tripped = self.state is CircuitState.CLOSED and self._in_a_row >= self._failures
        if tripped or self.state is CircuitState.TRIAL:
            self.opened += 1
            self.state = CircuitState.OPEN
            log.warning("circuit open", extra={"failures": self._in_a_row, "seconds": self._seconds})
            self._later(self._seconds, self._try)

    def _try(self) -> None:
        if self.state is CircuitState.OPEN:
            self.state, self._besides = CircuitState.TRIAL, None
            self._changed()
