"""The operator's way into NATS, and what it knows of NATS, while something in between is away."""

import asyncio

import pytest

from galley_operator.broker_access import BrokerAccess
from galley_operator.broker_figures import LOOK_SECONDS, USED, BrokerFigures
from galley_operator.cluster.resource import SECRETS
from galley_operator.settings import OperatorSettings
from tests.support.eventually import eventually
from tests.support.memory_cluster import MemoryCluster
from tests.support.memory_nats import MemoryBroker, MemoryServer
from tests.support.virtual_time import in_virtual_time


@in_virtual_time
async def test_what_is_missing_on_the_way_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    cluster = MemoryCluster()
    settings = OperatorSettings(store_secret="store", store_key=1, auth_secret="keys")
    connecting = asyncio.create_task(BrokerAccess(cluster, settings, "galley").connect())
    await asyncio.sleep(5)
    assert caplog.messages == ["no way into the broker"] * 3
    assert "there is no Secret galley/keys" in caplog.records[0].error  # type: ignore[attr-defined]
    assert (SECRETS.plural, "galley", "store") in cluster.objects
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting


@in_virtual_time
async def test_while_the_broker_is_away_its_figures_stay_as_they_were_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    figures = BrokerFigures()
    async with MemoryBroker(MemoryServer(), "operator") as broker:
        broker.line.lose(to_server=lambda _subject: True)
        following = asyncio.create_task(figures.follow(broker, None))
        await eventually(lambda: "use of JetStream not read" in caplog.messages, within=60)
        assert not list(figures.collect())
        broker.line.lose()
        await asyncio.sleep(2 * LOOK_SECONDS)
        assert USED.name in [metric.name for metric in figures.collect()]
        following.cancel()
