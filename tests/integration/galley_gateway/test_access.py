"""Access while the API server is away, and what is remembered of its answers."""

import asyncio
from typing import Any

import pytest

from galley_gateway.access import Right, User
from galley_gateway.cluster_access import TOKEN_REVIEWS, ClusterAccess
from galley_gateway.errors import AccessUnknown, GatewayError, NotIdentified, RateExceeded
from galley_gateway.remembered import Remembered
from galley_local.nats_server import NatsServer
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import ClusterConfig
from galley_operator.cluster.resource import Resource
from tests.support.documents import free_port
from tests.support.gateways import served
from tests.support.memory_cluster import MemoryCluster


async def test_while_the_api_server_is_away_nothing_is_allowed(
    nats_server: NatsServer, namespace: str
) -> None:
    async with Cluster(ClusterConfig(f"http://127.0.0.1:{free_port()}", None)) as cluster:
        access = ClusterAccess(cluster)
        with pytest.raises(AccessUnknown):
            await access.check(User("someone"), Right("get", "tasks"), namespace, "red")
        with pytest.raises(NotIdentified):
            await access.identify("")
        async with served(nats_server.url, namespace, access) as api:
            answer = await api.ask("GET", api.path("red"), Authorization="Bearer x")
            assert (answer.status, answer.body["reason"]) == (503, "AccessUnknown")
            page = await api.ask("GET", f"{api.address}/ui/{namespace}/queues", Cookie="galley-token=x")
            assert (page.status, "does not say what you may do" in page.body) == (503, True)


class Reviews(MemoryCluster):
    """Accepts the tokens that it is told to."""

    def __init__(self, *accepted: str) -> None:
        super().__init__()
        self.accepted = set(accepted)

    async def create(self, resource: Resource, body: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        assert resource is TOKEN_REVIEWS
        authenticated = body["spec"]["token"] in self.accepted
        return {"status": {"authenticated": authenticated, "user": {"username": "ada"}}}


async def test_guesses_of_others_keep_no_user_out() -> None:
    now, cluster = 0.0, Reviews("ada")
    access = ClusterAccess(cluster, clock=lambda: now)
    assert (await access.identify("ada")).name == "ada"
    now = 60.0
    refused: list[type[GatewayError]] = []
    for number in range(200):
        with pytest.raises((NotIdentified, RateExceeded)) as error:
            await access.identify(f"guess-{number}")
        refused.append(error.type)
    assert refused.count(RateExceeded) == 100, "the API server is not asked about all of them"
    assert (await access.identify("ada")).name == "ada"
    # One that is accepted no longer is as good as a guess.
    cluster.accepted.clear()
    now = 120.0
    with pytest.raises(NotIdentified):
        await access.identify("ada")


async def test_those_who_ask_the_same_at_once_share_one_question() -> None:
    asked, now, go = 0, 0.0, asyncio.Event()
    remembered: Remembered[int] = Remembered(10, lambda: now)

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await go.wait()
        return asked

    first, second = (asyncio.create_task(remembered.get("key", ask)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    go.set()
    assert await second == 1
    assert await remembered.get("key", ask) == 1
    now = 11.0
    assert await remembered.get("key", ask) == 2


async def test_an_error_is_not_remembered() -> None:
    remembered: Remembered[int] = Remembered(10)

    async def fail() -> int:
        raise AccessUnknown("it is away")

    async def answer() -> int:
        return 1

    with pytest.raises(AccessUnknown):
        await remembered.get("key", fail)
    assert await remembered.get("key", answer) == 1
