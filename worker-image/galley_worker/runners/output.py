"""Output of handlers: read from pipes, cut into lines, bounded, told apart by attempt."""

import asyncio
import os
import re
from collections.abc import Callable
from typing import Final

from galley_worker.runners.execution import Account
from galley_worker.runners.settings import RunnerSettings

LINE_LIMIT: Final = 8 * 1024
"""Bytes after which a line that does not end is forwarded as if it did."""
_CHUNK: Final = 64 * 1024
_MARK: Final = re.compile(rb"\x1e(-?)(\d{1,19})\x1f")
_MARK_LENGTH: Final = 22
_CHUNKS_AT_END: Final = 32
"""Chunks read when a handler or its process has ended; more can only come from somebody else."""


class Output:
    """One stream of one process."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, descriptor: int, stream: str, settings: RunnerSettings,
        owner: Callable[[int], Account | None], *, tail_limit: int = 0,
    ) -> None:  # fmt: skip
        # `owner` finds the account of an order's attempt, or with 0 the one unmarked bytes belong to.
        # With a tail limit the stream is a command's, and nothing in it is taken for a mark.
        self._loop = loop
        self._descriptor = descriptor
        self._stream = stream
        self._settings = settings
        self._owner = owner
        self._nobody = Account(None)
        self._marked: Account | None = None
        self._line = b""
        self._line_account = self._nobody
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
        account = self._owner(order) if order else None
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
        account = self._marked or self._owner(0) or self._nobody
        if account is not self._line_account:
            self._flush_line()
            self._line_account = account
        room = self._settings.output_limit - account.said
        if room < len(text):
            account.dropped += len(text) - max(0, room)
            text = text[: max(0, room)]
        account.said += len(text)
        if not text:
            return
        *lines, rest = (self._line + text).split(b"\n")
        for line in lines:
            self._forward(line)
        while len(rest) > LINE_LIMIT:
            self._forward(rest[:LINE_LIMIT])
            rest = rest[LINE_LIMIT:]
        self._line = rest

    def _forward(self, line: bytes) -> None:
        self._settings.on_output(self._line_account.work, self._stream, line.decode(errors="replace"))

    def _flush_line(self) -> None:
        if self._line:
            line, self._line = self._line, b""
            self._forward(line)

    def _finish(self, account: Account) -> None:
        if self._line_account is account:
            self._flush_line()
        if account.dropped and account.work is not None:
            limit = self._settings.output_limit
            told = f"({account.dropped} bytes of output dropped after the first {limit})"
            account.dropped = 0
            self._settings.on_output(account.work, self._stream, told)
