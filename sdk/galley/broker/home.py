"""Where a connection was opened, which is the only place it can be used."""

import asyncio
import os
import threading
from typing import NamedTuple, Self

from galley.errors import ClientClosed, ClientElsewhere


class Home(NamedTuple):
    """The event loop, thread and process a connection was opened in."""

    loop: asyncio.AbstractEventLoop
    thread: int
    process: int

    @classmethod
    def here(cls) -> Self:
        """Return the place where this is called."""
        return cls(asyncio.get_running_loop(), threading.get_ident(), os.getpid())

    def check(self, server: str, *, closed: bool) -> None:
        """Check that this is called in the same place.

        Args:
            server: what the connection leads to, for the message.
            closed: whether it was closed.

        Raises:
            ClientClosed: if it was closed.
            ClientElsewhere: if this is another process, thread or event loop.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a forked child has none, though it goes on in the same coroutine
            loop = None
        if loop is self.loop and not closed:
            return
        if os.getpid() != self.process:
            raise ClientElsewhere(server, "another process, and does not survive a fork")
        if closed:
            raise ClientClosed(server)
        if threading.get_ident() != self.thread:
            raise ClientElsewhere(server, "another thread")
        ended = ", which has ended" if self.loop.is_closed() else ""
        raise ClientElsewhere(server, f"another event loop{ended}")
