"""Access while the API server is away, and what is remembered of its answers."""

import asyncio
from typing import Any

import pytest

from galley.remembered import Remembered
from galley_gateway.access import Right, User
from galley_gateway.cluster_access import TOKEN_REVIEWS, ClusterAccess
from galley_gateway.errors import AccessUnknown, GatewayError, NotIdentified, NotPermitted, RateExceeded
from galley_local.nats_server import NatsServer
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import ClusterConfig
from galley_operator.cluster.resource import Resource
from tests.support.gateways import served
from tests.support.memory_cluster import MemoryCluster
from tests.support.port import free_port


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
    """Accepts the tokens that it is told to, and allows what is on its list."""

    def __init__(self, *accepted: str, audiences: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.accepted, self.audiences = set(accepted), audiences
        self.allowed: set[tuple[str, str]] = set()
        """Users, and the resource with its part and name that they may use."""
        self.denied = False
        self.asked = 0

    async def create(self, resource: Resource, body: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        self.asked += 1
        spec = body["spec"]
        if resource is TOKEN_REVIEWS:
            authenticated = spec["token"] in self.accepted
            status = {
                "authenticated": authenticated,
                "user": {"username": "ada"},
                "audiences": self.audiences,
            }
            return {"status": status}
        asked = spec["resourceAttributes"]
        what = "/".join(asked[key] for key in ("resource", "subresource", "name") if key in asked)
        return {"status": {"allowed": (spec["user"], what) in self.allowed, "denied": self.denied}}


async def test_what_is_no_token_is_not_asked_about() -> None:
    access = ClusterAccess(cluster := Reviews("", "ada", "ada x", "ada\x7f"))
    for token in ("", "ada x", "ada\x7f"):
        with pytest.raises(NotIdentified):
            await access.identify(token)
    assert cluster.asked == 0


@pytest.mark.parametrize(
    ("audiences", "accepted"), [(("galley", "x"), True), (("other",), False), ((), False)]
)
async def test_a_token_counts_if_it_is_for_this_gateway(audiences: tuple[str, ...], accepted: bool) -> None:
    access = ClusterAccess(Reviews("ada", audiences=audiences), ("galley",))
    if accepted:
        assert (await access.identify("ada")).name == "ada"
        return
    with pytest.raises(NotIdentified, match="not for galley"):
        await access.identify("ada")


async def test_a_right_is_one_user_s_on_one_queue() -> None:
    access = ClusterAccess(cluster := Reviews(), remembered_seconds=0)
    ada, eve, right = User("ada"), User("eve"), Right("get", "tasks")
    cluster.allowed = {("ada", "taskqueues/tasks/red")}
    await access.check(ada, right, "shop", "red")
    for user, queue in ((eve, "red"), (ada, "blue"), (ada, "")):
        with pytest.raises(NotPermitted):
            await access.check(user, right, "shop", queue)
    cluster.allowed.add(("eve", "tasks"))
    await access.check(eve, right, "shop", "green")
    cluster.denied = True
    with pytest.raises(NotPermitted):
        await access.check(eve, right, "shop", "green")


async def test_what_is_remembered_of_one_user_is_not_said_of_another() -> None:
    access = ClusterAccess(cluster := Reviews())
    cluster.allowed = {("ada", "tasks")}
    await access.check(User("ada"), Right("get", "tasks"), "shop", "red")
    with pytest.raises(NotPermitted):
        await access.check(User("eve"), Right("get", "tasks"), "shop", "red")


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
    now = 180.0
    for number in range(100):
        with pytest.raises(NotIdentified):
            await access.identify(f"guess-{number}")
    with pytest.raises(RateExceeded):
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
