"""The Lease of a namespace: who may serve it, whatever others write into it."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from galley_operator.claims import AGAIN_SECONDS, CLAIM, TELL_SECONDS, TIMES, Claim
from galley_operator.cluster.errors import (
    ApiRefused,
    ClusterUnreachable,
    NotAdmitted,
    ObjectNotFound,
    RightsMissing,
)
from galley_operator.cluster.resource import EVENTS, LEASES
from tests.support.memory_cluster import MemoryCluster, Written
from tests.support.virtual_time import in_virtual_time


def a_claim(cluster: MemoryCluster, name: str) -> Claim:
    return Claim(cluster, "default", name, asyncio.get_running_loop().time)


def events(cluster: MemoryCluster) -> list[str]:
    return [body["note"] for (plural, _, _), body in cluster.objects.items() if plural == EVENTS.plural]


async def write(cluster: MemoryCluster, **spec: Any) -> None:
    """Write into the Lease, as a user may who has that right."""
    if (LEASES.plural, "default", CLAIM) in cluster.objects:
        await cluster.merge_patch(LEASES, "default", CLAIM, {"spec": spec})
    else:
        cluster.put(LEASES, {"metadata": {"namespace": "default", "name": CLAIM}, "spec": spec})


def holder(cluster: MemoryCluster) -> str:
    return str(cluster.objects[LEASES.plural, "default", CLAIM]["spec"]["holderIdentity"])


@in_virtual_time
async def test_the_second_release_of_a_namespace_waits_and_says_whom_for() -> None:
    cluster = MemoryCluster()
    first, second = a_claim(cluster, "here/galley"), a_claim(cluster, "there/other")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(600)
    assert not waiting.done()
    assert (first.problem, second.holder) == ("", "here/galley")
    assert second.problem.startswith("namespace default is served by the operator here/galley, as its Lease")
    assert events(cluster) == [f"there/other waits: {second.problem}"]
    assert not holding.done()
    holding.cancel()
    await asyncio.sleep(TIMES.lease_seconds + 30)
    assert waiting.done()
    assert second.problem == ""
    assert holder(cluster) == "there/other"


@in_virtual_time
async def test_the_next_leader_of_a_release_goes_on_at_once() -> None:
    cluster = MemoryCluster()
    await a_claim(cluster, "here/galley").acquire()
    async with asyncio.timeout(1):
        await a_claim(cluster, "here/galley").acquire()
    assert events(cluster) == []


@in_virtual_time
async def test_a_claim_that_another_took_is_not_held_any_more() -> None:
    cluster = MemoryCluster()
    first = a_claim(cluster, "here/galley")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    await write(cluster, holderIdentity="there/other")
    await asyncio.sleep(TIMES.retry_seconds + 1)
    assert holding.done()
    assert first.holder == "there/other"
    # It is free again once it was not renewed for its time.
    async with asyncio.timeout(TIMES.lease_seconds + 2 * AGAIN_SECONDS):
        await first.acquire()


@in_virtual_time
async def test_without_the_right_to_it_a_namespace_is_served(caplog: pytest.LogCaptureFixture) -> None:
    cluster = MemoryCluster()
    error = RightsMissing("create", "leases default/galley-serves", 403, "no")
    cluster.before = _raising(lambda: error)
    one = a_claim(cluster, "here/galley")
    await one.acquire()
    holding = asyncio.create_task(one.hold())
    await asyncio.sleep(600)
    assert not holding.done()
    assert caplog.messages.count("namespace not claimed") == 1
    cluster.before = _raising(lambda: None)
    await asyncio.sleep(30)
    assert holder(cluster) == "here/galley"
    holding.cancel()


@pytest.mark.parametrize(
    "error",
    [
        ObjectNotFound("create", "leases default/galley-serves", 404, "no such namespace"),
        NotAdmitted("create", "leases default/galley-serves", 403, "exceeded quota: count/leases=0"),
        ClusterUnreachable("https://api", "create", "no answer"),
    ],
)
@in_virtual_time
async def test_a_namespace_that_cannot_be_claimed_waits_and_says_why(
    error: ApiRefused, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = MemoryCluster()
    broken = True
    cluster.before = _raising(lambda: error if broken else None)
    one = a_claim(cluster, "here/galley")
    waiting = asyncio.create_task(one.acquire())
    await asyncio.sleep(600)
    assert not waiting.done()
    assert str(error) in one.problem
    assert one.holder == ""
    assert caplog.messages.count("namespace not claimed yet") == 1
    broken = False
    await asyncio.sleep(AGAIN_SECONDS + 1)
    assert waiting.done()
    assert one.problem == ""


@in_virtual_time
async def test_an_event_that_cannot_be_written_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    cluster = MemoryCluster()
    await write(cluster, holderIdentity="there/other")

    def before(request: Written) -> None:
        if request.plural == EVENTS.plural:
            raise ClusterUnreachable("https://api", "create", "no answer")

    cluster.before = before
    waiting = asyncio.create_task(a_claim(cluster, "here/galley").acquire())
    await asyncio.sleep(1)
    assert "event not written" in caplog.messages
    waiting.cancel()


@in_virtual_time
async def test_a_claim_that_another_made_in_the_same_moment_is_theirs() -> None:
    cluster = MemoryCluster()

    def before(request: Written) -> None:
        if (request.verb, request.plural) == ("create", LEASES.plural):
            cluster.before = _raising(lambda: None)
            cluster.put(
                LEASES,
                {"metadata": {"namespace": "default", "name": CLAIM}, "spec": {"holderIdentity": "them"}},
            )

    cluster.before = before
    one = a_claim(cluster, "here/galley")
    waiting = asyncio.create_task(one.acquire())
    await asyncio.sleep(1)
    assert (waiting.done(), one.holder) == (False, "them")
    waiting.cancel()


# As a user who may write Leases in the namespace, and wants to do harm.


@in_virtual_time
async def test_a_lease_that_is_deleted_all_the_time_is_held() -> None:
    cluster = MemoryCluster()
    one = a_claim(cluster, "here/galley")
    await one.acquire()
    holding = asyncio.create_task(one.hold())
    for _ in range(1000):
        cluster.objects.pop((LEASES.plural, "default", CLAIM), None)
        await asyncio.sleep(1)
    assert not holding.done()
    assert one.problem == ""
    holding.cancel()


@in_virtual_time
async def test_a_lease_that_changes_with_every_write_of_ours_is_held_while_it_names_us() -> None:
    cluster = MemoryCluster()
    one = a_claim(cluster, "here/galley")
    await one.acquire()
    holding = asyncio.create_task(one.hold())

    def before(request: Written) -> None:
        if request.plural == LEASES.plural:
            cluster.touch(LEASES, "default", CLAIM)

    cluster.before = before
    await asyncio.sleep(600)
    assert not holding.done()
    holding.cancel()


@in_virtual_time
async def test_a_lease_without_a_holder_that_cannot_be_renewed_is_given_up_in_time() -> None:
    cluster = MemoryCluster()
    one = a_claim(cluster, "here/galley")
    await one.acquire()
    holding = asyncio.create_task(one.hold())

    def before(request: Written) -> None:
        if request.plural == LEASES.plural:
            lease = cluster.objects[LEASES.plural, "default", CLAIM]
            lease["spec"]["holderIdentity"] = ""
            cluster.touch(LEASES, "default", CLAIM)

    cluster.before = before
    await asyncio.sleep(TIMES.renew_seconds + 2 * TIMES.retry_seconds)
    assert holding.done()
    assert one.problem.endswith("its Lease changes too often")


@pytest.mark.parametrize(
    "spec",
    [
        {"holderIdentity": "evil", "leaseDurationSeconds": 2**31 - 1},
        {"holderIdentity": "evil", "renewTime": "9999-12-31T23:59:59.999999Z"},
        {"holderIdentity": "evil", "leaseDurationSeconds": 600, "leaseTransitions": 2**31 - 1},
        {"holderIdentity": "\n\x00\x1b[31m" + "x" * 100_000, "leaseDurationSeconds": 1},
        {"holderIdentity": "\u202e\ufffd", "leaseDurationSeconds": 60},
        {"holderIdentity": "", "leaseDurationSeconds": 2**31 - 1},
        {"leaseDurationSeconds": 2**31 - 1},
        {},
    ],
)
@in_virtual_time
async def test_whatever_is_written_once_is_believed_for_ten_minutes_at_most(
    spec: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cluster = MemoryCluster()
    await write(cluster, **spec)
    one = a_claim(cluster, "here/galley")
    waiting = asyncio.create_task(one.acquire())
    await asyncio.sleep(1)
    assert len(one.problem) < 500
    assert all(each.isprintable() for each in one.problem)
    assert all(len(str(record.__dict__.get("leader", ""))) < 200 for record in caplog.records)
    assert all(len(note) < 1024 for note in events(cluster))  # what the API server takes
    async with asyncio.timeout(620):
        await waiting
    assert holder(cluster) == "here/galley"
    assert cluster.objects[LEASES.plural, "default", CLAIM]["spec"].get("leaseTransitions", 0) < 2**31


@in_virtual_time
async def test_a_lease_that_is_written_every_second_fills_neither_log_nor_events(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = MemoryCluster()
    waiting = asyncio.create_task(a_claim(cluster, "here/galley").acquire())
    await write(cluster, holderIdentity="evil-0")
    for second in range(600):
        await write(cluster, holderIdentity=f"evil-{second}")
        await asyncio.sleep(1)
    assert not waiting.done()
    told = caplog.messages.count("namespace is served elsewhere")
    assert 1 <= told == len(events(cluster)) <= 600 / TELL_SECONDS + 1
    waiting.cancel()


@in_virtual_time
async def test_of_two_operators_that_fight_one_serves_at_any_time() -> None:
    cluster = MemoryCluster()
    serving: list[str] = []

    async def serve(name: str) -> None:
        claim = a_claim(cluster, name)
        while True:
            await claim.acquire()
            serving.append(name)
            try:
                await claim.hold()
            finally:
                serving.remove(name)

    names, seen = ("here/galley", "there/other"), list[str]()
    running = {name: asyncio.create_task(serve(name)) for name in names}
    for _ in range(20):
        for _ in range(30):
            await asyncio.sleep(4)
            assert len(serving) <= 1
        [ended] = serving
        seen.append(ended)
        running[ended].cancel()
        await asyncio.sleep(TIMES.lease_seconds + TIMES.retry_seconds)
        running[ended] = asyncio.create_task(serve(ended))
    assert seen == [*names] * 10
    for each in running.values():
        each.cancel()


def _raising(error: Callable[[], Exception | None]) -> Callable[[Written], None]:
    def before(request: Written) -> None:
        if request.plural == LEASES.plural and (raised := error()) is not None:
            raise raised

    return before
