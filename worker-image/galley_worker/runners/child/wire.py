"""Wire: a child's end of the socket to its supervisor, which handlers in the same process may spoil."""

import contextlib
import os
import socket
import sys
import threading
import traceback
from typing import Final, NoReturn

from galley_worker.runners import frames

LOST: Final = 70
"""Exit code of a child whose socket a handler closed, replaced or wrote to (EX_SOFTWARE)."""


class Wire:
    """The socket, as long as its number still names it.

    A handler that closes what it did not open frees our number, and the next socket it opens gets it:
    what we sent then would reach a stranger. So we look before we send, and after we received.
    """

    def __init__(self, wire: socket.socket) -> None:
        self._socket = wire
        self._number = wire.fileno()
        self._inode = os.fstat(self._number).st_ino
        self._sending = threading.Lock()
        self.copied = False
        """Whether this process is a copy that a handler made with `os.fork`, which has no business here."""
        os.register_at_fork(after_in_child=self._copy)

    def _copy(self) -> None:
        self.copied = True

    def fileno(self) -> int:
        """Return its number, to wait for."""
        return self._number

    def receive(self) -> bytes:
        """Return what has come; with the socket or the supervisor gone, this ends the process."""
        if self.copied:
            end_copy()
        try:
            data = self._socket.recv(frames.CHUNK)
        except OSError:
            lost()
        if not data:
            os._exit(0)
        self._check()
        return data

    def send(self, data: bytes) -> None:
        """Send it all, from any thread; with the socket gone, this ends the process."""
        if self.copied:
            end_copy()
        with self._sending:
            self._check()
            try:
                self._socket.sendall(data)
            except OSError:
                lost()

    def _check(self) -> None:
        try:
            ours = os.fstat(self._number).st_ino == self._inode
        except OSError:
            ours = False
        if not ours:
            lost()


def end_copy(error: BaseException | None = None) -> NoReturn:
    """End a process that a handler forked, and that left the handler, as Python ends a program.

    It would answer for its parent otherwise, and run the tasks that its parent runs, too.

    Args:
        error: what left the handler; None if that returned.
    """
    code: object = 0
    if isinstance(error, SystemExit):
        code = error.code
    elif error is not None:
        code = "".join(traceback.format_exception(error))
    with contextlib.suppress(BaseException):
        if not isinstance(code, int | None):
            sys.stderr.write(f"{code}\n".replace("\n\n", "\n"))
        sys.stdout.flush()
    os._exit(code & 0xFF if isinstance(code, int) else int(code is not None))


def lost() -> NoReturn:
    """End the process, since nothing can be reported any more."""
    os._exit(LOST)
