"""The raw loop of `make bench`: nats-py, one process, the same messages as Galley's; it runs no handler."""

import asyncio
import sys

from adapter import STORE, main
from galley_nats import QUEUE, count

from benchmarks.raw_connection import connected
from benchmarks.raw_producer import Publishes
from benchmarks.raw_worker import RawWorker
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of

_FOREVER = 10**9


def submit(tasks: int, _seconds: float) -> None:
    async def send() -> None:
        async with Broker(STORE, name="rivals") as broker:
            await ensure(broker, layout_of(QUEUE, "rivals"))
        async with connected(STORE) as nats:
            publishes = Publishes(nats, "galley.task.default.rivals.normal.sdk.")
            await publishes.open()
            await publishes.submit(tasks)

    asyncio.run(send())


async def work() -> None:
    async with connected(STORE) as nats:
        worker = RawWorker(nats, "default", "rivals")
        await worker.open()
        await worker.work(_FOREVER)


def run() -> None:
    main(submit, count, [sys.executable, "-c", "import asyncio, raw_nats; asyncio.run(raw_nats.work())"])
