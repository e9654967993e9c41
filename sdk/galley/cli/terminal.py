"""Everything a command touches of the world it was started in, so that a test can hand it another."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from rich.console import Console

from galley.errors import GalleyError


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Terminal:
    """The streams, the surroundings and the clock of one command."""

    stdin: TextIO
    stdout: TextIO
    """Results, and nothing else."""
    stderr: TextIO
    """Talk: progress, warnings, errors."""
    environ: Mapping[str, str]
    folder: Path
    """The folder the command was started in."""
    now: Callable[[], datetime] = _now

    @property
    def interactive(self) -> bool:
        """Whether a person reads the results; a pipe gets the same facts for programs."""
        return self.stdout.isatty()

    @property
    def coloured(self) -> bool:
        """Whether colour may help (https://no-color.org)."""
        return self.interactive and not self.environ.get("NO_COLOR") and self.environ.get("TERM") != "dumb"

    def console(self, width: int | None = None) -> Console:
        """Return what draws tables on standard output; as wide as that is, if no width is given."""
        return Console(
            file=self.stdout,
            width=width,
            force_terminal=self.interactive,
            no_color=not self.coloured,
            highlight=False,
            emoji=False,
            markup=False,
        )

    def result(self, text: str) -> None:
        """Print a line that was asked for."""
        print(text, file=self.stdout, flush=True)

    def say(self, text: str) -> None:
        """Tell the person at the keyboard something on the side."""
        print(text, file=self.stderr, flush=True)

    def complain(self, error: GalleyError) -> None:
        """Print an error: two lines, what happened and what to do."""
        what = " ".join(str(error).split())
        hint = " ".join(error.hint.split()) or "galley --help"
        self.say(f"error: {what}\nhint: {hint}")


def own_terminal() -> Terminal:
    """Return the terminal of this process."""
    return Terminal(sys.stdin, sys.stdout, sys.stderr, os.environ, Path.cwd())
