"""Reports progress: the current step, how far it is, and how long it will take."""

import sys
import time
from collections.abc import Callable
from typing import Final

Say = Callable[[str], None]
_LINE_EVERY_SECONDS: Final = 20.0
_EARLY: Final = 0.04
"""So little says nothing about the speed yet."""


def say(text: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def in_words(seconds: float) -> str:
    """Return a length of time as one would say it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"


class Progress:
    """Shows how far a long step is: on a terminal one line that changes, else a line now and then."""

    def __init__(self, what: str, total: float, guess_seconds: float, say: Say = say) -> None:
        """Begin.

        Args:
            what: the step, as a phrase.
            total: how much there is to do, in any unit.
            guess_seconds: how long it takes, as long as nothing better is known.
            say: where lines go if there is no terminal.
        """
        self._what, self._total, self._guess, self._say = what, total, guess_seconds, say
        self._done = 0.0
        self.began = self._said = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._say(f"{what}: about {in_words(guess_seconds)}")

    def advance(self, amount: float) -> None:
        """Note that so much more is done."""
        self._done += amount
        now = time.monotonic()
        if self._terminal:
            sys.stderr.write(f"\r\033[K{self.line(now)}")
            sys.stderr.flush()
        elif now - self._said >= _LINE_EVERY_SECONDS:
            self._said = now
            self._say(self.line(now))

    def finish(self) -> None:
        """Say how long it took."""
        if self._terminal:
            sys.stderr.write("\r\033[K")
        self._say(f"{self._what}: done in {in_words(time.monotonic() - self.began)}")

    def line(self, now: float) -> str:
        """Return what is to be shown at a time of the monotonic clock."""
        part = min(1.0, self._done / self._total) if self._total else 1.0
        elapsed = now - self.began
        total = self._guess if part < _EARLY else elapsed / part
        return f"{self._what}: {part:4.0%}, {in_words(max(1.0, total - elapsed))} to go"
