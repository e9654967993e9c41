"""Keeps the nats-server of `galley dev` up: one that dies is started again, within bounds."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from galley_local.errors import ServerKeepsEnding
from galley_local.nats_server import NatsServer

MOST_RESTARTS: Final = 5
WITHIN_SECONDS: Final = 300.0

_LOOK_SECONDS: Final = 0.2


async def keep_up(server: NatsServer, say: Callable[[str], None]) -> None:
    """Start the server again whenever it has died, until cancelled.

    Raises:
        ServerKeepsEnding: if it dies more than `MOST_RESTARTS` times within `WITHIN_SECONDS`.
        LocalError: if it does not start again.
    """
    loop = asyncio.get_running_loop()
    deaths: deque[float] = deque(maxlen=MOST_RESTARTS + 1)
    while True:
        if not server.running:
            deaths.append(loop.time())
            if len(deaths) > MOST_RESTARTS and deaths[-1] - deaths[0] < WITHIN_SECONDS:
                raise ServerKeepsEnding(len(deaths), str(server.log_file))
            say("nats-server ended; it is started again, and what it had stored is kept")
            await server.start()
            say("nats-server is back")
        await asyncio.sleep(_LOOK_SECONDS)
