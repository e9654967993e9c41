"""The Lease over an API in memory; two processes and a killed API server are in e2e/api."""

import asyncio
from typing import Any

import pytest

from galley_operator.cluster.errors import ClusterUnreachable
from galley_operator.cluster.resource import LEASES, Resource
from galley_operator.errors import LeadershipLost
from galley_operator.leadership import Leadership
from tests.support.memory_cluster import MemoryCluster
from tests.support.virtual_time import in_virtual_time

LEASE = ("galley", "galley-operator")


def a_candidate(api: MemoryCluster, identity: str = "one") -> Leadership:
    return Leadership(api, LEASE, identity, clock=asyncio.get_running_loop().time)


@in_virtual_time
async def test_a_lease_created_without_a_spec_is_taken() -> None:
    api = MemoryCluster()
    api.put(LEASES, {"metadata": {"namespace": LEASE[0], "name": LEASE[1]}})
    candidate = a_candidate(api)
    await asyncio.wait_for(candidate.acquire(), 60)
    assert candidate.leading


@in_virtual_time
async def test_a_candidate_waits_until_the_leader_is_silent() -> None:
    api = MemoryCluster()
    first, second = a_candidate(api), a_candidate(api, "two")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(10)
    assert not waiting.done()
    await asyncio.wait_for(waiting, 60)
    assert second.leading


@in_virtual_time
@pytest.mark.parametrize("error", [RuntimeError("broken"), ClusterUnreachable("s", "get", "away")])
async def test_an_error_while_it_leads_is_tried_again_and_one_that_lasts_ends_it(error: Exception) -> None:
    api = MemoryCluster()
    candidate = a_candidate(api)
    await candidate.acquire()
    real, broken = api.get, True

    async def get(resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        if broken:
            raise error
        return await real(resource, namespace, name)

    api.get = get  # type: ignore[method-assign]
    holding = asyncio.create_task(candidate.hold())
    await asyncio.sleep(5)
    broken = False
    await asyncio.sleep(30)
    assert not holding.done()
    broken = True
    with pytest.raises(LeadershipLost):
        await asyncio.wait_for(holding, 60)
    assert not candidate.leading


@in_virtual_time
async def test_an_api_server_that_does_not_answer_ends_it_and_is_not_told_as_an_earlier_error() -> None:
    api = MemoryCluster()
    candidate = a_candidate(api)
    await candidate.acquire()
    real, answers = api.get, iter([ClusterUnreachable("s", "get", "an hour ago"), None])

    async def get(resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        answer = next(answers, "none")
        if isinstance(answer, ClusterUnreachable):
            raise answer
        if answer is not None:
            await asyncio.Event().wait()
        return await real(resource, namespace, name)

    api.get = get  # type: ignore[method-assign]
    with pytest.raises(LeadershipLost, match="nothing answered"):
        await asyncio.wait_for(candidate.hold(), 600)
    assert not candidate.leading


@in_virtual_time
async def test_an_error_while_it_waits_is_tried_again() -> None:
    api, tries = MemoryCluster(), 0
    real = api.get

    async def get(resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise RuntimeError("broken")
        return await real(resource, namespace, name)

    api.get = get  # type: ignore[method-assign]
    await asyncio.wait_for(a_candidate(api).acquire(), 60)
    assert tries >= 3


@in_virtual_time
@pytest.mark.parametrize("answers", [False, True])
async def test_a_lease_that_cannot_be_released_ends_by_itself(answers: bool) -> None:
    api = MemoryCluster()
    first, second = a_candidate(api), a_candidate(api, "two")
    await first.acquire()
    real = api.get

    async def get(*_: Any) -> dict[str, Any]:
        if not answers:
            await asyncio.Event().wait()
        raise ClusterUnreachable("s", "get", "away")

    api.get = get  # type: ignore[method-assign, assignment]
    await first.release()
    assert not first.leading
    api.get = real  # type: ignore[method-assign]
    await asyncio.wait_for(second.acquire(), 60)
    assert second.leading
