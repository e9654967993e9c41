"""Each event becomes one task in each queue that asks for it, whatever is killed or frozen at any moment.

Events are published once, twice or three times, one queue is full most of the time, and what copies events
are the workers that are killed. `GALLEY_STORM_EVENTS` and `GALLEY_STORM_TOPIC_FAULTS` set its size (80 events
and 4 faults unless set; `make storm-topics` runs 5,000 and 60), `GALLEY_STORM_SEED` its course.
"""

import asyncio
import os
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from galley import AsyncClient, connect
from galley.broker import namespace_streams
from galley.broker.connection import Broker
from galley.broker.mark import write_mark
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.broker.topology import topics_stream, work_stream
from galley.event import event_of
from galley.topic import Subscription, Topic, copy_id
from galley_local.nats_server import NatsServer
from tests.storm.faults import Storm
from tests.support.eventually import eventually
from tests.support.workers import WorkerProcess, a_task_queue, ensure_with_leases, workers

EVENTS = int(os.environ.get("GALLEY_STORM_EVENTS", "80"))
FAULTS = int(os.environ.get("GALLEY_STORM_TOPIC_FAULTS", "4"))
SEED = int(os.environ.get("GALLEY_STORM_SEED", "20261129"))
LEASE = 3.0
TOPICS = {
    "numbers": (
        Subscription("all", "left", "hear"),
        Subscription("odd", "left", "hear", "attributes.odd == true"),
        Subscription("even", "right", "hear", "attributes.odd == false"),
    ),
    "again": (Subscription("all", "middle", "hear"),),
}
SMALL = 10
"""Tasks that the queue in the middle takes: it is full whenever its worker is away."""


# nats-py forgets the writer of an attempt to connect in whose midst the broker is killed.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*StreamWriter:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.timeout(3600)
async def test_every_event_is_one_task_of_each_queue_after_a_storm(
    own_nats_server: NatsServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespace_streams, "LEASE_SECONDS", LEASE)
    names = ("left", "middle", "right")
    worker = {"modules": ["listeners"], "concurrency": 4, "gracePeriodSeconds": 1}
    room = {"left": 2 * EVENTS, "middle": SMALL, "right": EVENTS}
    queues = {
        name: a_task_queue(namespace, name, worker=worker, limits={"backlog": room[name]}) for name in names
    }
    environment = {"GALLEY_LEASE_SECONDS": str(LEASE)}
    async with connect(own_nats_server.url, namespace) as client:
        for queue in queues.values():
            await ensure_with_leases(client.broker, queue, LEASE)
        keeper = TopicKeeper(client.broker, namespace, "tests")
        await keeper.keep([Declared(Topic(name), several) for name, several in TOPICS.items()])

        async def mark() -> None:
            async with Broker(own_nats_server.url, name="operator") as broker:
                for name in names:
                    await write_mark(broker, work_stream(namespace, name), broker.nats.life)

        with ExitStack() as stack:
            fleet: list[WorkerProcess] = []
            for name, queue in queues.items():
                running = workers(own_nats_server.url, queue, tmp_path, (f"{name}-1",), **environment)
                fleet += stack.enter_context(running)
            storm = Storm(own_nats_server, fleet, LEASE, SEED, mark)
            for part in range(FAULTS):
                numbers = range(EVENTS * part // FAULTS, EVENTS * (part + 1) // FAULTS)
                publishing = asyncio.create_task(publish(client, numbers))
                await asyncio.sleep(storm.dice.uniform(0.05, 0.5))
                await storm.strike()
                await publishing
            expected = {name: ids_of(name) for name in names}

            async def settled() -> bool:
                info = await client.broker.api("look", f"CONSUMER.LIST.{topics_stream(namespace)}")
                return all(not each["num_pending"] + each["num_ack_pending"] for each in info["consumers"])

            await eventually(settled, within=600)
            for name, ids in expected.items():
                await has_each_once(client, name, ids)
            for each in fleet:
                assert each.end() == 0
    sys.stdout.write(
        f"\n{EVENTS} events, {sum(map(len, expected.values()))} copies, {sum(storm.done.values())} faults "
        f"(seed {SEED}): {dict(storm.done)}\n"
    )


async def has_each_once(client: AsyncClient, queue: str, ids: dict[str, int]) -> None:
    """Check that a queue has run these tasks and no others."""
    for task, number in ids.items():
        assert await client.handle(queue, task).result(within=600) == number
    assert {each.address.id for each in await client.tasks(queue)} == set(ids)
    assert await client.dead_letters.find(queue) == []


async def publish(client: AsyncClient, numbers: range) -> None:
    """Publish each event to both topics, some of them two or three times."""

    async def one(topic: str, number: int) -> None:
        for _ in range(1 + number % 3):
            await client.publish(topic, {"n": number}, {"odd": number % 2 == 1}, event_id=f"{number}")

    async with asyncio.TaskGroup() as group:
        for number in numbers:
            for topic in TOPICS:
                group.create_task(one(topic, number))


def ids_of(queue: str) -> dict[str, int]:
    """Return the ids of the tasks that a queue is to have, each with its result."""
    found = {}
    for topic, several in TOPICS.items():
        for each in several:
            odd = {"odd": (True,), "even": (False,)}.get(each.name, (True, False))
            for number in range(EVENTS if each.queue == queue else 0):
                if (number % 2 == 1) in odd:
                    event = event_of(None, datetime.now(UTC), source="galley", event_id=f"{number}")
                    found[copy_id(topic, each.name, event)] = number
    return found
