"""Which keys tasks wait under, and how users see it."""

from msgspec.structs import replace

from galley.broker import topology
from galley.broker.key_permits import KeyPermits
from galley.broker.waiting_keys import WaitingKey, WaitingKeys, count_waiting, waiting_keys
from galley.key import Permits, digest_of_key
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import a_bench


@in_virtual_time
async def test_keys_are_named_with_what_their_tasks_wait_for() -> None:
    async with a_bench() as bench:
        place = bench.layout.namespace, bench.layout.queue
        assert await waiting_keys(bench.producer, *place) == WaitingKeys()
        assert WaitingKeys().sentence == ""
        for key in ("a", "b", "a", "c", "a", "b"):
            await bench.submit(key=key)
        await bench.submit()
        permits = KeyPermits(bench.producer, *place)
        await permits.write(digest_of_key("a"), Permits(("t1",)), 0)
        await permits.write(digest_of_key("b"), Permits((), 9e9), 0)
        found = await waiting_keys(bench.producer, *place)
        assert (found.tasks, found.read) == (6, 6)
        assert [(each.key, each.waiting, each.reason) for each in found.keys] == [
            ("a", 3, "permit"),
            ("b", 2, "rate"),
            ("c", 1, "turn"),
        ]
        assert found.sentence == (
            "6 tasks wait under their keys: 3 of 'a' for a permit that t1 has; "
            "2 of 'b' for a start that the rate allows; 1 of 'c' for their turn"
        )
        assert await count_waiting(bench.producer, *place) == 6


@in_virtual_time
async def test_a_task_that_cannot_be_read_counts_and_names_no_key() -> None:
    async with a_bench() as bench:
        address = await bench.submit(key="a")
        digest = digest_of_key("a")
        other = topology.wait_subject(replace(address, id="other"), digest)
        bench.publish_raw(address, b"not a task", "", other)
        found = await waiting_keys(bench.producer, bench.layout.namespace, bench.layout.queue)
        assert (found.tasks, found.read, [each.key for each in found.keys]) == (2, 1, ["a"])


@in_virtual_time
async def test_of_many_tasks_the_oldest_are_read_and_all_are_counted() -> None:
    async with a_bench() as bench:
        for number in range(300):
            await bench.submit(key=f"k{number % 7}")
        found = await waiting_keys(bench.producer, bench.layout.namespace, bench.layout.queue)
        assert (found.tasks, found.read, len(found.keys)) == (300, 256, 5)
        assert found.sentence.startswith("300 tasks wait under their keys; of the first 256: 37 of 'k0'")


def test_one_task_and_many_holders_are_told_in_plain_words() -> None:
    held = tuple(f"t{number}" for number in range(9))
    one = WaitingKeys(1, 1, (WaitingKey("k" * 100, 1, held),))
    assert one.sentence == (
        f"1 task waits under their keys: 1 of '{'k' * 60}' for a permit that t0, t1, t2, t3, t4, ... have"
    )
