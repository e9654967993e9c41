"""Restarts the nats-server of `galley dev` when it ended, or after the disk was full.

A stream that could not be written once stays closed for writing until the server restarts
(nats-server 2.15), even if there is space again. What was acknowledged before is kept.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from galley.errors import GalleyError
from galley_local.errors import ServerKeepsEnding
from galley_local.nats_server import NatsServer

log = logging.getLogger(__name__)

MOST_RESTARTS: Final = 5
WITHIN_SECONDS: Final = 300.0

_LOOK_SECONDS: Final = 0.2
_DISK_FULL: Final = b"no space left on device"


class ServerWatch:
    """Watches one server until `run` is cancelled."""

    def __init__(
        self, server: NatsServer, *, cramped: Callable[[], bool], say: Callable[[str], None]
    ) -> None:
        """Args: cramped: whether the disk has too little space; say: prints a message."""
        self._server, self._cramped, self._say = server, cramped, say
        self._deaths: deque[float] = deque(maxlen=MOST_RESTARTS + 1)
        self._warned = self._full = False
        self._read_to = server.log_file.stat().st_size

    async def run(self) -> None:
        """Keep the server running.

        Raises:
            ServerKeepsEnding: if it ends more than `MOST_RESTARTS` times within `WITHIN_SECONDS`.
            LocalError: if it does not start again.
        """
        while True:
            try:
                await self._look()
            except GalleyError:
                raise
            except Exception:  # whatever it is costs this look
                log.exception("server not looked at")
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> None:
        if not self._server.running:
            self._count_death()
            await self._start_again("nats-server ended; restarting it with all stored data")
        cramped = self._cramped()
        if cramped and not self._warned:
            self._say("the disk is almost full; when it is full, no task can be stored or finished")
        self._warned = cramped
        if self._could_not_write() and not self._full:
            self._full = True
            self._say("the disk is full: nothing can be stored; nats-server is restarted once there is space")
        if self._full and not cramped:
            self._full = False
            await self._server.stop()
            await self._start_again("there is space again; restarting nats-server with all stored data")

    def _count_death(self) -> None:
        self._deaths.append(asyncio.get_running_loop().time())
        if len(self._deaths) > MOST_RESTARTS and self._deaths[-1] - self._deaths[0] < WITHIN_SECONDS:
            raise ServerKeepsEnding(len(self._deaths), str(self._server.log_file))

    async def _start_again(self, why: str) -> None:
        self._say(why)
        await self._server.start()
        self._could_not_write()  # older messages in its log do not count
        self._say("nats-server is back")

    def _could_not_write(self) -> bool:
        """Whether the server has logged a full disk since the last call."""
        size = self._server.log_file.stat().st_size
        if size == self._read_to:
            return False
        with self._server.log_file.open("rb") as log_file:
            log_file.seek(min(self._read_to, size))
            said = log_file.read()
        self._read_to = size
        return _DISK_FULL in said
