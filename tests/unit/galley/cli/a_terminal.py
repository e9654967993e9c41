"""A terminal to hand to commands: its streams can be read afterwards, its clock stands still."""

import io
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from galley.cli.terminal import Terminal

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


class Screen(io.StringIO):
    """What a person looks at."""

    def isatty(self) -> bool:
        return True


def a_terminal(
    *, interactive: bool = False, environ: Mapping[str, str] | None = None, folder: Path = Path("/")
) -> Terminal:
    stdout = Screen() if interactive else io.StringIO()
    variables = {"NO_COLOR": "1"} if environ is None else environ
    return Terminal(io.StringIO(), stdout, io.StringIO(), variables, folder, lambda: NOON)


def out(terminal: Terminal) -> str:
    assert isinstance(terminal.stdout, io.StringIO)
    return terminal.stdout.getvalue()


def err(terminal: Terminal) -> str:
    assert isinstance(terminal.stderr, io.StringIO)
    return terminal.stderr.getvalue()
