"""Logs as JSON lines: a constant event, and what it is about as keys."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, TextIO

import msgspec

_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_encode = msgspec.json.Encoder(enc_hook=str).encode


class JsonLines(logging.Handler):
    """Writes a record as one line: `time`, `level`, `event`, the keys of `extra`, and a traceback."""

    def __init__(self, output: BinaryIO, always: dict[str, Any]) -> None:
        """Args: output: where lines go; always: keys every line carries."""
        super().__init__()
        self._output = output
        self._always = always
        self._traceback = logging.Formatter().formatException

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of a record."""
        keys = {key: value for key, value in record.__dict__.items() if key not in _OWN}
        if record.exc_info:
            keys["traceback"] = self._traceback(record.exc_info)
        self.write(datetime.fromtimestamp(record.created, UTC), record.levelno, record.getMessage(), keys)

    def write(self, time: datetime, level: int, event: str, keys: dict[str, Any]) -> None:
        """Write a line; if that fails, the work it tells of goes on."""
        head = {"time": time, "level": logging.getLevelName(level).lower(), "event": event}
        try:
            self._output.write(_encode({**head, **self._always, **keys}) + b"\n")
            self._output.flush()
        except Exception:
            self.handleError(logging.makeLogRecord({"msg": event}))


def log_often(log: logging.Logger, level: int, event: str, keys: dict[str, Any]) -> None:
    """Log what comes by the thousand, as `log.log(level, event, extra=keys)` does.

    Where JSON lines are all there is, no record is made on the way, which is most of what a line costs.
    """
    only = logging.root.handlers[0] if len(logging.root.handlers) == 1 else None
    if not isinstance(only, JsonLines):
        log.log(level, event, extra=keys)
    elif log.isEnabledFor(level):
        only.write(datetime.now(UTC), level, event, keys)


def log_as_json(level: str, stream: TextIO = sys.stderr, **always: Any) -> None:
    """Send all logs of this process to `stream`, one JSON object a line.

    Args:
        level: the least level that is written, such as "INFO".
        stream: where to.
        always: keys every line carries.
    """
    handler = JsonLines(stream.buffer, always)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
