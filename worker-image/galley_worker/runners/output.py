"""Output of handlers: read from pipes, cut into lines, bounded, told apart by attempt."""

import asyncio
import logging
import os
import re
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from galley_worker.runners.execution import Account
from galley_worker.runners.log_fields import read_fields
from galley_worker.runners.settings import Line, RunnerSettings

StreamName: TypeAlias = Literal["stdout", "stderr"]
STREAM_NAMES: Final[tuple[StreamName, StreamName]] = ("stdout", "stderr")
LINE_LIMIT: Final = 8 * 1024
"""Bytes after which a line that does not end is forwarded as if it did."""
_CHUNK: Final = 64 * 1024
_PARTIAL_SECONDS: Final = 1.0
"""After which a line that has no end yet is forwarded: a prompt, or a progress bar."""
_UNOWNED_SECONDS: Final = 60.0
"""How long one budget lasts for output that belongs to no attempt."""
_RECORD: Final = re.compile(rb"\x1d(\d{1,5}) ([^\x1c\x1d]*)(?:\x1c([^\x1d]*))?\x1d")
_CUT_RECORD: Final = re.compile(rb"\x1d\d{0,5}( [^\x1d]*)?")
"""What a limit may leave of the beginning of a record."""
_MARK: Final = re.compile(rb"\x1e(-?)(\d{1,19})\x1f")
_MARK_LENGTH: Final = 22
_CHUNKS_AT_END: Final = 32
"""Chunks read when a handler or its process has ended; more can only come from another one."""


class Output:
    """One stream of one process."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, descriptor: int, stream: StreamName, settings: RunnerSettings,
        owner: Callable[[int], Account | None], *, tail_limit: int = 0,
    ) -> None:  # fmt: skip
        # `owner` finds the account of an order's attempt, or with 0 the one unmarked bytes belong to.
        # With a tail limit the stream is a command's, and nothing in it is taken for a mark.
        self._loop = loop
        self._descriptor = descriptor
        self._stream = stream
        self._settings = settings
        self._owner = owner
        self._unowned = Account(None)
        self._unowned_since = loop.time()
        self._marked: Account | None = None
        self._line = b""
        self._line_account = self._unowned
        self._record = logging.INFO, ""
        self._ended = False
        """Whether what there was of the line is forwarded, so that its end adds nothing."""
        self._partial: asyncio.TimerHandle | None = None
        self._carry = b""
        self._tail_limit = tail_limit
        self.tail = b""
        """The last bytes of the stream."""
        self.total = 0
        """Bytes the stream had, when a tail is kept."""
        os.set_blocking(descriptor, False)
        loop.add_reader(descriptor, self._read)

    def drain(self) -> None:
        """Take what is in the pipe now."""
        for _ in range(_CHUNKS_AT_END):
            if not self._read():
                return

    def close(self) -> None:
        """Take what is in the pipe, forward what is left of a line, and stop reading."""
        self.drain()
        self._finish(self._line_account)
        self._finish(self._unowned)
        if self._partial is not None:
            self._partial.cancel()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> bool:
        if self._descriptor < 0:
            return False
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._hang_up()
            return False
        self.feed(data)
        return True

    def feed(self, data: bytes) -> None:
        """Take bytes of the stream, marks among them."""
        if self._tail_limit:
            self.total += len(data)
            self.tail = (self.tail + data)[-self._tail_limit :]
            self._text(data)
            return
        if self._carry:
            data, self._carry = self._carry + data, b""
        begun = data.rfind(b"\x1e", max(0, len(data) - _MARK_LENGTH))
        if begun >= 0 and b"\x1f" not in data[begun:]:
            data, self._carry = data[:begun], data[begun:]
        start = 0
        for mark in _MARK.finditer(data):
            self._text(data[start : mark.start()])
            self._switch(int(mark[2]), closes=bool(mark[1]))
            start = mark.end()
        self._text(data[start:] if start else data)

    def _switch(self, order: int, *, closes: bool) -> None:
        account = self._owner(order) or self._unowned if order else None
        if not closes:
            self._marked = account
        elif account is not None:
            if self._line_account is account or account.dropped:
                self._finish(account)
            if self._marked is account:
                self._marked = None

    def _text(self, text: bytes) -> None:
        if not text:
            return
        account = self._marked or self._owner(0) or self._unowned
        if account is self._unowned:
            self._renew_budget()
            account = self._unowned
        if account is not self._line_account:
            self._flush_line()
            self._line_account = account
        text, exceeded = self._within_budget(account, text)
        if text:
            self._lines(text)
        if exceeded:
            if _CUT_RECORD.fullmatch(self._line):
                account.dropped += len(self._line)
                self._line = b""
            self._flush_line()
            limit = self._settings.output_limit
            self._settings.notice(
                account.work, f"output limit reached: what follows the first {limit} bytes is dropped"
            )

    def _lines(self, text: bytes) -> None:
        if self._ended and text.startswith(b"\n") and not self._line:
            text = text[1:]
        self._ended = text.endswith(b"\r")
        *lines, rest = (self._line + text).split(b"\n")
        for line in lines:
            for shown in _shown(line):
                self._forward(shown)
            self._record = logging.INFO, ""
        if b"\r" in rest:
            *overwritten, rest = rest.split(b"\r")
            for shown in filter(None, overwritten):
                self._forward(shown)
        while len(rest) > LINE_LIMIT:
            self._forward(rest[:LINE_LIMIT])
            rest = rest[LINE_LIMIT:]
        self._line = rest
        if rest and self._partial is None:
            self._partial = self._loop.call_later(_PARTIAL_SECONDS, self._forward_partial)

    def _within_budget(self, account: Account, text: bytes) -> tuple[bytes, bool]:
        """Return the part of the text there is room for, and whether this is the first time there is not."""
        room = self._settings.output_limit - account.said
        kept = text[:room]
        account.said += len(kept)
        lost = len(text) - len(kept)
        account.dropped += lost
        return kept, 0 < lost == account.dropped

    def _renew_budget(self) -> None:
        """Give output without an attempt a new budget from time to time."""
        if self._loop.time() - self._unowned_since >= _UNOWNED_SECONDS:
            self._finish(self._unowned)
            if self._line_account is self._unowned:
                self._line_account = Account(None)
            if self._marked is self._unowned:
                self._marked = None
            self._unowned, self._unowned_since = Account(None), self._loop.time()

    def _forward(self, line: bytes) -> None:
        stream: Literal["stdout", "stderr", "log"] = self._stream
        fields = None
        if record := _RECORD.match(line):
            self._record = int(record[1]), record[2].decode(errors="replace")
            fields = read_fields(record[3] or b"")
            line = line[record.end() :]
        level, logger = self._record
        if logger:
            stream = "log"
        text = line.decode(errors="replace")
        self._settings.on_line(Line(self._line_account.work, stream, text, level, logger, fields))

    def _forward_partial(self) -> None:
        self._partial = None
        line, self._line = self._line, b""
        if line:
            self._forward(line)
            self._ended = True

    def _flush_line(self) -> None:
        self._forward_partial()
        self._ended = False
        self._record = logging.INFO, ""

    def _finish(self, account: Account) -> None:
        if self._line_account is account:
            self._flush_line()
        if account.dropped:
            limit, dropped, account.dropped = self._settings.output_limit, account.dropped, 0
            self._settings.notice(account.work, f"{dropped} bytes of output dropped after the first {limit}")


def _shown(line: bytes) -> list[bytes]:
    """Return what a terminal shows of a line, one after the other, as carriage returns overwrite it."""
    return [shown for shown in line.split(b"\r") if shown] or [b""] if b"\r" in line else [line]
