"""Leader election over an API in memory, in virtual time: never two leaders, and never none for long."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import pytest

from galley_operator.cluster.errors import ClusterUnreachable
from galley_operator.cluster.resource import LEASES
from galley_operator.errors import LeadershipLost
from galley_operator.leadership import Leadership, LeaseTimes
from tests.support.memory_cluster import MemoryCluster, Written
from tests.support.virtual_time import in_virtual_time, virtual_loop

TIMES: Final = LeaseTimes(lease_seconds=15, renew_seconds=10, retry_seconds=2)
WHERE: Final = ("galley", "operator")


class Candidate:
    """One replica: leads when it can, and notes when."""

    def __init__(self, cluster: MemoryCluster, name: str) -> None:
        self.leadership = Leadership(cluster, WHERE, name, TIMES, asyncio.get_running_loop().time)
        self.leading = False
        self.lost: list[str] = []

    async def run(self) -> None:
        while True:
            await self.leadership.acquire()
            self.leading = True
            try:
                await self.leadership.hold()
            except LeadershipLost as error:
                self.lost.append(str(error))
            finally:
                self.leading = False


class Partition:
    """An API in memory that some candidates do not reach."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        self.away: set[str] = set()

    def seen_by(self, name: str) -> MemoryCluster:
        """Return the API as one candidate sees it."""
        partition = self

        class Seen(MemoryCluster):
            async def get(self, *arguments: object) -> dict[str, object]:
                partition.reach(name)
                return await partition.cluster.get(*arguments)  # type: ignore[arg-type]

        seen = Seen()
        seen.objects = self.cluster.objects

        def before(_request: Written) -> None:
            self.reach(name)

        seen.before = before
        return seen

    def reach(self, name: str) -> None:
        if name in self.away:
            raise ClusterUnreachable("https://api", "get", "no answer")


@asynccontextmanager
async def candidates(partition: Partition, *names: str) -> AsyncIterator[list[Candidate]]:
    them = [Candidate(partition.seen_by(name), name) for name in names]
    running = [asyncio.create_task(each.run()) for each in them]
    yield them
    for task in running:
        task.cancel()
    await asyncio.wait(running)


async def watch(them: list[Candidate], seconds: float, each: Callable[[list[str]], None]) -> None:
    """Look at who leads many times a second."""
    until = virtual_loop().time() + seconds
    while virtual_loop().time() < until:
        each([one.leadership._identity for one in them if one.leading])
        await asyncio.sleep(0.1)


def at_most_one(leaders: list[str]) -> None:
    assert len(leaders) <= 1, leaders


@in_virtual_time
async def test_of_three_candidates_one_leads_and_goes_on_leading() -> None:
    async with candidates(Partition(), "a", "b", "c") as them:
        await asyncio.sleep(5)
        first = [one for one in them if one.leading]
        assert len(first) == 1
        await watch(them, 300, at_most_one)
        assert [one for one in them if one.leading] == first
        assert all(one.leadership.leader == first[0].leadership._identity for one in them)
        assert [one.leadership.leading for one in them].count(True) == 1


@in_virtual_time
async def test_a_leader_that_reaches_nothing_gives_up_before_another_begins() -> None:
    partition = Partition()
    async with candidates(partition, "a", "b") as them:
        await asyncio.sleep(5)
        (leader,) = [one for one in them if one.leading]
        (other,) = [one for one in them if not one.leading]
        partition.away.add(leader.leadership._identity)
        began = virtual_loop().time()
        await watch(them, TIMES.renew_seconds + 2 * TIMES.retry_seconds, at_most_one)
        assert not leader.leading
        assert leader.lost
        await watch(them, 20, at_most_one)
        assert other.leading
        assert virtual_loop().time() - began < 40
        partition.away.clear()
        await watch(them, 60, at_most_one)
        assert other.leading


