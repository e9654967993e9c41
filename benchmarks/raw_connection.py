"""The plain nats-py connection of the raw loops."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.client import Client as Nats


@asynccontextmanager
async def connected(server: str) -> AsyncIterator[Nats]:
    """Open a connection with the settings Galley's has that cost or save time."""
    nats = Nats()
    await nats.connect(server, skip_subject_validation=True, error_cb=_give_up)
    try:
        yield nats
    finally:
        await nats.close()


async def _give_up(error: Exception) -> None:
    # Inside a callback nats-py swallows what is raised, and a benchmark that lost something measures nothing.
    print(f"raw nats-py: {error!r}", file=sys.stderr, flush=True)
    os._exit(1)
