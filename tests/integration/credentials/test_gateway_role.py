"""The credentials of the gateway: all that managers of queues may do, for all queues, and nothing beyond."""

from pathlib import Path

import pytest

from galley import AsyncClient, Phase, call, chain
from galley.broker.connection import Broker
from galley.broker.control import hearing
from galley.broker.ensure import ensure
from galley.broker.permissions import Role, gateway_permissions
from galley.broker.signals import SignalReader
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.topic import Topic
from galley.workflow.errors import WorkflowInvalid
from tests.integration.credentials.test_rights import PUBLISH, SUBSCRIBE, Judged, covers
from tests.support.builders import a_queue
from tests.support.guarded_nats import GuardedNats

NEVER = (
    "$JS.API.STREAM.CREATE.evil", "$JS.API.STREAM.UPDATE.GW_ns_mine", "$JS.API.STREAM.DELETE.GW_ns_mine",
    "$JS.API.STREAM.MSG.DELETE.GW_ns_mine", "$JS.API.STREAM.SNAPSHOT.GW_ns_mine",
    "$JS.API.STREAM.RESTORE.evil",
    "$JS.API.CONSUMER.CREATE.GW_ns_mine.evil", "$JS.API.CONSUMER.DELETE.GW_ns_mine.normal",
    "$JS.API.CONSUMER.MSG.NEXT.GW_ns_mine.normal", "$JS.ACK.GW_ns_mine.normal.1.1.1.1.1",
    "galley.task.ns.mine.normal.k8s.x", "galley.note.ns.mine.sdk.x.progress", "galley.hb.ns.mine.w",
    "galley.answer.ns.mine.x", "galley.ctl.ns.mine.drain", "galley.again.ns.mine.normal.sdk.x",
    "$SYS.REQ.CLAIMS.DELETE", "_INBOX.worker.ns.mine.x",
)  # fmt: skip
"""What creates, deletes or takes, says it is a worker, or speaks as the operator."""


@pytest.fixture
async def creds(own_guarded_nats: GuardedNats) -> Path:
    async with own_guarded_nats.operator() as operator:
        for name in ("mine", "theirs"):
            await ensure(operator, a_queue(name, namespace="ns"))
    return own_guarded_nats.write_gateway_creds()


async def test_it_publishes_and_hears_what_the_table_says(own_guarded_nats: GuardedNats, creds: Path) -> None:
    patterns = gateway_permissions()
    async with Broker(own_guarded_nats.url, name="test", credentials=creds) as broker:
        judged = Judged(broker)
        passed = {subject for subject in (*PUBLISH, *NEVER) if await judged.publishes(subject)}
        heard = {subject for subject in SUBSCRIBE if await judged.subscribes(subject)}
    allowed = {
        each for each in (*PUBLISH, *NEVER) if any(covers(pattern, each) for pattern in patterns.publish)
    }
    assert passed == allowed
    assert passed.isdisjoint(NEVER)
    assert heard == {
        each for each in SUBSCRIBE if any(covers(pattern, each) for pattern in patterns.subscribe)
    }


async def test_it_is_enough_for_all_that_the_gateway_does(own_guarded_nats: GuardedNats, creds: Path) -> None:
    async with (
        own_guarded_nats.operator() as owner,
        Broker(own_guarded_nats.url, name="gateway", credentials=creds) as broker,
    ):
        client = AsyncClient.over(broker, "ns")
        handle = await client.submit(call("mine", "echo", value=1), task_id="one")
        assert (await client.submit(call("mine", "echo", value=1), task_id="one")).existed
        await client.submit(call("mine", "echo", value="x" * 300_000), task_id="large")
        await client.submit(call("mine", "echo"), unique="key")
        assert len(await client.tasks("mine")) == 3
        assert (await handle.status()).phase is Phase.QUEUED
        assert await handle.logs() == []
        await client.queues.pause("mine")
        assert (await client.queues.get("mine")).paused
        await client.queues.resume("mine")
        await client.schedules.create("nightly", call("mine", "echo"), "@daily")
        await client.schedules.run_now("mine", "nightly", "token")
        await client.schedules.delete("mine", "nightly")
        assert await client.dead_letters.find("mine") == []
        await SignalReader(broker).read("ns", "mine")
        async with hearing(broker, "ns", "mine", lambda _: None):
            assert (await handle.cancel()).value == "cancelled before it ran"
        assert (await handle.wait(30)).phase is Phase.CANCELLED
        keeper = TopicKeeper(owner, "ns", "tests")
        assert await keeper.keep([Declared(Topic("readings", retention_seconds=600), ())]) == []
        assert (await client.publish("readings", 1)).topic == "readings"
        assert [each.name for each in await client.topics.list()] == ["readings"]
        flow = await client.workflows.submit(chain(call("mine", "echo"), call("theirs", "echo")))
        assert (await flow.status()).steps == 2
        await flow.cancel()
        assert (await flow.redrive()).id in [each.id for each in await client.workflows.list("mine")]
    mine = own_guarded_nats.write_creds(Role.PRODUCER, "ns", "mine")
    async with Broker(own_guarded_nats.url, name="producer", credentials=mine) as broker:
        client = AsyncClient.over(broker, "ns")
        with pytest.raises(WorkflowInvalid, match=r"queue 'theirs'.*are of queue 'mine' alone") as refused:
            await client.workflows.submit(chain(call("mine", "echo"), call("theirs", "echo")))
        assert "keep the workflow in one queue" in refused.value.hint
