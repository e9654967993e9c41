"""Logs as JSON lines: a constant event, and what it is about as keys."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import msgspec

_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_encode = msgspec.json.Encoder(enc_hook=str).encode


class JsonLines(logging.Formatter):
    """Formats a record as one line: `time`, `level`, `event`, the keys of `extra`, and a traceback."""

    def __init__(self, always: dict[str, Any]) -> None:
        """Args: always: keys every line carries."""
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **self._always,
        }
        line |= {key: value for key, value in record.__dict__.items() if key not in _OWN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _encode(line).decode()


def log_as_json(level: str, stream: TextIO = sys.stderr, **always: Any) -> None:
    """Send all logs of this process to `stream`, one JSON object a line.

    Args:
        level: the least level that is written, such as "INFO".
        stream: where to.
        always: keys every line carries.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(always))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # What the lines do not show need not be found out (Python's logging HOWTO, "Optimization").
    logging._srcfile = None  # noqa: SLF001 - as that page says
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
