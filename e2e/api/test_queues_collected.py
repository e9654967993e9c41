"""Streams of a queue that is gone are kept for a day, and then collected."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from galley.broker.connection import Broker
from galley.broker.ensure import ensure, stream_info
from galley.broker.layout import layout_of
from galley.broker.orphans import kept_queues
from galley_local.nats_server import NatsServer
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.cluster.resource import TASKQUEUES
from galley_operator.queues.collection import StreamCollector
from galley_operator.queues.reconcile import Reconciler
from galley_operator.settings import OperatorSettings
from galley_operator.tasks.known_queues import read_queue
from tests.support.api_server import ApiServer
from tests.support.workers import a_task_queue


@dataclass
class Collecting:
    """A collector whose clock and list of queues are the test's."""

    cluster: Cluster
    broker: Broker
    namespace: str
    now: datetime = datetime(2026, 3, 1, tzinfo=UTC)
    listed: frozenset[tuple[str, str]] | None = frozenset()

    async def look(self, after: timedelta = timedelta(0), **settings: Any) -> None:
        self.now += after
        told = OperatorSettings(**{"install": self.namespace, **settings})
        collector = StreamCollector(self.cluster, self.broker, told, lambda _: self.listed, lambda: self.now)
        await collector.sweep()

    async def make(self, name: str = "drills") -> str:
        """Apply a TaskQueue, reconcile it, and return its uid."""
        body = {"apiVersion": "galley.dev/v1alpha1", "kind": "TaskQueue", "spec": {}}
        metadata = {"namespace": self.namespace, "name": name}
        made = await self.cluster.create(TASKQUEUES, {**body, "metadata": metadata})
        settings = OperatorSettings(install=self.namespace, worker_image="localhost/worker:1")
        outcome = await Reconciler(self.cluster, self.broker, settings).reconcile(read_queue(made))
        assert outcome.complete, outcome
        return str(made["metadata"]["uid"])

    async def delete(self, name: str = "drills") -> None:
        await self.cluster.delete(TASKQUEUES, self.namespace, name)

    async def kept(self) -> dict[str, tuple[str, datetime | None]]:
        found = await kept_queues(self.broker, self.namespace)
        return {each.queue: (each.uid, each.orphaned_at) for each in found}


@pytest.fixture
async def collecting(
    galley_api: ApiServer, nats_server: NatsServer, api_namespace: str
) -> AsyncIterator[Collecting]:
    async with (
        Broker(nats_server.url, name="test") as broker,
        Cluster(load_config(galley_api.kubeconfig)) as cluster,
    ):
        yield Collecting(cluster, broker, api_namespace)


async def test_streams_of_a_queue_that_is_there_are_left_alone(collecting: Collecting) -> None:
    uid = await collecting.make()
    # Even a listing that does not know of it yet does it no harm.
    await collecting.look()
    await collecting.look(after=timedelta(days=3))
    assert await collecting.kept() == {"drills": (uid, None)}


async def test_streams_of_a_deleted_queue_go_after_a_day(collecting: Collecting) -> None:
    uid = await collecting.make()
    await collecting.delete()
    await collecting.look()
    gone_at = collecting.now
    assert await collecting.kept() == {"drills": (uid, gone_at)}
    await collecting.look(after=timedelta(hours=23, minutes=59))
    assert await collecting.kept() == {"drills": (uid, gone_at)}
    await collecting.look(after=timedelta(minutes=2))
    assert await collecting.kept() == {}
    for stream in ("GW_{}_drills", "GS_{}_drills", "GR_{}_drills", "GD_{}_drills", "GO_{}_drills"):
        assert await stream_info(collecting.broker, stream.format(collecting.namespace)) is None


async def test_the_records_of_another_queue_stay(collecting: Collecting) -> None:
    await collecting.make("drills")
    await collecting.make("others")
    await collecting.delete("drills")
    await collecting.look()
    await collecting.look(after=timedelta(days=2))
    assert set(await collecting.kept()) == {"others"}
    assert await stream_info(collecting.broker, f"GR_{collecting.namespace}_others") is not None


async def test_a_queue_made_again_within_the_day_has_its_streams_back(collecting: Collecting) -> None:
    await collecting.make()
    await collecting.delete()
    await collecting.look()
    uid = await collecting.make()
    await collecting.look(after=timedelta(days=2))
    assert await collecting.kept() == {"drills": (uid, None)}


async def test_nothing_is_collected_while_it_is_not_known_what_there_is(collecting: Collecting) -> None:
    uid = await collecting.make()
    await collecting.delete()
    collecting.listed = None
    await collecting.look()
    assert await collecting.kept() == {"drills": (uid, None)}


async def test_streams_of_others_are_none_of_our_business(collecting: Collecting) -> None:
    await ensure(collecting.broker, layout_of(a_task_queue(collecting.namespace), "another"))
    await collecting.look(install="this")
    collecting.listed = None  # the namespace is not served
    await collecting.look(install="another")
    [kept] = [
        each
        for each in await kept_queues(collecting.broker, "another")
        if each.namespace == collecting.namespace
    ]
    assert kept.orphaned_at is None
