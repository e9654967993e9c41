"""The streams, environment and clock of a command, so that a test can replace them."""

import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO, cast

from rich.console import Console

from galley.cli.errors import Misuse, OutputClosed, OutputFailed
from galley.dev_file import here
from galley.errors import GalleyError, ManifestInvalid
from galley.file import File
from galley.shown import safe, safe_json


def _now() -> datetime:
    return datetime.now(UTC)


class Color(StrEnum):
    """When to use colour."""

    AUTO = "auto"
    """On a terminal that can show it, unless `NO_COLOR` is set (https://no-color.org)."""
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True)
class Terminal:
    """The streams, the environment and the clock of one command."""

    stdin: TextIO | None
    """None if it is closed."""
    stdout: TextIO
    """Results, and nothing else."""
    stderr: TextIO
    """Progress, warnings, errors."""
    environ: Mapping[str, str]
    folder: Path
    """The folder the command was started in."""
    now: Callable[[], datetime] = _now
    color: Color = Color.AUTO

    @property
    def interactive(self) -> bool:
        """Whether a person reads the results; a pipe gets the same facts for programs."""
        return self.stdout.isatty()

    @property
    def coloured(self) -> bool:
        """Whether to use colour on standard output."""
        return self.colours(self.stdout)

    def colours(self, stream: TextIO) -> bool:
        """Return whether to use colour on a stream."""
        if self.color is Color.AUTO:
            return stream.isatty() and not self.environ.get("NO_COLOR") and not self.dumb
        return self.color is Color.ALWAYS

    @property
    def dumb(self) -> bool:
        """Whether the terminal can only append text."""
        return self.environ.get("TERM") == "dumb"

    def console(self, width: int | None = None) -> Console:
        """Return what draws tables on standard output; by default as wide as that is."""
        return Console(
            file=self.stdout,
            width=width,
            force_terminal=self.interactive or self.coloured,
            # What rich finds out by itself depends on TERM, which says nothing of the reader of a pipe.
            color_system="standard" if self.coloured else "auto",
            no_color=not self.coloured,
            highlight=False,
            emoji=False,
            markup=False,
        )

    def can_show(self, text: str) -> bool:
        """Return whether the encoding of standard output has all characters of a text."""
        try:
            text.encode(getattr(self.stdout, "encoding", None) or "utf-8")
        except UnicodeEncodeError:
            return False
        return True

    def result(self, text: str) -> None:
        """Print a line of the result.

        Raises:
            OutputFailed, OutputClosed: if it cannot be written.
        """
        print(safe(text), file=self.stdout, flush=True)

    def json(self, value: object, indent: int | None = None) -> None:
        """Print a value as JSON, on one line or indented.

        Raises:
            OutputFailed, OutputClosed: if it cannot be written.
        """
        layout: dict[str, Any] = {"indent": indent} if indent else {"separators": (",", ":")}
        layout["default"] = _file
        text = json.dumps(value, ensure_ascii=False, **layout)
        self.result(safe_json(text) if self.can_show(text) else json.dumps(value, **layout))

    def say(self, text: str) -> None:
        """Print a line on standard error; a stream that cannot be written loses it."""
        with suppress(OutputFailed):
            print(safe(text), file=self.stderr, flush=True)

    def complain(self, error: GalleyError) -> None:
        """Print an error in two lines: what happened and what to do. A manifest has two for each problem."""
        for each in (error, *(error.others if isinstance(error, ManifestInvalid) else ())):
            what = " ".join(str(each).split())
            hint = " ".join(each.hint.split()) or "galley --help"
            self.say(f"error: {what}\nhint: {hint}")

    def read_input(self) -> str:
        """Return all of standard input, as UTF-8 with or without a byte order mark.

        Raises:
            Misuse: if it is closed, or not UTF-8.
        """
        if self.stdin is None:
            raise Misuse("standard input is closed", "pass the input as an argument, or through a pipe")
        raw = getattr(self.stdin, "buffer", None)
        try:
            return raw.read().decode("utf-8-sig") if raw is not None else self.stdin.read()
        except UnicodeDecodeError as error:
            raise Misuse(
                f"standard input is not UTF-8 text: byte 0x{error.object[error.start]:02x} at position "
                f"{error.start}",
                "convert it to UTF-8 first",
            ) from None
        except OSError as error:
            raise Misuse(
                f"standard input cannot be read: {error.strerror}", "pass the input as an argument"
            ) from None


class Output(io.TextIOBase):
    """An output stream whose failures are our errors; after the first one, further output is discarded."""

    def __init__(self, name: str, stream: TextIO | None) -> None:
        self._name, self._stream = name, stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return self._stream.encoding if self._stream is not None else "utf-8"

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor, which rich asks for the size of a terminal."""
        if self._stream is None:
            raise OSError(f"{self._name} is closed")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write a text."""
        if self._stream is None:
            raise OutputFailed(self._name, "it is closed")
        try:
            return self._stream.write(text)
        except OSError as error:
            raise self._failure(error) from None

    def flush(self) -> None:
        """Hand on what was written."""
        if self._stream is None:
            return
        try:
            self._stream.flush()
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> OutputFailed:
        # Python flushes the stream again when it ends, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        if isinstance(error, BrokenPipeError):
            return OutputClosed(self._name, "its reader has gone")
        return OutputFailed(self._name, error.strerror or str(error))


def own_terminal() -> Terminal:
    """Return the terminal of this process."""
    for descriptor in (0, 1, 2):
        # A closed one would be given to the next socket or file, and our output written into that.
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    stdout, stderr = Output("standard output", sys.stdout), Output("standard error", sys.stderr)
    return Terminal(sys.stdin, cast("TextIO", stdout), cast("TextIO", stderr), os.environ, here())


def _file(value: object) -> object:
    """Return what is printed for a file of a result."""
    if isinstance(value, File):
        return {"file": value.name, "size": value.size, "digest": value.digest}
    raise TypeError(f"{type(value).__name__} is not JSON")
