"""Topics over an API and a nats-server in memory: they are kept, changed, shown and removed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from galley.broker import topology
from galley.broker.counts import Outbox
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerRefused
from galley.broker.topic_keeper import code_body
from galley.broker.topics import declare_code
from galley.client import AsyncClient
from galley.topic import Subscribe
from galley.topics import TopicView
from galley_operator.cluster.errors import ClusterUnreachable
from galley_operator.cluster.kept_object import KeptObject
from galley_operator.cluster.resource import TOPICS
from galley_operator.errors import StorageQuotaExceeded
from galley_operator.faults import Faults
from galley_operator.queues.quota import Reservations
from galley_operator.quota import Quotas
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.topic_figures import TopicFigures
from galley_operator.topics import keeper
from galley_operator.topics.keeper import TopicsKeeper
from tests.support.builders import a_queue
from tests.support.eventually import eventually
from tests.support.memory_cluster import MemoryCluster
from tests.support.memory_nats import MemoryBroker, MemoryServer
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.desk import a_task_queue_object

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
RESIZE = {"name": "resize", "queueName": "images", "handler": "resize", "filter": 'key == "a"'}


@dataclass
class Stage:
    server: MemoryServer
    cluster: MemoryCluster
    broker: MemoryBroker
    queues: KnownQueues
    faults: Faults
    figures: TopicFigures

    def declare(self, name: str = "uploads", **spec: Any) -> None:
        """Have a Topic be there, or changed, as `kubectl apply` does it."""
        present = self.cluster.objects.get(("topics", "default", name))
        generation = 1 + (present["metadata"]["generation"] if present else 0)
        metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "generation": generation}
        body = {"metadata": metadata, "spec": spec, "status": present.get("status", {}) if present else {}}
        self.cluster.put(TOPICS, body)

    def ready(self, name: str = "uploads") -> str:
        status = self.cluster.objects["topics", "default", name].get("status") or {}
        conditions = status.get("conditions") or [{"reason": "none"}]
        return str(conditions[0]["reason"])

    def message(self, name: str = "uploads") -> str:
        return str(self.cluster.objects["topics", "default", name]["status"]["conditions"][0]["message"])

    async def view(self, name: str = "uploads") -> TopicView:
        return await AsyncClient.over(self.broker, "default").topics.get(name)


@asynccontextmanager
async def a_stage(quotas: Quotas | None = None) -> AsyncIterator[Stage]:
    server, queues = MemoryServer(BEGAN), KnownQueues()
    server.create(a_queue("images"))
    body = a_task_queue_object("images")
    body["metadata"]["uid"] = "uid-images"
    queues.seen(body)
    async with MemoryBroker(server, "operator") as broker:
        stage = Stage(server, MemoryCluster(), broker, queues, Faults(), TopicFigures())
        reservations = Reservations(broker, quotas or Quotas())
        topics = TopicsKeeper(
            stage.cluster,
            broker,
            queues,
            (None,),
            "tests",
            stage.faults,
            reservations,
            stage.figures,
            clock=server.now,
        )
        running = asyncio.create_task(topics.run())
        try:
            yield stage
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@in_virtual_time
async def test_a_topic_is_kept_as_its_object_says_and_its_status_shows_it() -> None:
    async with a_stage() as stage:
        stage.declare(subscriptions=[RESIZE])
        await eventually(lambda: stage.ready() == "Active", within=30)
        (queue,) = (await stage.view()).queues
        assert (queue.queue, queue.subscriptions[0].filter) == ("images", 'key == "a"')
        stage.declare(subscriptions=[{**RESIZE, "filter": 'key == "b"'}], retention={"seconds": 120})

        async def changed() -> bool:
            view = await stage.view()
            return (
                view.topic.retention_seconds == 120 and 'key == "b"' in view.queues[0].subscriptions[0].filter
            )

        await eventually(changed, within=30)
        stream = stage.server.streams[topology.topics_stream("default")]
        assert stream.definition["max_age"] == 720_000_000_000


@pytest.mark.parametrize(
    ("error", "faults"),
    [(RuntimeError("raised by a test"), 1), (ClusterUnreachable("https://api", "patch", "no answer"), 0)],
)
@in_virtual_time
async def test_what_goes_wrong_in_one_look_is_done_at_the_next(
    error: Exception, faults: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, raised = TopicsKeeper._look_at, list[Exception]()

    async def once(keeper: TopicsKeeper, namespace: str, things: list[KeptObject]) -> None:
        if not raised:
            raised.append(error)
            raise error
        await look(keeper, namespace, things)

    monkeypatch.setattr(TopicsKeeper, "_look_at", once)
    async with a_stage() as stage:
        stage.declare(subscriptions=[RESIZE])
        await eventually(lambda: stage.ready() == "Active", within=30)
        assert (len(raised), stage.faults.seen) == (1, faults)


@in_virtual_time
async def test_a_filter_that_cannot_be_read_leaves_the_topic_as_it_was() -> None:
    async with a_stage() as stage:
        stage.declare(subscriptions=[RESIZE])
        await eventually(lambda: stage.ready() == "Active", within=30)
        stage.declare(subscriptions=[{**RESIZE, "filter": "key =="}])
        await eventually(lambda: stage.ready() == "ManifestInvalid", within=30)
        assert "'key ==': it ends, a value is missing" in stage.message()
        (queue,) = (await stage.view()).queues
        assert queue.subscriptions[0].filter == 'key == "a"'


@in_virtual_time
async def test_a_subscription_of_an_unknown_queue_is_shown() -> None:
    async with a_stage() as stage:
        stage.declare(subscriptions=[{**RESIZE, "queueName": "nowhere"}])
        await eventually(lambda: stage.ready() == "QueueNotFound", within=30)
        assert "there is no TaskQueue nowhere" in stage.message()


@in_virtual_time
async def test_a_queue_that_takes_encrypted_tasks_only_is_named() -> None:
    async with a_stage() as stage:
        body = a_task_queue_object("images")
        body["metadata"] |= {"uid": "uid-images", "generation": 2, "resourceVersion": "2"}
        body["spec"]["encryption"] = {"secretName": "keys"}
        stage.queues.seen(body)
        stage.declare(subscriptions=[RESIZE])
        await eventually(lambda: stage.ready() == "QueueEncrypted", within=30)
        assert "TaskQueue images takes encrypted tasks only" in stage.message()
        body["metadata"] |= {"generation": 3, "resourceVersion": "3"}
        body["spec"]["encryption"]["plaintext"] = "Accept"
        stage.queues.seen(body)
        await eventually(lambda: stage.ready() == "Active", within=30)


@in_virtual_time
async def test_a_topic_whose_object_is_gone_is_removed() -> None:
    async with a_stage() as stage:
        stage.declare(subscriptions=[RESIZE])
        stage.declare("other")
        await eventually(lambda: stage.ready() == "Active" == stage.ready("other"), within=30)
        for name in ("uploads", "other"):
            stage.cluster.remove(TOPICS, name)

        async def empty() -> bool:
            return not stage.server.streams[topology.topics_stream("default")].messages

        await eventually(empty, within=30)
        assert not [name for name in stage.server.consumers if name[0] == topology.topics_stream("default")]


@in_virtual_time
async def test_the_code_of_a_queue_subscribes_beside_the_object() -> None:
    async with a_stage() as stage:
        stage.declare(subscriptions=[RESIZE])
        await eventually(lambda: stage.ready() == "Active", within=30)
        body = code_body({"shrink": (Subscribe("uploads"),)}, {})
        assert await declare_code(stage.broker, "default", "images", body)

        async def both() -> bool:
            names = [each.name for queue in (await stage.view()).queues for each in queue.subscriptions]
            return names == ["resize", "images-shrink"]

        await eventually(both, within=30)


@in_virtual_time
async def test_topics_are_kept_although_streams_cannot_be_listed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> Any:
        raise BrokerRefused("list streams", 10100, "broken for now")

    monkeypatch.setattr(keeper, "all_streams", refuse)
    async with a_stage() as stage:
        stage.declare()
        await eventually(lambda: stage.ready() == "Active", within=60)
        assert "topics not listed" in caplog.messages
        assert stage.faults.seen == 0


@in_virtual_time
async def test_a_stream_of_another_installation_is_left_alone() -> None:
    async with a_stage() as stage:
        stage.declare()
        await eventually(lambda: stage.ready() == "Active", within=30)
        stream = stage.server.streams[topology.topics_stream("default")]
        stream.definition["metadata"] = {**stream.definition["metadata"], topology.OWNER_KEY: "others"}
        stage.declare(retention={"seconds": 60})
        await eventually(lambda: stage.ready() == "QueueConflict", within=30)


@in_virtual_time
async def test_topics_and_queues_share_the_bytes_of_their_namespace() -> None:
    queue, mib = a_queue("images"), 1024**2
    room = Quotas.model_validate({"namespaceBytes": queue.reserved_bytes + 40 * mib}, by_alias=True)
    async with a_stage(room) as stage:
        stage.declare("small", retention={"bytes": 8 * mib})
        await eventually(lambda: stage.ready("small") == "Active", within=30)
        stage.declare("large", retention={"bytes": 2**40})
        await eventually(lambda: stage.ready("large") == "TopicsQuotaExceeded", within=30)
        assert "spec.retention.bytes" in stage.message("large")
        assert await topic_bytes(stage) == 10 * mib
        # One that is kept as it was, since its object cannot be read now, still takes its room.
        stage.declare("large", retention={"bytes": 24 * mib})
        await eventually(lambda: stage.ready("large") == "Active", within=30)
        stage.declare("large", retention={"bytes": 24 * mib}, subscriptions=[{**RESIZE, "filter": "(("}])
        stage.declare("third", retention={"bytes": 24 * mib})
        await eventually(lambda: stage.ready("third") == "TopicsQuotaExceeded", within=30)
        assert await topic_bytes(stage) == 34 * mib
        # And a further queue finds what the topics left.
        refused = Reservations(stage.broker, room).of_queue(a_queue("another"))
        with pytest.raises(StorageQuotaExceeded):
            async with refused:
                raise AssertionError("there is no room for it")


async def topic_bytes(stage: Stage) -> int:
    info = await stream_info(stage.broker, topology.topics_stream("default"))
    assert info is not None
    return int(info["config"]["max_bytes"])


@in_virtual_time
async def test_what_a_queue_missed_is_shown_by_status_condition_and_metric(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "_LATELY", timedelta(seconds=60))
    async with a_stage() as stage:
        every = {"name": "all", "queueName": "images", "handler": "resize"}
        stage.declare(subscriptions=[every], retention={"seconds": 60})
        await eventually(lambda: stage.ready() == "Active", within=30)

        def complete() -> tuple[str, str, int]:
            status = stage.cluster.objects["topics", "default", "uploads"]["status"]
            (found,) = (each for each in status["conditions"] if each["type"] == "Complete")
            return found["status"], found["message"], status["missed"]

        def counted() -> dict[str, float]:
            (family,) = stage.figures.collect()
            return {each.labels["reason"]: each.value for each in family.samples}

        assert complete() == ("True", "no queue missed an event in the last day", 0)
        assert counted() == {"failed": 0, "expired": 0}
        client = AsyncClient.over(stage.broker, "default")
        for _ in range(3):
            await client.publish("uploads", 1)
        # As a worker hands it over.
        outbox = Outbox(stage.broker, ("default", "images"), "w1", asyncio.get_running_loop().time)
        assert await outbox.hand_over(Counter({("events", "missed_uploads"): 1}))
        said = "queue images: 1 became dead letters, and the retention of 3 ended before they were copied"
        await eventually(lambda: complete() == ("False", said, 4), within=200)
        assert counted() == {"failed": 1, "expired": 3}
        await eventually(lambda: complete()[0] == "True", within=300)
        assert complete()[2] == 4
