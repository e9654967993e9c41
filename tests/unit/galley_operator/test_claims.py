"""Two installations that are to serve one namespace: one does, and the other says why it does not."""

import asyncio
import logging

import pytest

from galley_operator.claims import CLAIM, TIMES, Claims
from galley_operator.cluster.errors import ApiRefused, ClusterUnreachable, ObjectNotFound, RightsMissing
from galley_operator.cluster.resource import EVENTS, LEASES
from galley_operator.errors import LeadershipLost
from tests.support.memory_cluster import MemoryCluster, Written
from tests.support.virtual_time import in_virtual_time

NAMESPACES = ("default", "images")


def claims(cluster: MemoryCluster, name: str, *namespaces: str) -> Claims:
    return Claims(cluster, namespaces or NAMESPACES, name, asyncio.get_running_loop().time)


def events(cluster: MemoryCluster) -> list[str]:
    return [body["note"] for (plural, _, _), body in cluster.objects.items() if plural == EVENTS.plural]


@in_virtual_time
async def test_the_second_release_of_a_namespace_waits_and_says_whom_for() -> None:
    cluster = MemoryCluster()
    first, second = claims(cluster, "here/galley"), claims(cluster, "there/other", "default", "free")
    await first.acquire()
    assert (first.problem, second.problem) == ("", "")
    holding = [asyncio.create_task(each) for each in first.held()]
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(600)
    assert not waiting.done()
    assert second.problem.startswith("namespace default is served by the operator here/galley: uninstall")
    assert events(cluster) == [f"there/other waits: {second.problem}"]
    for each in holding:
        each.cancel()
    await asyncio.sleep(TIMES.lease_seconds + 30)
    assert waiting.done()
    assert second.problem == ""
    assert cluster.objects[LEASES.plural, "default", CLAIM]["spec"]["holderIdentity"] == "there/other"
    await asyncio.wait(holding)


@in_virtual_time
async def test_the_next_leader_of_a_release_goes_on_at_once() -> None:
    cluster = MemoryCluster()
    await claims(cluster, "here/galley").acquire()
    async with asyncio.timeout(1):
        await claims(cluster, "here/galley").acquire()
    assert events(cluster) == []


@in_virtual_time
async def test_a_claim_that_another_took_ends_the_leader() -> None:
    cluster = MemoryCluster()
    first = claims(cluster, "here/galley", "default")
    await first.acquire()
    spec = cluster.objects[LEASES.plural, "default", CLAIM]["spec"]
    await cluster.merge_patch(
        LEASES, "default", CLAIM, {"spec": {**spec, "holderIdentity": "there/other"}}
    )  # fmt: skip
    (held,) = first.held()
    with pytest.raises(LeadershipLost, match="there/other has it"):
        await held


@pytest.mark.parametrize(
    "error",
    [
        RightsMissing("create", "leases default/galley-serves", 403, "no"),
        ObjectNotFound("create", "leases default/galley-serves", 404, "no such namespace"),
    ],
)
@in_virtual_time
async def test_a_namespace_that_cannot_be_claimed_holds_up_no_other(
    error: ApiRefused, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = MemoryCluster()

    def before(request: Written) -> None:
        if request.plural == LEASES.plural:
            raise error

    cluster.before = before
    one = claims(cluster, "here/galley", "default")
    await one.acquire()
    assert "namespace not claimed" in caplog.messages
    assert list(one.held()) == []


@in_virtual_time
async def test_a_claim_that_is_gone_ends_nothing_and_is_made_again() -> None:
    cluster = MemoryCluster()
    first = claims(cluster, "here/galley", "default")
    await first.acquire()
    holding = [asyncio.create_task(each) for each in first.held()]
    refused = True

    def before(request: Written) -> None:
        if refused:
            raise ObjectNotFound("create", "leases default/galley-serves", 404, "no such namespace")

    cluster.before = before
    cluster.objects.pop((LEASES.plural, "default", CLAIM))
    await asyncio.sleep(300)
    refused = False
    await asyncio.sleep(30)
    assert (LEASES.plural, "default", CLAIM) in cluster.objects
    assert not holding[0].done()
    holding[0].cancel()


@in_virtual_time
async def test_an_api_server_that_is_away_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    cluster = MemoryCluster()
    until = asyncio.get_running_loop().time() + 30

    def before(request: Written) -> None:
        if asyncio.get_running_loop().time() < until or request.plural == EVENTS.plural:
            raise ClusterUnreachable("https://api", "get", "no answer")

    cluster.before = before
    first, second = claims(cluster, "here/galley"), claims(cluster, "there/other")
    await first.acquire()
    assert asyncio.get_running_loop().time() >= until
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(20)
    assert second.problem
    assert "event not written" in caplog.messages
    waiting.cancel()
