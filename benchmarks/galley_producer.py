"""Measured process: submits through `galley.AsyncClient`, as a user's program does."""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from benchmarks.arrivals import arrive
from benchmarks.handlers.benchmark_handlers import anoop, noop, pause, started
from benchmarks.station import serve
from galley import Call
from galley.client import AsyncClient, connect

_MAKE: Final[dict[str, Callable[..., Call[Any]]]] = {
    "noop": noop.call, "anoop": anoop.call, "pause": pause.call,
}  # fmt: skip


async def _run(server: str, namespace: str) -> None:
    async with connect(server, namespace) as client:
        await serve({"submit": Submits(client).submit, "arrive": Submits(client).arrive})


class Submits:
    """What the process can be asked."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def submit(self, count: int, handler: str = "noop") -> dict[str, Any]:
        """Submit many at once."""
        make = _MAKE[handler]
        began = time.perf_counter()
        handles = await self._client.submit_many(make(n=n) for n in range(count))
        seconds = time.perf_counter() - began
        assert len(handles) == count
        return {"seconds": seconds}

    async def arrive(self, count: int, rate: float, seed: int) -> dict[str, Any]:
        """Submit one by one, at random moments."""

        async def submit() -> None:
            await self._client.submit(started.call(sent=time.time_ns()))

        return {"late_p99": await arrive(submit, count, rate, seed)}


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], sys.argv[2]))
