"""Measured process: takes tasks, stores their outcome, acknowledges them; nats-py and nothing else.

The same steps as a Galley worker's on its fast path: decode the task, write a final record in place of
none with a life time, acknowledge once that is stored. It runs no handler in another process, renews no
lease, keeps no slots or lanes, logs and counts nothing.
"""

import asyncio
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg

from benchmarks.raw_connection import connected
from benchmarks.station import serve
from galley.broker.topology import EXPECTED_SEQUENCE, TTL

BATCH: Final = 100
WINDOW: Final = 200
"""Tasks between their arrival and their acknowledgement."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_HEADERS: Final = {EXPECTED_SEQUENCE: "0", TTL: "3600"}
_PULL: Final = b'{"batch":%d,"expires":600000000000}'


async def _run(server: str, namespace: str, queue: str) -> None:
    async with connected(server) as nats:
        worker = RawWorker(nats, namespace, queue)
        await worker.open()
        await serve({"work": worker.work})


class RawWorker:
    """What the process can be asked."""

    def __init__(self, nats: Nats, namespace: str, queue: str) -> None:
        self._nats = nats
        self._records = f"galley.result.{namespace}.{queue}.sdk."
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.GW_{namespace}_{queue}.normal"
        self._tasks = nats.new_inbox()
        self._acks = nats.new_inbox() + "."
        self._asked = self._stored = self._wanted = 0
        self._done = asyncio.Event()
        self._waiting: dict[str, str] = {}
        self._count = 0

    async def open(self) -> None:
        """Listen for tasks and acknowledgements."""
        await self._nats.subscribe(self._tasks, cb=self._on_task, pending_msgs_limit=0, pending_bytes_limit=0)
        await self._nats.subscribe(
            self._acks + "*", cb=self._on_ack, pending_msgs_limit=0, pending_bytes_limit=0
        )

    async def work(self, count: int) -> dict[str, Any]:
        """Take `count` tasks to their end."""
        self._wanted += count
        self._done.clear()
        await self._pull()
        await self._done.wait()
        return {}

    async def _pull(self) -> None:
        while (
            batch := min(BATCH, self._wanted - self._asked)
        ) and self._asked - self._stored + batch <= WINDOW:
            self._asked += batch
            await self._nats.publish(self._next, _PULL % batch, self._tasks)

    async def _on_task(self, message: Msg) -> None:
        if not message.reply:
            sys.exit(f"pull ended: {message.headers}")
        started_at = datetime.now(UTC)
        task = _decode(message.data)
        result = time.time_ns() - task["input"]["sent"] if task["handler"] == "started" else None
        record = {
            "state": "done",
            "attempt": 1,
            "worker": "raw",
            "handler": task["handler"],
            "submittedAt": task["submittedAt"],
            "startedAt": started_at,
            "endedAt": datetime.now(UTC),
            "outcome": "succeeded",
            "result": result,
        }
        self._count += 1
        reply = f"{self._acks}{self._count}"
        self._waiting[reply] = message.reply
        subject = self._records + message.subject.rpartition(".")[2]
        await self._nats.publish(subject, _encode(record), reply, _HEADERS)

    async def _on_ack(self, message: Msg) -> None:
        if b'"error"' in message.data or not message.data:
            sys.exit(f"refused: {message.data!r}")
        await self._nats.publish(self._waiting.pop(message.subject))
        self._stored += 1
        if self._stored == self._wanted:
            self._done.set()
        if not self._stored % BATCH:
            await self._pull()


if __name__ == "__main__":
    asyncio.run(_run(*sys.argv[1:4]))
