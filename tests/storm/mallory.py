"""A tenant who does all the harm its credentials allow, in a process of its own.

python -m tests.storm.mallory URL NAMESPACE QUEUE PRODUCER_CREDS WORKER_CREDS SECONDS

Prints what it did as JSON at its end, and which share of a processor it took.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from galley import envelope as wire
from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.lean_client import header_block
from galley.broker.objects import Place
from galley.envelope import FIRST, Envelope, encode_input
from galley.errors import GalleyError
from galley.lanes import Lane
from galley.task_id import new_task_id

SIZE = 100_000
PAUSE = 0.02
"""Between two batches: a tenant on a machine of its own would not take ours."""


class Mallory:
    """The attacks, each of which goes on until the time is over."""

    def __init__(self, namespace: str, queue: str, ends_at: float) -> None:
        self._namespace, self._queue, self._ends_at = namespace, queue, ends_at
        self.done: Counter[str] = Counter()

    @property
    def _going(self) -> bool:
        return time.monotonic() < self._ends_at

    def _address(self, kind: Kind = Kind.DIRECT) -> TaskAddress:
        return TaskAddress(self._namespace, self._queue, Lane.NORMAL, kind, new_task_id())

    def _body(self, handler: str = "echo", **more: object) -> bytes:
        value = encode_input(handler, {"value": "x" * SIZE} if handler == "echo" else more)
        return wire.encode(Envelope(handler, datetime.now(UTC), input=value))

    async def _send(self, broker: Broker, what: str, subject: str, body: bytes, **headers: str) -> None:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        block = header_block({topology.FLAGS_HEADER: FIRST.encode(), **named})
        with suppress(GalleyError):
            ack = await (await broker.pipeline.send(subject, body, block))
            self.done[f"{what} {'stored' if ack.stored else 'refused'}"] += 1

    async def flood(self, broker: Broker) -> None:
        """Submit as much as there is room for, and go on."""
        while self._going:
            await self._send(broker, "task", topology.task_subject(self._address()), self._body())
            await asyncio.sleep(PAUSE)

    async def delay(self, broker: Broker) -> None:
        """Fill the stream of delayed tasks; the server may not be given schedules."""
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        while self._going:
            address = self._address()
            body = wire.encode(Envelope("echo", datetime.now(UTC), not_before=tomorrow,
                                        input=encode_input("echo", {"value": "x" * SIZE})))  # fmt: skip
            await self._send(broker, "delayed task", topology.plan_subject(address), body)
            await self._send(
                broker, "schedule", topology.schedule_subject(address), body,
                Nats_Schedule="@every 1s",
                Nats_Schedule_Target=topology.due_subject(self._address(Kind.DECLARED)),
            )  # fmt: skip
            await asyncio.sleep(PAUSE)

    async def poison(self, broker: Broker) -> None:
        """Submit tasks that kill their worker or never end, and what is no task."""
        for number in range(10_000):
            if not self._going:
                return
            body = (
                b"\xff",
                self._body("vanish", code=1),
                self._body("deaf", seconds=60),
                self._body("fail_for_good", message="x" * SIZE),
            )[number % 4]
            await self._send(broker, "poison", topology.task_subject(self._address()), body)
            await asyncio.sleep(10 * PAUSE)

    async def evict(self, broker: Broker) -> None:
        """Write records and dead letters without end, as a worker may."""
        while self._going:
            for verb in (topology.record_subject, topology.dead_subject):
                await self._send(broker, verb.__name__, verb(self._address()), b"x" * SIZE)
            await asyncio.sleep(PAUSE)

    async def hoard(self, broker: Broker) -> None:
        """Store objects and references to them without end, as a producer may."""
        place = self._namespace, self._queue
        for number in range(10**9):
            if not self._going:
                return
            subject = topology.part_subject(*place, f"own-{number}", 0)
            await self._send(broker, "object", subject, b"x" * SIZE)
            use = topology.use_subject(self._address(), f"own-{number}", "input")
            await self._send(broker, "reference", use, b"1")
            await asyncio.sleep(PAUSE)

    async def chatter(self, broker: Broker) -> None:
        """Write progress and output without end, as a worker may."""
        while self._going:
            for what in ("progress", "checkpoint", "log.1.1"):
                note = topology.note_subject(self._address(), what)
                await self._send(broker, "note", note, b"x" * SIZE)
            await asyncio.sleep(PAUSE)

    async def steal(self, broker: Broker, victim: str) -> None:
        """Read objects, notes and schedules of a queue of another namespace by names that are known."""
        theirs = Place(victim, self._queue)
        for stream, subject in (
            (topology.object_stream(*theirs), topology.whole_subject(*theirs, "a" * 64)),
            (topology.notes_stream(*theirs), topology.notes_of_queue(*theirs)),
            (topology.later_stream(*theirs), topology.timer_subject(*theirs, "nightly")),
        ):
            try:
                answer = await broker.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"")
            except GalleyError:
                answer = None
            self.done["read of others" if answer is not None else "refused of others"] += 1

    async def connect(self, url: str, credentials: Path, most: int) -> None:
        """Open connections, and subscribe a lot on one of them."""
        async with AsyncExitStack() as stack:
            for number in range(most):
                if not self._going:
                    return
                broker = Broker(url, name=f"m{number}", connect_seconds=2, credentials=credentials)
                try:
                    await stack.enter_async_context(broker)
                    self.done["connections"] += 1
                except GalleyError:
                    self.done["connections refused"] += 1
                if number == 0:
                    subject = f"galley.done.{self._namespace}.{self._queue}.sdk"
                    for subscription in range(2000):
                        await broker.nats.subscribe(f"{subject}.{subscription}")
            await asyncio.sleep(max(0.0, self._ends_at - time.monotonic()))


async def main(words: list[str]) -> None:
    url, namespace, queue, producer, worker, seconds = words
    began = time.monotonic()
    mallory = Mallory(namespace, queue, time.monotonic() + float(seconds))
    async with AsyncExitStack() as stack:
        as_producer, as_worker = [
            await stack.enter_async_context(Broker(url, name="m", connect_seconds=10, credentials=Path(path)))
            for path in (producer, worker)
        ]
        async with asyncio.TaskGroup() as group:
            group.create_task(mallory.flood(as_producer))
            group.create_task(mallory.delay(as_producer))
            group.create_task(mallory.poison(as_producer))
            group.create_task(mallory.evict(as_worker))
            group.create_task(mallory.hoard(as_producer))
            group.create_task(mallory.chatter(as_worker))
            group.create_task(mallory.steal(as_worker, "quiet"))
            group.create_task(mallory.connect(url, Path(producer), 20 * int(float(seconds))))
    took = {"of a processor": round(time.process_time() / (time.monotonic() - began), 3)}
    sys.stdout.write(json.dumps(mallory.done | took) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
