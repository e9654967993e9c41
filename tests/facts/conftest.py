"""Fixtures: a raw connection, and a queue exactly as Galley lays it out."""

from collections.abc import AsyncIterator

import pytest

from galley.broker.topology import QueueLayout, later_stream, work_stream
from galley_local.nats_server import NatsServer
from tests.facts.jetstream import BRIEF, JetStream
from tests.support.builders import a_queue


@pytest.fixture
async def jetstream(nats_server: NatsServer) -> AsyncIterator[JetStream]:
    async with await JetStream.connect(nats_server.url) as connected:
        yield connected


@pytest.fixture
async def queue(jetstream: JetStream, namespace: str) -> QueueLayout:
    """A queue with leases of 30 s."""
    layout = a_queue(namespace=namespace)
    await jetstream.create_queue(layout)
    return layout


@pytest.fixture
async def brief_queue(jetstream: JetStream, namespace: str) -> QueueLayout:
    """A queue with short leases."""
    layout = a_queue(namespace=namespace)
    await jetstream.create_queue(layout, lease_seconds=BRIEF)
    return layout


@pytest.fixture
def work(namespace: str) -> str:
    """Name of the work stream of the queue in this test."""
    return work_stream(namespace, a_queue().queue)


@pytest.fixture
def later(namespace: str) -> str:
    """Name of the later stream of the queue in this test."""
    return later_stream(namespace, a_queue().queue)
