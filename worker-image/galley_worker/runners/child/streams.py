"""Standard output of a child, marked with the order that wrote it.

Several handlers write to one pipe, one after the other or interleaved. Before the first bytes of another
handler goes its mark, and a closing mark when it has ended, so the supervisor need not guess:

    0x1E <order id> 0x1F      what follows belongs to this order
    0x1E -<order id> 0x1F     this order has ended

A line of a log begins with its level and the name of its logger; the first line of a record has the fields
that `extra` added to it, too:

    0x1D <level> <logger> 0x1D
    0x1D <level> <logger> 0x1C <JSON object> 0x1D

What bypasses `sys.stdout` (C code, programs a handler starts) carries no mark and counts for the handler
that is running.
"""

import io
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from galley_worker.runners.log_fields import fields_of

OPEN: Final = b"\x1e"
CLOSE: Final = b"\x1f"
RECORD: Final = "\x1d"
FIELDS: Final = "\x1c"
_HELD: Final = 8192
"""Bytes of an unfinished line that are held back, so that one `print` is one write."""

current: Final[ContextVar[int]] = ContextVar("galley order", default=0)
"""The order that the running code works for, where the thread alone does not tell; 0 for none."""


class Streams:
    """Both output streams of this process."""

    def __init__(self) -> None:
        self.owner: Callable[[], int] = current.get
        """Returns the id of the order the calling code works for, or 0."""
        self.written: set[int] = set()
        """Orders that wrote something and have not been closed."""
        self.touched = False
        """Whether a handler closed or changed one of the streams, as far as these noticed."""
        self._pipes: tuple[tuple[int, int], ...] = ()
        self._identity: tuple[int, ...] = ()
        self._raw: tuple[_Marked, _Marked] = (_Marked(self, 1), _Marked(self, 2))
        self._texts: tuple[_Text, _Text] | None = None

    def attach(self, stdout: int, stderr: int) -> None:
        """Write to these pipes, of which the numbers 1 and 2 are copies a handler may close."""
        self._pipes = ((1, stdout), (2, stderr))
        self._identity = os.fstat(stdout).st_ino, os.fstat(stderr).st_ino
        for raw, descriptor in zip(self._raw, (stdout, stderr), strict=True):
            raw.descriptor = descriptor
        if self._texts is None:
            self.install()

    def install(self) -> None:
        """Make these the streams of Python."""
        out, err = self._texts = _Text(self._raw[0]), _Text(self._raw[1])
        sys.stdout = sys.__stdout__ = out  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = err  # type: ignore[misc]
        self.touched = False

    def log(self, text: str, level: int, name: str, fields: str = "") -> None:
        """Write lines of a log to standard error, whatever a handler made of `sys.stderr`."""
        begin = f"{RECORD}{level} {name}"
        first = f"{begin}{FIELDS}{fields}{RECORD}" if fields else f"{begin}{RECORD}"
        lines = first + text.replace("\n", f"\n{begin}{RECORD}") + "\n"
        self._raw[1].write(lines.encode("utf-8", "backslashreplace"))

    def end(self, order: int) -> None:
        """Mark what this order wrote as complete."""
        self.written.discard(order)
        for raw in self._raw:
            raw.end(order)

    def restore(self) -> None:
        """Put back what a handler closed, changed or replaced."""
        if not self.intact:
            # Not the same objects again: a wrapper that a handler forgot closes them when it is collected.
            self._raw = tuple(_Marked(self, pipe) for _, pipe in self._pipes)  # type: ignore[assignment]
            self.install()

    def restore_descriptors(self) -> None:
        """Put back file descriptors 1 and 2 where a handler closed or replaced them."""
        for (descriptor, pipe), inode in zip(self._pipes, self._identity, strict=True):
            try:
                same = os.fstat(descriptor).st_ino == inode
            except OSError:
                same = False
            if not same:
                os.dup2(pipe, descriptor)

    @property
    def intact(self) -> bool:
        """Whether Python's streams are still the ones installed here, as they were."""
        texts = self._texts
        return texts is not None and sys.stdout is texts[0] and sys.stderr is texts[1] and not self.touched


class _Text(io.TextIOWrapper):
    """A text stream that notices when it is closed or changed."""

    def __init__(self, raw: "_Marked") -> None:
        # Python itself puts text straight on a raw stream when it runs unbuffered; only its types say
        # otherwise.
        buffer: Any = raw
        self._streams = raw.streams
        super().__init__(buffer, encoding="utf-8", errors="backslashreplace", write_through=True)

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "_streams":
            self._streams.touched = True
        super().__setattr__(name, value)

    def reconfigure(self, **changes: Any) -> None:
        self._streams.touched = True
        super().reconfigure(**changes)

    def detach(self) -> Any:
        self._streams.touched = True
        return super().detach()

    def close(self) -> None:
        self._streams.touched = True
        super().close()


class _Marked(io.RawIOBase):
    """Writes to a pipe, with a mark wherever the owner changes."""

    def __init__(self, streams: Streams, descriptor: int) -> None:
        self.streams = streams
        self.descriptor = descriptor
        self._lock = threading.RLock()
        self._marked = 0
        self._owner = 0
        self._held = b""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """Return the number all programs know, so that closing it does not silence the next handler."""
        return 1 if self is self.streams._raw[0] else 2  # noqa: SLF001 - one class in two halves

    def write(self, data: "io.ReadableBuffer") -> int:  # type: ignore[name-defined]
        text = bytes(data)
        owner = self.streams.owner()
        with self._lock:
            if owner != self._owner:
                self._emit()
                self._owner = owner
            if owner:
                self.streams.written.add(owner)
            self._held += text
            if text.endswith(b"\n") or len(self._held) > _HELD:
                self._emit()
        return len(text)

    def flush(self) -> None:
        if not self.closed:
            with self._lock:
                self._emit()

    def close(self) -> None:
        self.streams.touched = True
        super().close()

    def end(self, order: int) -> None:
        """Write what is held back, and the closing mark if this order wrote here."""
        with self._lock:
            self._emit()
            self._send(OPEN + b"-%d" % order + CLOSE)
            if self._marked == order:
                self._marked = 0

    def _emit(self) -> None:
        held, self._held = self._held, b""
        if not held:
            return
        if self._owner != self._marked:
            held = OPEN + b"%d" % self._owner + CLOSE + held
            self._marked = self._owner
        self._send(held)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.descriptor, view) :]


class LogLines(logging.Handler):
    """Sends log records to the supervisor with their level and logger.

    It takes the place of `logging.lastResort`, so a module that configures logging itself still decides.
    """

    def __init__(self, streams: Streams) -> None:
        super().__init__()
        self._streams = streams

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message and the traceback of a record, a line each, and what `extra` added."""
        try:
            self._streams.log(self.format(record), record.levelno, record.name, fields_of(record))
        except Exception:
            self.handleError(record)


STREAMS: Final = Streams()
"""The streams of this process. Made before the fork, since a preloaded module may keep a reference."""


def log_to_supervisor(level: str) -> None:
    """Have `logging` write records of a level and above, unless modules configure it themselves."""
    logging.lastResort = LogLines(STREAMS)
    logging.root.setLevel(level)


class _Levels:
    """The level of the root logger while all is logged, and before."""

    before: int | None = None


def log_all(on: bool) -> None:
    """Log from DEBUG on, or again from the level of before."""
    if on and _Levels.before is None:
        _Levels.before = logging.root.level
        logging.root.setLevel(logging.DEBUG)
    elif not on and _Levels.before is not None:
        logging.root.setLevel(_Levels.before)
        _Levels.before = None
