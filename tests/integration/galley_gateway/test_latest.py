"""The page of tasks looks at a bounded number of them, however many there are."""

from galley import AsyncClient, Phase, call
from galley.broker import inspect
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue


async def test_the_oldest_that_wait_and_the_last_that_ended_are_looked_at(
    nats_server: NatsServer, namespace: str
) -> None:
    async with Broker(nats_server.url, name="test") as broker:
        await ensure(broker, a_queue("many", namespace=namespace))
        client = AsyncClient.over(broker, namespace)
        for number in range(8):
            await client.submit(call("many", "echo", value=number), task_id=f"t{number}")
        for number in (0, 1, 2):
            await client.handle("many", f"t{number}").cancel()

        found = await inspect.latest(broker, namespace, "many", 2)

    assert [(each.address.id, each.phase) for each in found] == [
        ("t1", Phase.CANCELLED), ("t2", Phase.CANCELLED), ("t3", Phase.QUEUED), ("t4", Phase.QUEUED),
    ]  # fmt: skip
