"""Standard output of a child, marked with whose it is.

Several handlers write to one pipe, one after the other or mingled. Before the first bytes of another
handler goes its mark, and a closing mark when it has ended, so the supervisor need not guess:

    0x1E <order id> 0x1F      what follows is this one's
    0x1E -<order id> 0x1F     it has ended

What bypasses `sys.stdout` (C code, programs a handler starts) carries no mark and counts for the handler
that is running.
"""

import io
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

OPEN: Final = b"\x1e"
CLOSE: Final = b"\x1f"
_HELD: Final = 8192
"""Bytes of an unfinished line that are held back, so that one `print` is one write."""


def _nobody() -> int:
    return 0


class Streams:
    """Both output streams of this process."""

    def __init__(self, stdout: int, stderr: int) -> None:
        self.owner: Callable[[], int] = _nobody
        """Returns the id of the order the calling code works for, or 0."""
        self.written: set[int] = set()
        """Orders that wrote something and have not been closed."""
        self._raw = (_Marked(self, stdout), _Marked(self, stderr))
        self._pipes = ((1, stdout), (2, stderr))
        self._identity = os.fstat(stdout).st_ino, os.fstat(stderr).st_ino
        self._texts = self._install()

    def _install(self) -> tuple[io.TextIOWrapper, io.TextIOWrapper]:
        out, err = (_text(raw) for raw in self._raw)
        sys.stdout = sys.__stdout__ = out  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = err  # type: ignore[misc]
        return out, err

    def end(self, order: int) -> None:
        """Say that what this order wrote is complete."""
        self.written.discard(order)
        for raw in self._raw:
            raw.end(order)

    def restore(self) -> None:
        """Put back what a handler closed or replaced."""
        out, err = self._texts
        if sys.stdout is not out or sys.stderr is not err or out.closed or err.closed:
            self._raw = (_Marked(self, self._pipes[0][1]), _Marked(self, self._pipes[1][1]))
            self._texts = self._install()

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
        """Whether Python's streams are still the ones installed here."""
        out, err = self._texts
        return sys.stdout is out and sys.stderr is err and not out.closed and not err.closed


def _text(raw: "_Marked") -> io.TextIOWrapper:
    # Python itself puts text straight on a raw stream when it runs unbuffered; only its types say otherwise.
    buffer: Any = raw
    return io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", write_through=True)


class _Marked(io.RawIOBase):
    """Writes to a pipe, with a mark wherever the owner changes."""

    def __init__(self, streams: Streams, descriptor: int) -> None:
        self._streams = streams
        self._descriptor = descriptor
        self._lock = threading.RLock()
        self._marked = 0
        self._owner = 0
        self._held = b""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: "io.ReadableBuffer") -> int:  # type: ignore[name-defined]
        text = bytes(data)
        owner = self._streams.owner()
        with self._lock:
            if owner != self._owner:
                self._emit()
                self._owner = owner
            if owner:
                self._streams.written.add(owner)
            self._held += text
            if text.endswith(b"\n") or len(self._held) > _HELD:
                self._emit()
        return len(text)

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
            view = view[os.write(self._descriptor, view) :]
