"""The log of one worker: a file of bounded size, and its last lines in memory."""

import json
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

FILE_BYTES: Final = 2 * 1024 * 1024
"""Size at which the file is rotated to `<name>.log.1`."""

_KEPT_LINES: Final = 50
_LINE_BYTES: Final = 16 * 1024
"""Longest line that is parsed; the file has all of it."""


class WorkerLog:
    """Stores the output of a worker. Use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: deque[bytes] = deque(maxlen=_KEPT_LINES)
        self._rest = b""

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, chunk: bytes) -> None:
        """Store a chunk of output; if the disk is full, the log loses it."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._rest = self._rest[:_LINE_BYTES]
        self._lines.extend(line[:_LINE_BYTES] for line in lines if line.strip())
        try:
            self._file.write(chunk)
            if self._file.tell() > FILE_BYTES:
                self._put_aside()
        except OSError:
            return

    def last_error(self) -> tuple[str, str] | None:
        """Return message and hint of the last error the worker logged, if any."""
        for line in reversed(self._lines):
            entry = _entry(line)
            if entry.get("level") in ("error", "critical"):
                return str(entry.get("error") or entry.get("event") or ""), str(entry.get("hint") or "")
        return None

    def last_line(self) -> str:
        """Return the last line, in a form that fits into a sentence."""
        last = (self._rest or (self._lines[-1] if self._lines else b"")).decode(errors="replace").strip()
        entry = _entry(last.encode())
        return str(entry.get("error") or entry.get("event") or last)[:300]

    def _put_aside(self) -> None:
        # The folder may have been removed. Without a new file the old one has to stay open.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            self.path.replace(self.path.with_suffix(".log.1"))
        fresh = self.path.open("ab", buffering=0)
        self._file.close()
        self._file = fresh


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