@in_virtual_time
async def test_a_failed_renewal_or_two_do_not_end_the_leadership() -> None:
    partition = Partition()
    async with candidates(partition, "a") as (one,):
        await asyncio.sleep(5)
        for _ in range(5):
            partition.away.add("a")
            await asyncio.sleep(TIMES.renew_seconds - 3 * TIMES.retry_seconds)
            partition.away.clear()
            await asyncio.sleep(5)
        assert (one.leading, one.lost) == (True, [])


@in_virtual_time
async def test_a_lease_is_taken_once_it_has_not_changed_for_its_duration_by_one_s_own_clock() -> None:
    """Whatever time its holder wrote: clocks of two machines are never compared."""
    cluster = MemoryCluster()
    spec = {"holderIdentity": "gone", "leaseDurationSeconds": 15, "renewTime": "2099-01-01T00:00:00.000000Z"}
    cluster.put(LEASES, {"metadata": {"namespace": WHERE[0], "name": WHERE[1]}, "spec": spec})
    leadership = Leadership(cluster, WHERE, "a", TIMES, asyncio.get_running_loop().time)
    assert not await leadership.attempt()
    await asyncio.sleep(14)
    assert not await leadership.attempt()
    assert leadership.leader == "gone"
    await asyncio.sleep(2)
    assert await leadership.attempt()
    held = cluster.objects["leases", *WHERE]["spec"]
    assert (held["holderIdentity"], held["leaseTransitions"]) == ("a", 1)


@in_virtual_time
async def test_a_lease_that_is_renewed_is_left_to_its_holder() -> None:
    cluster = MemoryCluster()
    clock = asyncio.get_running_loop().time
    one, other = (Leadership(cluster, WHERE, name, TIMES, clock) for name in "ab")
    assert await one.attempt()
    for _ in range(20):
        await asyncio.sleep(5)
        assert not await other.attempt()
        assert await one.attempt()


@in_virtual_time
async def test_who_is_beaten_to_a_free_lease_does_not_lead() -> None:
    cluster = MemoryCluster()
    clock = asyncio.get_running_loop().time
    one, other = (Leadership(cluster, WHERE, name, TIMES, clock) for name in "ab")
    assert await one.attempt()
    await one.release()
    assert not one.leading

    def quicker(_request: Written) -> None:
        cluster.before = lambda _request: None
        cluster.objects["leases", *WHERE]["spec"]["holderIdentity"] = "a"
        cluster.touch(LEASES, *WHERE)

    cluster.before = quicker
    assert not await other.attempt()
    assert not other.leading


@in_virtual_time
async def test_a_released_lease_is_taken_by_the_next_one_at_once() -> None:
    cluster = MemoryCluster()
    clock = asyncio.get_running_loop().time
    one, other = (Leadership(cluster, WHERE, name, TIMES, clock) for name in "ab")
    assert await one.attempt()
    assert not await other.attempt()
    await one.release()
    assert await other.attempt()
    assert not await one.attempt()
    await one.release()
    assert not await one.attempt(), "who does not lead has nothing to release"


@pytest.mark.parametrize("slow", [4.0, 9.0])
@in_virtual_time
async def test_the_time_of_leading_counts_from_before_the_request_that_renewed_it(slow: float) -> None:
    cluster = MemoryCluster()
    clock = asyncio.get_running_loop().time
    leadership = Leadership(cluster, WHERE, "a", TIMES, clock)

    def late(_request: Written) -> None:
        virtual_loop().freeze(slow)

    cluster.before = late
    assert await leadership.attempt()
    assert clock() - leadership._renewed_at >= slow


@in_virtual_time
async def test_a_leader_that_slept_past_its_lease_finds_another_one_and_stops() -> None:
    partition = Partition()
    async with candidates(partition, "a", "b") as them:
        await asyncio.sleep(5)
        (leader,) = [one for one in them if one.leading]
        spec = partition.cluster.objects["leases", *WHERE]["spec"]
        virtual_loop().freeze(60)
        spec["holderIdentity"] = "c"
        partition.cluster.touch(LEASES, *WHERE)
        await asyncio.sleep(2 * TIMES.retry_seconds)
        assert not leader.leading
        assert leader.lost
