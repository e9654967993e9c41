"""Runs what a document tells its reader to do, and compares what it says he will see.

- A fenced `console` block is a session: lines that begin with `$ ` are run, in order, by bash in a terminal
  100 wide; the lines below each are what it prints. `...` on a line of its own stands for any lines,
  within a line for any text.
- `console running` is a command that goes on, as in a terminal of its own: it is left running when it has
  printed what the block shows and works, and is interrupted at the end.
- A fenced block after a sentence that says "save ... `NAME`:" is written to that file, in the folder the
  session is in then.
- Times, ids, addresses and the width of gaps differ from run to run; they are made equal on both sides.
  Port 4222 is replaced by a free one everywhere, since other programs may have it.
"""

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Self

from tests.support.eventually import eventually
from tests.support.port import free_port

PATIENCE_SECONDS: Final = 90.0
_LONGEST_SECONDS: Final = 3600.0

_FENCE: Final = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_SAVED: Final = re.compile(r"\b[Ss]ave\b[^`]*`(?P<name>[\w./-]+)`[^`\n]*:\s*\Z")
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
_OVERWRITTEN: Final = re.compile(r"\r+\n?")
"""What is drawn over a line counts as a line after it."""

_EQUAL: Final = (
    (re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\b"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?"), "TIME"),
    (re.compile(r"\b\d+[smh] ago\b|\bnow\b"), "AGO"),
    (re.compile(r"\b\d+(\.\d+)? ?s\b"), "SECONDS"),
    (re.compile(r"nats://[\w.]+:\d+"), "SERVER"),
    (re.compile(r"(?<=\S) {2,}"), "  "),
)


class Step(NamedTuple):
    """One command and what it prints."""

    line: int
    command: str
    expected: tuple[str, ...]
    running: bool
    """Whether it goes on while what follows is done."""


class Save(NamedTuple):
    """A file to be saved."""

    name: str
    content: str


def read_document(text: str) -> list[Step | Save]:
    """Return what a document tells its reader to do, in order."""
    script: list[Step | Save] = []
    for fence in _FENCE.finditer(text):
        words = fence["info"].split()
        line = text[: fence.start("body")].count("\n") + 1
        saved = _SAVED.search(text[: fence.start()].rstrip())
        if saved:
            script.append(Save(saved["name"], fence["body"]))
        elif words[:1] == ["console"]:
            script.extend(_steps(fence["body"], line, running="running" in words))
    return script


def _steps(body: str, first_line: int, *, running: bool) -> Iterator[Step]:
    command: tuple[int, str] | None = None
    expected: list[str] = []
    for number, line in enumerate(body.splitlines(), first_line):
        if line.startswith("$ "):
            if command:
                yield Step(*command, tuple(expected), running)
            command, expected = (number, line[2:]), []
        elif command is None:
            raise AssertionError(f"line {number}: a console block begins with a command: {line!r}")
        else:
            expected.append(line)
    if command:
        yield Step(*command, tuple(expected), running)


def difference(expected: tuple[str, ...], printed: str, *, begins: bool = False) -> str | None:
    """Return what was printed if it is not what was expected, else None.

    Args:
        expected: lines, in which `...` stands for anything.
        printed: the whole output.
        begins: further output may follow.
    """
    pattern = "".join(_line_pattern(line) for line in expected)
    plain = _OVERWRITTEN.sub("\n", _ESCAPES.sub("", printed))
    text = "".join(line.rstrip() + "\n" for line in _equalled(plain).splitlines())
    matched = re.match(pattern, text) if begins else re.fullmatch(pattern, text)
    return None if matched else text


def _line_pattern(line: str) -> str:
    if line.strip() == "...":
        return r"(?:.*\n)*?"
    parts = (re.escape(part) for part in _equalled(line.rstrip()).split("..."))
    return r"[^\n]*".join(parts) + r"\n"


def _equalled(text: str) -> str:
    for pattern, word in _EQUAL:
        text = pattern.sub(word, text)
    return text


