"""Measured process: the same tasks, subjects, headers and acknowledgements with nats-py and nothing else.

This is the limit: the fastest loop we know how to write with the library. It knows of no refusal, retry,
reconnection or handle, and its ids are a counter.
"""

import asyncio
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg

from benchmarks.arrivals import arrive
from benchmarks.raw_connection import connected
from benchmarks.station import serve
from galley.broker.topology import EXPECTED_SEQUENCE, FLAGS_HEADER
from galley.envelope import FIRST

WINDOW: Final = 1024
_HEADERS: Final = {EXPECTED_SEQUENCE: "0", FLAGS_HEADER: FIRST.encode()}
_encode = msgspec.json.Encoder().encode


async def _run(server: str, namespace: str, queue: str) -> None:
    async with connected(server) as nats:
        publishes = Publishes(nats, f"galley.task.{namespace}.{queue}.normal.sdk.")
        await publishes.open()
        await serve({"submit": publishes.submit, "arrive": publishes.arrive})


class Publishes:
    """What the process can be asked."""

    def __init__(self, nats: Nats, prefix: str) -> None:
        self._nats = nats
        self._prefix = prefix
        self._inbox = nats.new_inbox()
        self._count = 0
        self._waiting = 0
        self._room = asyncio.Event()
        self._all = asyncio.Event()

    async def open(self) -> None:
        """Listen for acknowledgements."""
        await self._nats.subscribe(self._inbox, cb=self._on_ack, pending_msgs_limit=0, pending_bytes_limit=0)

    async def submit(self, count: int, handler: str = "noop") -> dict[str, Any]:
        """Publish many, `WINDOW` at a time under way."""
        began = time.perf_counter()
        publish, prefix, inbox, first = self._nats.publish, self._prefix, self._inbox, self._count
        self._count += count
        for n in range(count):
            while self._waiting >= WINDOW:
                self._room.clear()
                await self._room.wait()
            self._waiting += 1
            body = _encode({"handler": handler, "submittedAt": datetime.now(UTC), "input": {"n": n}})
            await publish(f"{prefix}{first + n:026}", body, inbox, _HEADERS)
        await self._all_in()
        return {"seconds": time.perf_counter() - began}

    async def arrive(self, count: int, rate: float, seed: int) -> dict[str, Any]:
        """Publish one by one, at random moments."""
        late = await arrive(self._publish_one, count, rate, seed)
        await self._all_in()
        return {"late_p99": late}

    async def _publish_one(self) -> None:
        self._waiting += 1
        self._count += 1
        task = {
            "handler": "started", "submittedAt": datetime.now(UTC), "input": {"sent": time.time_ns()},
        }  # fmt: skip
        await self._nats.publish(f"{self._prefix}{self._count:026}", _encode(task), self._inbox, _HEADERS)

    async def _all_in(self) -> None:
        while self._waiting:
            self._all.clear()
            await self._all.wait()

    async def _on_ack(self, message: Msg) -> None:
        if b'"error"' in message.data or not message.data:
            sys.exit(f"refused: {message.data!r}")
        self._waiting -= 1
        if self._waiting == WINDOW - 1:
            self._room.set()
        if not self._waiting:
            self._all.set()


if __name__ == "__main__":
    asyncio.run(_run(*sys.argv[1:4]))
