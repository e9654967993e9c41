from galley.broker.connection import Broker
from galley.broker.dead_letters import count_dead
from galley.broker.ensure import ensure
from galley.broker.topology import dead_stream
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue


async def test_dead_letters_are_counted_by_queue_and_leave_no_trace(
    nats_server: NatsServer, namespace: str
) -> None:
    async with Broker(nats_server.url, name="test") as broker:
        for name in ("images", "mail"):
            await ensure(broker, a_queue(name, namespace=namespace))
        for task in ("a", "b", "c", "a"):
            answer = await broker.request(f"galley.dead.{namespace}.images.sdk.{task}", b"{}")
            assert answer is not None
        # The second letter of a task takes the place of the first.
        assert await count_dead(broker, namespace, "images") == 3
        assert await count_dead(broker, namespace, "mail") == 0
        left = await broker.api("list", f"CONSUMER.NAMES.{dead_stream(namespace, 'images')}")
        assert not left["consumers"]
