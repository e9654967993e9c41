"""`python -m benchmarks.topics`: one publish to ten queues against ten submits, and 1,000 subscriptions.

Everything but nats-server runs in this process: the publisher and a fan-out for each queue.
"""

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from galley import call
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import ensure, stream_info
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.broker.topology import QueueLayout
from galley.client import AsyncClient
from galley.lanes import DEFAULT_LANES
from galley.topic import Subscription, Topic
from galley_local.nats_server import NatsServer
from galley_worker.fanout import Fanout
from galley_worker.ledger import Ledger
from galley_worker.measures import Measures

QUEUES: Final = 10
EVENTS: Final = 1_000
SUBSCRIPTIONS: Final = 1_000
DATA: Final = {"device": 7, "celsius": 21.5}


def _layout(number: int) -> QueueLayout:
    return QueueLayout("default", f"q{number}", DEFAULT_LANES, 1_000_000, 2**30, 1000, "benchmark")


async def _stored(broker: Broker, expected: int) -> None:
    """Return once each queue holds so many tasks."""
    while True:
        infos = [await stream_info(broker, topology.work_stream("default", f"q{n}")) for n in range(QUEUES)]
        if all(info is not None and info["state"]["messages"] >= expected for info in infos):
            return
        await asyncio.sleep(0.01)


async def _measure(broker: Broker, url: str) -> None:
    layouts = [_layout(number) for number in range(QUEUES)]
    for layout in layouts:
        await ensure(broker, layout)
    client = AsyncClient.over(broker, "default")
    began = time.perf_counter()
    calls = (call(f"q{number}", "run", **DATA) for _ in range(EVENTS) for number in range(QUEUES))
    await client.submit_many(calls)
    submits = time.perf_counter() - began
    keeper = TopicKeeper(broker, "default", "benchmark")
    plain = tuple(Subscription(f"s{number}", f"q{number}", "run") for number in range(QUEUES))
    await keeper.keep([Declared(Topic("plain", retention_bytes=2**30), plain)])
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        for layout in layouts:
            worker = await stack.enter_async_context(Broker(url, name=layout.queue))
            counted = Measures("default", layout.queue, int, int)
            fanout = Fanout(worker, layout, Ledger(worker), counted, "w", lambda: datetime.now(UTC))
            stack.callback(group.create_task(fanout.run()).cancel)
        published, copied = await _publish(broker, client, "plain", 2 * EVENTS)
        print(f"{QUEUES * EVENTS} submits to {QUEUES} queues: {submits:.2f} s")
        print(f"{EVENTS} publishes to {QUEUES} queues: {published:.2f} s, ratio {submits / published:.1f}")
        print(f"  all copied after {copied:.2f} s, ratio {submits / copied:.2f}")
        many = tuple(
            Subscription(f"s{n}", f"q{n % QUEUES}", "run", f'attributes.device == "{n}"')
            for n in range(SUBSCRIPTIONS)
        )
        began = time.perf_counter()
        await keeper.keep([Declared(Topic("plain", retention_bytes=2**30), many)])
        print(f"{SUBSCRIPTIONS} subscriptions declared in {time.perf_counter() - began:.2f} s")
        began = time.perf_counter()
        for number in range(100):
            await client.publish("plain", DATA, {"device": str(number)})
        await _stored(broker, 2 * EVENTS + 100 // QUEUES)
        took = time.perf_counter() - began
        print(f"100 events looked at for {SUBSCRIPTIONS} subscriptions: {took:.2f} s, one copy each")


async def _publish(broker: Broker, client: AsyncClient, topic: str, expected: int) -> tuple[float, float]:
    """Return the seconds until all events are stored, and until all are copied."""
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(EVENTS):
            group.create_task(client.publish(topic, DATA, event_id=f"{number}"))
    published = time.perf_counter() - began
    await _stored(broker, expected)
    return published, time.perf_counter() - began


async def main() -> None:
    """Measure, and print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        async with NatsServer(Path(folder)) as server, Broker(server.url, name="benchmark") as broker:
            await _measure(broker, server.url)


if __name__ == "__main__":
    asyncio.run(main())
