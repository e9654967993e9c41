"""What a command is, for `main` and for packages that add one."""

from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from galley.cli.terminal import Terminal


@dataclass(frozen=True)
class Command:
    """One word after `galley`. Packages offer theirs as entry points of the group `galley.commands`."""

    name: str
    summary: str
    """What it does: a sentence without a full stop."""
    arguments: Callable[[ArgumentParser], None]
    """Declares what may follow the word."""
    run: Callable[[Namespace, Terminal], Awaitable[int]]
    """Does it; returns the exit code, or raises a GalleyError."""
    examples: tuple[str, str]
    """Two lines that work as they stand."""
