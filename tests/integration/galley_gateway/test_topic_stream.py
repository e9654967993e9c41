"""The events of a topic as a stream over HTTP: what it sends, says of what is missing, and what ends it."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.broker.topics import StoredEvent
from galley.client import AsyncClient
from galley.event import event_of
from galley.topic import Topic
from galley_gateway.errors import NotPermitted
from galley_gateway.limits import Limits
from galley_local.nats_server import NatsServer
from tests.integration.galley_gateway.test_markup import events_of
from tests.integration.galley_gateway.test_streams import Guards
from tests.support.eventually import eventually
from tests.support.gateways import Served, served

ADA = {"Authorization": "Bearer ada"}


@pytest.fixture
async def guards(namespace: str) -> Guards:
    return Guards(namespace)


@pytest.fixture
async def api(nats_server: NatsServer, namespace: str, guards: Guards) -> AsyncIterator[Served]:
    async with served(nats_server.url, namespace, guards, Limits(waits_of_user=2, waits=3)) as gateway:
        keeper = TopicKeeper(gateway.gateway.broker, namespace, "tests")
        assert await keeper.keep([Declared(Topic("readings"))]) == []
        yield gateway


def path(api: Served, topic: str = "readings", query: str = "") -> str:
    return f"{api.address}/api/v1/namespaces/{api.namespace}/topics/{topic}/events{query}"


class Stream:
    """One open stream."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._events = events_of(answer)

    async def next(self) -> tuple[str, Any]:
        async with asyncio.timeout(30):
            name, data = await anext(self._events)
        return name, json.loads(data)


async def test_events_come_as_they_are_published_and_what_is_missing_is_said(api: Served) -> None:
    client = AsyncClient.over(api.gateway.broker, api.namespace)
    query = "?filter=attributes.region%20%3D%3D%20%22eu%22"
    async with api.session.get(path(api, query=query), headers=ADA) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        stream = Stream(answer)
        assert await stream.next() == ("listening", {})
        await client.publish("readings", {"celsius": 81}, {"region": "us"})
        await client.publish("readings", {"celsius": 82}, {"region": "eu"}, event_id="e1")
        name, event = await stream.next()
        assert (name, event["id"], event["data"], event["region"]) == ("event", "e1", {"celsius": 82}, "eu")
        await api.gateway.broker.nats.drop()
        (hearing,) = api.gateway.broker.live._namespaces[api.namespace].topics["readings"].hearings
        await eventually(lambda: hearing.gaps == 1, within=30)
        # As many at once as the buffer does not hold.
        now = datetime.now(UTC)
        for number in range(1100):
            new = event_of(number, now, source="s", attributes={"region": "eu"})
            hearing.hear(StoredEvent("readings", new, number, now), 10)
        missed = {"dropped": 100, "gaps": 1, "failed": 0}
        assert await stream.next() == ("missed", missed)
        assert (await stream.next())[1]["data"] == 100
        assert b"galley_gateway_events_dropped_total 100.0" in api.gateway.metrics.page()
    await eventually(lambda: api.gateway.places.open == 0, within=20)
    await eventually(lambda: api.gateway.broker.live._namespaces == {}, within=20)


async def test_a_stream_is_refused_as_other_requests_are(api: Served) -> None:
    for topic, query, status, reason in (
        ("none", "", 404, "TopicNotFound"),
        ("readings", "?filter=region%20%3D%3D", 422, "FilterInvalid"),
        ("No-Topic", "", 422, "EventInvalid"),
    ):
        refused = await api.ask("GET", path(api, topic, query), **ADA)
        assert (refused.status, refused.body["reason"]) == (status, reason)
    refused = await api.ask("GET", path(api), Authorization="Bearer eve")
    assert (refused.status, refused.body["reason"]) == (403, "NotPermitted")
    assert "watch" in refused.body["detail"]
    assert "topics/events" in refused.body["detail"]
    async with api.session.get(path(api), headers=ADA), api.session.get(path(api), headers=ADA):
        assert (await api.ask("GET", path(api), **ADA)).body["reason"] == "TooManyWaits"


async def test_no_event_follows_the_end_of_the_right_or_of_the_topic(api: Served, guards: Guards) -> None:
    client = AsyncClient.over(api.gateway.broker, api.namespace)
    async with api.session.get(path(api), headers=ADA) as answer:
        stream = Stream(answer)
        assert (await stream.next())[0] == "listening"
        guards.refusal = NotPermitted("ada", "watch", "topics/events", api.namespace)
        await client.publish("readings", "secret")
        name, problem = await stream.next()
        assert (name, problem["reason"]) == ("problem", "NotPermitted")
        assert b"secret" not in await answer.content.read()
    guards.refusal = None
    async with api.session.get(path(api), headers=ADA) as answer:
        stream = Stream(answer)
        assert (await stream.next())[0] == "listening"
        await TopicKeeper(api.gateway.broker, api.namespace, "tests").keep([])
        name, problem = await stream.next()
        assert (name, problem["reason"]) == ("problem", "TopicNotFound")
