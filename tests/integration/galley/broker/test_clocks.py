"""A machine whose clock is wrong is told so by the broker's, at the first thing it asks of a stream."""

import logging
import time

import pytest

from galley.broker.connection import Broker
from galley.broker.ensure import ensure, stream_info
from galley.broker.topology import work_stream
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue


@pytest.mark.parametrize(("ahead", "told"), [(0.0, []), (600.0, [600]), (-600.0, [-600])])
async def test_a_clock_that_is_wrong_is_told_of(
    nats_server: NatsServer, namespace: str, caplog: pytest.LogCaptureFixture, ahead: float, told: list[int]
) -> None:
    caplog.set_level(logging.INFO, logger="galley.broker.clock_watch")
    queue = a_queue(namespace=namespace)
    async with Broker(nats_server.url, name="test", clock=lambda: time.time() + ahead) as broker:
        await ensure(broker, queue)
        assert await stream_info(broker, work_stream(queue.namespace, queue.queue)) is not None
    found = [record for record in caplog.records if record.name == "galley.broker.clock_watch"]
    assert [round(record.__dict__["seconds_ahead"] / 10) * 10 for record in found] == told
