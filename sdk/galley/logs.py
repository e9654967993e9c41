"""Logs as JSON lines: a constant event, and what it is about as keys."""

import asyncio
import logging
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, TextIO

import msgspec

log = logging.getLogger(__name__)

_LEVELS: Final = {level: name.lower() for name, level in logging.getLevelNamesMapping().items()}
_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_encoder: Final = msgspec.json.Encoder(enc_hook=str)


def extra_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what `extra` added to a record, by name."""
    return {key: value for key, value in record.__dict__.items() if key not in _OWN}


class JsonLines(logging.Handler):
    """Writes a record as one line: `time`, `level`, `event`, the keys of `extra`, and a traceback."""

    def __init__(self, output: BinaryIO, always: dict[str, Any]) -> None:
        """Args: output: where lines go; always: keys every line carries."""
        super().__init__()
        self._output = output
        self._always = always
        self._traceback = logging.Formatter().formatException
        self._lines: list[dict[str, Any]] = []
        self._flushed_by: asyncio.AbstractEventLoop | None = None
        self.tracebacks: Counter[str] = Counter()
        """How many errors were written with a traceback, by their `where`, or the logger: each is a bug."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of a record."""
        keys = extra_of(record)
        if record.exc_info:
            keys["traceback"] = self._traceback(record.exc_info)
            if record.levelno >= logging.ERROR:
                self.tracebacks[str(keys.get("where") or record.name)] += 1
        self._put(datetime.fromtimestamp(record.created, UTC), record.levelno, record.getMessage(), keys)
        self.flush()

    def write_soon(self, level: int, event: str, keys: dict[str, Any]) -> None:
        """Write a line together with the others of the same turn of the event loop."""
        assert self.lock is not None, "a handler has a lock"
        with self.lock:
            self._put(datetime.now(UTC), level, event, keys)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if self._flushed_by is not loop:
            self._flushed_by = loop
            loop.call_soon(self.flush)

    def _put(self, time: datetime, level: int, event: str, keys: dict[str, Any]) -> None:
        name = _LEVELS.get(level) or logging.getLevelName(level).lower()
        self._lines.append({"time": time, "level": name, "event": event, **self._always, **keys})

    def _encoded(self, lines: list[dict[str, Any]]) -> bytes:
        """Return lines as they are written; without those that cannot be."""
        try:
            return _encoder.encode_lines(lines)
        except Exception:
            # If it fails, the work it tells of goes on.
            if len(lines) == 1:
                self.handleError(logging.makeLogRecord({"msg": lines[0]["event"]}))
                return b""
        return b"".join([self._encoded([line]) for line in lines])

    def flush(self) -> None:
        """Write the lines that wait for it; at its exit, Python asks for that, too."""
        self.acquire()
        try:
            self._flushed_by = None
            lines, self._lines = self._lines, []
            rest = self._encoded(lines)
            # A pipe may take a part if a signal comes; one that takes nothing would be retried endlessly.
            while rest and (taken := self._output.write(rest)):
                rest = rest[taken:]
                self._output.flush()
        except Exception:
            self.handleError(logging.makeLogRecord({"msg": "lines not written"}))
        finally:
            self.release()


def log_often(log: logging.Logger, level: int, event: str, keys: dict[str, Any]) -> None:
    """Log what comes by the thousand, as `log.log(level, event, extra=keys)` does.

    Where JSON lines are all there is, no record is made on the way, which is most of what a line costs, and
    lines are written together.
    """
    only = logging.root.handlers[0] if len(logging.root.handlers) == 1 else None
    if not isinstance(only, JsonLines):
        log.log(level, event, extra=keys)
    elif log.isEnabledFor(level):
        only.write_soon(level, event, keys)


def log_as_json(level: str, stream: TextIO = sys.stderr, **always: Any) -> None:
    """Send all logs of this process to `stream`, one JSON object a line.

    Args:
        level: the least level that is written, such as "INFO".
        stream: where to.
        always: keys every line carries.
    """
    handler = JsonLines(stream.buffer, always)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def tracebacks() -> Mapping[str, int]:
    """Return how many errors were logged with a traceback since `log_as_json`, by their `where` or logger."""
    found: Counter[str] = Counter()
    for handler in logging.root.handlers:
        if isinstance(handler, JsonLines):
            found.update(handler.tracebacks)
    return found


def switch_level_by_signal(told: Callable[[bool], None] = lambda _: None) -> None:
    """Have SIGUSR1 switch the logs of this process to DEBUG, and the next one back; needs a running loop.

    Args:
        told: called with whether it is DEBUG from now on.
    """
    usual = logging.root.level

    def switch() -> None:
        level = usual if logging.root.level == logging.DEBUG else logging.DEBUG
        logging.root.setLevel(level)
        told(level == logging.DEBUG)
        log.warning("log level switched", extra={"to": logging.getLevelName(level)})

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, switch)