class Reader:
    """A reader who does what a document says, in a folder and with programs handed in."""

    def __init__(
        self, folder: Path, environment: dict[str, str], ready: Callable[[Path], Awaitable[bool]]
    ) -> None:
        """Args: ready: whether what is left running in a folder can be worked with."""
        self._environment = environment
        self._ready = ready
        self._place = folder / ".where"
        self._running: list[_Terminal] = []
        self._port = str(free_port())
        self._place.write_text(str(folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in reversed(self._running):
            each.interrupt()

    def follow(self, script: Sequence[Step | Save]) -> None:
        """Do all of it.

        Raises:
            AssertionError: where a command prints something else, or fails, or does not end.
        """
        for each in script:
            match each:
                case Save(name, content):
                    (self._here / name).write_text(content.replace("4222", self._port))
                case Step(running=True):
                    self._start(each)
                case Step():
                    self._do(each)

    def _do(self, step: Step) -> None:
        with _Terminal(self._bash(step), self._here, self._environment) as terminal:
            printed, code = terminal.rest()
        seen = difference(step.expected, printed)
        told_to_fail = any(line.startswith("error:") for line in step.expected)
        assert seen is None, _report(step, seen)
        assert (code != 0) == told_to_fail, f"line {step.line}: exit code {code}"

    @property
    def _here(self) -> Path:
        return Path(self._place.read_text().rstrip("\n"))

    def _start(self, step: Step) -> None:
        terminal = _Terminal(self._bash(step), self._here, self._environment)
        self._running.append(terminal)
        terminal.read_until(step)
        working = partial(self._ready, self._here)
        asyncio.run(eventually(working, within=PATIENCE_SECONDS, why=f"`{step.command}` can be worked with"))
        terminal.keep_reading()

    def _bash(self, step: Step) -> list[str]:
        command = step.command.replace("4222", self._port)
        return ["bash", "-c", f"trap 'code=$?; pwd > \"{self._place}\"; exit $code' EXIT\n{command}"]


class _Terminal:
    """A command in a terminal of its own."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._screen, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=side, stderr=side, start_new_session=True,
        )  # fmt: skip
        os.close(side)
        self._printed = b""
        self._beside: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.interrupt()

    def rest(self) -> tuple[str, int]:
        """Return all that is printed until the command ends, and its exit code."""
        while self._read(time.monotonic() + PATIENCE_SECONDS):
            pass
        return self._text, self._process.wait(PATIENCE_SECONDS)

    def read_until(self, step: Step) -> None:
        """Read until the command has printed what it should."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (seen := difference(step.expected, self._text, begins=True)) is not None:
            assert self._read(deadline), _report(step, seen)

    def keep_reading(self) -> None:
        """Read from now on while others are looked at: who prints onto a full screen is made to wait."""
        self._beside = threading.Thread(target=self._read_all, args=(_LONGEST_SECONDS,), daemon=True)
        self._beside.start()

    def interrupt(self) -> None:
        """Press Ctrl-C, and see to it that nothing is left."""
        try:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGINT)
                if self._beside is None:
                    self._read_all(PATIENCE_SECONDS)
            self._process.wait(PATIENCE_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(PATIENCE_SECONDS)
            if self._beside is not None:
                self._beside.join(PATIENCE_SECONDS)
            os.close(self._screen)

    def _read_all(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass

    @property
    def _text(self) -> str:
        return self._printed.decode(errors="replace")

    def _read(self, deadline: float) -> bool:
        """Read some more; returns whether there may be more still."""
        ready, _, _ = select.select([self._screen], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"silent for too long; it printed\n{self._text}"
        try:
            more = os.read(self._screen, 65536)
        except OSError:
            return False  # the other side of a terminal was closed
        self._printed += more
        return bool(more)


def _report(step: Step, seen: str) -> str:
    expected = "\n".join(step.expected)
    return f"line {step.line}: `{step.command}` should print\n{expected}\n--- but it printed\n{seen}"
