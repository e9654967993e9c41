"""What a command is, for `main` and for packages that add one; and how its arguments are read."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Generic, TypeVar

from galley.cli.errors import Misuse
from galley.cli.terminal import Terminal
from galley.target import Target

Serving = AbstractAsyncContextManager[Target]
"""Serves tasks while it is open."""

PLUG_INS: Final = "galley.commands"
"""Group of the entry points by which packages add commands."""

Word = TypeVar("Word", bound=StrEnum)


@dataclass(frozen=True)
class Command:
    """One word after `galley`. Packages add theirs as entry points of the group `PLUG_INS`."""

    name: str
    summary: str
    """What it does: a sentence without a full stop."""
    arguments: Callable[[ArgumentParser], None]
    """Declares what may follow the word."""
    run: Callable[[Namespace, Terminal], Awaitable[int]]
    """Does it; returns the exit code, or raises a GalleyError."""
    examples: tuple[str, str]
    """Two lines that work as they stand."""
    kept: "Callable[[Path, str | None, Mapping[str, str]], Serving | None] | None" = None
    """Returns what serves the tasks that the command kept for a folder when it ended, for commands that read:
    given the folder, a namespace and the environment. It returns None if nothing is kept."""


def text(argument: str) -> str:
    """Return an argument as text, whatever the locale; for everything that is not a path.

    Raises:
        Misuse: if it is not UTF-8.
    """
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        raise Misuse(f"the argument {argument[:40]!r} is not UTF-8 text", "write it in UTF-8") from None


@dataclass(frozen=True)
class one_of(Generic[Word]):  # noqa: N801 - stands where argparse takes a function
    """Reads one of some words, in upper or lower case; shells complete them."""

    what: str
    """What such a word is, with its article, such as "a lane"."""
    words: Sequence[Word]
    """Those allowed."""

    def __call__(self, argument: str) -> Word:
        """Return the word.

        Raises:
            Misuse: if it is none of them.
        """
        for word in self.words:
            if word.casefold() == argument.casefold():
                return word
        raise Misuse(f"{argument[:40]!r} is not {self.what}", f"use one of {', '.join(self.words)}")
