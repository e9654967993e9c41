"""Turns over a server in memory: any arrival mix is shared fairly, and permits survive a lost worker."""

import random
from collections import Counter
from datetime import datetime
from math import ceil
from typing import Final

import pytest
from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.broker import counts, topology
from galley.broker.key_permits import KeyPermits
from galley.broker.waiting_keys import waiting_keys
from galley.envelope import FIRST, encode
from galley.key import Permits, Rate, digest_of_key
from galley.lanes import GUARANTEED_SHARE, Lane
from galley.record import Outcome
from galley_worker.turns import LEASE_SECONDS, QUANTUM, Found, KeyRules, Turns
from tests.support.builders import an_address, an_envelope
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley.encryption.keys import payloads
from tests.unit.galley_worker.bench import Bench, Worker, a_bench

SCHEDULE_GRAIN: Final = 1.0
"""Seconds by which a schedule may fire late."""


def _turns(bench: Bench, worker: Worker, rules: KeyRules) -> Turns:
    return Turns(worker.broker, bench.layout, worker.ledger, worker.settler, rules, bench.server.now)


async def _submit(bench: Bench, key: str, number: int) -> TaskAddress:
    address = an_address(of=bench.layout, id=f"{key}-{number}")
    return await bench.submit(address, key=key)


@pytest.mark.parametrize("seed", range(4))
@in_virtual_time
async def test_a_single_task_starts_after_at_most_a_quantum_of_each_other_key(seed: int) -> None:
    choice = random.Random(seed)
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, KeyRules())
        keys = [f"k{n}" for n in range(choice.randint(1, 4))]
        for number in range(choice.randint(20, 40)):
            await _submit(bench, choice.choice(keys), number)
        started: list[str] = []
        lonely_after = choice.randint(0, 10)
        came_at = -1
        while "lonely-1" not in started:
            if len(started) >= lonely_after and came_at < 0:
                came_at = len(started)
                await _submit(bench, "lonely", 1)
            delivery = await _take_in_order(bench, worker)
            if delivery.address.kind is Kind.TURN:
                await turns.take(delivery)
            else:
                started.append(delivery.address.id)
                worker.ledger.acknowledge(delivery.reply)
        before = Counter(each.partition("-")[0] for each in started[came_at:-1])
        # What was in the lane already when it came belongs to the turn under way.
        assert max(before.values(), default=0) <= 2 * QUANTUM
        assert sum(before.values()) <= QUANTUM * (len(keys) + 1)


@pytest.mark.parametrize("seed", range(3))
@in_virtual_time
async def test_keys_share_a_lane_by_their_weights_whatever_comes_when(seed: int) -> None:
    choice = random.Random(seed)
    weights = {"k0": 3, **{f"k{n}": choice.choice((1, 1, 2, 3)) for n in range(1, choice.randint(2, 4))}}
    rules = KeyRules(weights={digest_of_key(key): weight for key, weight in weights.items() if weight > 1})
    rounds = 3
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, rules)
        # All have tasks for some rounds; in which order they come makes no difference.
        all_of = [key for key, weight in weights.items() for _ in range(rounds * QUANTUM * weight)]
        choice.shuffle(all_of)
        for number, key in enumerate(all_of):
            await _submit(bench, key, number)
        started: list[str] = []
        while len(started) < len(all_of):
            delivery = await _take_in_order(bench, worker)
            if delivery.address.kind is Kind.TURN:
                await turns.take(delivery)
                continue
            started.append(delivery.address.id.partition("-")[0])
            worker.ledger.acknowledge(delivery.reply)
        whole = QUANTUM * sum(weights.values())
        for begin in range(whole * (rounds - 1)):
            window = Counter(started[begin : begin + whole])
            for key, weight in weights.items():
                # In any stretch as long as a round each key has its share.
                assert abs(window[key] - QUANTUM * weight) < QUANTUM


async def _take_in_order(bench: Bench, worker: Worker):  # type: ignore[no-untyped-def]
    """Return what a free slot gets next: from the later stream first, as a worker asks."""
    later = topology.later_stream(bench.layout.namespace, bench.layout.queue)
    consumer = bench.server.consumers[later, "normal"]
    if consumer.waiting and not worker.hands.came:
        return await bench.take(worker, later)
    return await bench.take_any(worker)


@in_virtual_time
async def test_a_permit_whose_task_is_gone_is_free_after_a_lease() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, KeyRules(permits=1))
        permits = KeyPermits(worker.broker, bench.layout.namespace, bench.layout.queue)
        digest = digest_of_key("k")
        for number in range(2):
            await _submit(bench, "k", number)
        await turns.take(await bench.take(worker))
        first = await bench.take_any(worker)
        assert first.address.id == "k-0"
        # It ends, and its worker dies before it gives the permit back.
        worker.ledger.acknowledge(first.reply)
        assert (await permits.read(digest)).permits.held == ("k-0",)
        await bench.pass_time(LEASE_SECONDS + 1)
        await turns.take(await bench.take_any(worker))
        second = await bench.take_any(worker)
        assert second.address.id == "k-1"
        assert (await permits.read(digest)).permits.held == ("k-1",)
        worker.ledger.acknowledge(second.reply)
        await turns.give_back(second.address, "k")
        assert (await permits.read(digest)).permits.held == ()


@in_virtual_time
async def test_who_gives_a_permit_back_moves_the_next_task() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, KeyRules(permits=2))
        for number in range(5):
            await _submit(bench, "k", number)
        await turns.take(await bench.take(worker))
        running = [await bench.take_any(worker) for _ in range(2)]
        assert [each.address.id for each in running] == ["k-0", "k-1"]
        worker.ledger.acknowledge(running[0].reply)
        await turns.give_back(running[0].address, "k")
        assert (await bench.take_any(worker)).address.id == "k-2"
        permits = KeyPermits(worker.broker, bench.layout.namespace, bench.layout.queue)
        assert (await permits.read(digest_of_key("k"))).permits.held == ("k-1", "k-2")


@in_virtual_time
async def test_a_permit_that_cannot_be_given_back_is_free_after_a_lease() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, KeyRules(permits=1))
        for number in range(2):
            await _submit(bench, "k", number)
        await turns.take(await bench.take(worker))
        first = await bench.take_any(worker)
        worker.ledger.acknowledge(first.reply)
        silent = [True]
        worker.broker.line.lose(to_server=lambda subject: silent[0] and subject.startswith("$JS.API."))
        await turns.give_back_if_gone(first.address, "k")
        await turns.give_back(first.address, "k")
        silent[0] = False
        await bench.pass_time(LEASE_SECONDS + 1)
        await turns.take(await bench.take_any(worker))
        assert (await bench.take_any(worker)).address.id == "k-1"


@in_virtual_time
async def test_a_task_that_came_just_after_the_look_is_found_a_moment_later() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns, digest = _turns(bench, worker, KeyRules()), digest_of_key("k")
        turn = topology.turn_address(bench.layout.namespace, bench.layout.queue, Lane.NORMAL, digest)
        bench.publish_raw(turn, b"", FIRST.encode())
        await turns.take(await bench.take(worker))
        # Its producer saw the turn that was looking, and stored no other.
        late = an_address(of=bench.layout, id="k-late")
        body = encode(an_envelope(key="k"))
        bench.publish_raw(late, body, FIRST.encode(), topology.wait_subject(late, digest))
        await turns.take(await bench.take_any(worker))
        assert (await bench.take_any(worker)).address.id == "k-late"


async def _drain(bench: Bench, worker: Worker, turns: Turns, tasks: int) -> list[datetime]:
    """Run tasks that take no time, as a worker would, and return when each started."""
    started: list[datetime] = []
    while len(started) < tasks:
        delivery = await bench.take_any(worker)
        if delivery.address.kind is Kind.TURN:
            await turns.take(delivery)
            continue
        held = bench.held(delivery)
        assert await turns.may_run(delivery.address, held.envelope, held.flags)
        started.append(bench.server.now())
        worker.ledger.acknowledge(delivery.reply)
        await turns.give_back(delivery.address, held.envelope.key)
    return started


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("permits", [0, 1])
@in_virtual_time
async def test_in_no_time_do_more_tasks_of_a_key_start_than_its_rate_allows(seed: int, permits: int) -> None:
    choice = random.Random(seed)
    rate = Rate(choice.randint(1, 4), choice.choice([1.0, 7.0]), choice.randint(1, 5))
    tasks = choice.randint(6, 16)
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, KeyRules(permits=permits, rate=rate))
        for number in range(tasks):
            await _submit(bench, "k", number)
        started = await _drain(bench, worker, turns, tasks)
    for first, begin in enumerate(started):
        for last, end in enumerate(started[first:], first):
            window = (end - begin).total_seconds()
            assert last - first + 1 <= rate.burst + window * rate.tasks / rate.seconds + 0.01
    # It is a rate and no brake: no task starts much later than it might.
    least = (tasks - rate.burst) * rate.seconds / rate.tasks
    assert (started[-1] - started[0]).total_seconds() <= max(0.0, least) * 1.1 + 2 * SCHEDULE_GRAIN + 1


@in_virtual_time
async def test_a_task_without_a_start_of_its_rate_waits_under_its_key() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, KeyRules(rate=Rate(1, 60.0, 1)))
        for number in range(2):
            await _submit(bench, "k", number)
        await turns.take(await bench.take(worker))
        first = await bench.take_any(worker)
        before = bench.server.now()
        # It is tried again: that is a start as well.
        again = bench.held(first)
        assert not await turns.may_run(first.address, again.envelope, replace(again.flags, permit=False))
        await turns.park(first, again.envelope, again.flags)
        assert len(await _drain(bench, worker, turns, 2)) == 2
        assert 119 <= (bench.server.now() - before).total_seconds() <= 123


@in_virtual_time
async def test_a_key_is_looked_at_after_a_look_that_found_nothing_came_in_between() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, KeyRules(permits=1))
        for number in range(2):
            await _submit(bench, "k", number)
        await turns.take(await bench.take(worker))
        first = await bench.take_any(worker)
        # A look is planned in 30 s. The first ends, the second runs, and a turn finds none to wait: the look
        # that it plans takes the place of the one before.
        worker.ledger.acknowledge(first.reply)
        await turns.give_back(first.address, "k")
        second = await bench.take_any(worker)
        turn = topology.turn_address(
            bench.layout.namespace, bench.layout.queue, Lane.NORMAL, digest_of_key("k")
        )
        bench.publish_raw(turn, b"", FIRST.encode())
        await turns.take(await bench.take_any(worker))
        await turns.take(await bench.take_any(worker))
        # Then a third comes, and the worker of the second dies before it gives the permit back.
        await _submit(bench, "k", 2)
        await turns.take(await bench.take_any(worker))
        worker.ledger.acknowledge(second.reply)
        await turns.take(await bench.take_any(worker))
        assert (await bench.take_any(worker)).address.id == "k-2"


@in_virtual_time
async def test_a_key_whose_tasks_wait_in_two_lanes_goes_on_in_both() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, KeyRules(rate=Rate(1, 60.0, 1)))
        for number in range(2):
            await _submit(bench, "k", number)
        await turns.take(await bench.take(worker))
        low, lanes = bench.layout.lanes[-1], bench.layout.lanes
        await bench.submit(an_address(of=bench.layout, lane=low, id="k-low"), key="k")
        assert await turns._look(digest_of_key("k"), (low,)) is Found.FULL
        waiting = bench.server.streams[topology.work_stream(bench.layout.namespace, bench.layout.queue)]
        for _ in range(8):
            delivery = await bench.take_any(worker, lanes)
            if delivery.address.kind is Kind.TURN:
                await turns.take(delivery)
            else:
                worker.ledger.acknowledge(delivery.reply)
            if not waiting.subjects("galley.wait.>"):
                return
        pytest.fail("a task still waits")


async def _too_large_and_another(bench: Bench, worker: Worker) -> tuple[Turns, TaskAddress]:
    """Have two tasks wait under a key, the first of a size that the broker takes no more."""
    turns, large = _turns(bench, worker, KeyRules(permits=1)), an_address(of=bench.layout, id="k-0")
    body = encode(an_envelope(key="k", labels={"size": "x" * 5000}))
    bench.publish_raw(large, body, FIRST.encode(), topology.wait_subject(large, digest_of_key("k")))
    await _submit(bench, "k", 1)
    worker.broker.nats._max_payload = 4096
    return turns, large


@in_virtual_time
async def test_a_task_that_is_too_large_for_its_lane_is_a_dead_letter_and_the_next_one_runs() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns, large = await _too_large_and_another(bench, worker)
        await turns.take(await bench.take(worker))
        final = bench.final(large)
        assert final.outcome is Outcome.FAILED
        assert final.failure is not None
        assert final.failure.reason == "TooLarge"
        assert bench.letters(large) == 1
        assert worker.settler.ended[large.lane, counts.FAILED] == 1
        await bench.pass_time(LEASE_SECONDS + 1)
        assert len(await _drain(bench, worker, turns, 1)) == 1
        work = bench.server.streams[topology.work_stream(large.namespace, large.queue)]
        assert not work.subjects("galley.wait.>")


@in_virtual_time
async def test_a_task_that_is_too_large_for_its_lane_waits_while_dead_letters_have_no_room() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns, large = await _too_large_and_another(bench, worker)
        letters = bench.server.streams[topology.dead_stream(large.namespace, large.queue)]
        letters.definition["max_bytes"] = 1
        await turns.take(await bench.take(worker))
        work = bench.server.streams[topology.work_stream(large.namespace, large.queue)]
        assert topology.wait_subject(large, digest_of_key("k")) in work.subjects("galley.wait.>")
        letters.definition["max_bytes"] = -1
        await turns.take(await bench.take_any(worker))
        assert bench.letters(large) == 1


@pytest.mark.parametrize("low", [Lane.NORMAL, Lane.LOW])
@pytest.mark.parametrize("rules", [KeyRules(permits=1), KeyRules(permits=3), KeyRules(rate=Rate(1, 2.0, 1))])
@in_virtual_time
async def test_a_task_of_a_lower_lane_gets_its_share_of_what_its_key_may_start(
    rules: KeyRules, low: Lane
) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, rules)
        work = bench.server.streams[topology.work_stream(bench.layout.namespace, bench.layout.queue)]
        for number in range(6):
            await bench.submit(an_address(of=bench.layout, lane=Lane.HIGH, id=f"h-{number}"), key="k")
        await bench.submit(an_address(of=bench.layout, lane=low, id="lower"), key="k")
        started = 0
        while any(each.endswith(".lower") for each in work.subjects("galley.wait.>")):
            # Its own lane's turn does not come: each look at the key sees all its lanes.
            delivery = await bench.take_any(worker, (Lane.HIGH,))
            if delivery.address.kind is Kind.TURN:
                await turns.take(delivery)
                continue
            started += 1
            # One more of the higher lane comes for each that starts, so some always wait.
            more = an_address(of=bench.layout, lane=Lane.HIGH, id=f"h-{started + 10}")
            await bench.submit(more, key="k")
            worker.ledger.acknowledge(delivery.reply)
            await turns.give_back(delivery.address, "k")
            assert started <= ceil(1 / GUARANTEED_SHARE[low]) + QUANTUM


@in_virtual_time
async def test_a_task_of_a_lower_lane_that_has_a_permit_is_moved_before_one_of_a_higher() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns, digest = _turns(bench, worker, KeyRules(permits=1)), digest_of_key("k")
        low = an_address(of=bench.layout, lane=Lane.LOW, id="low")
        await bench.submit(low, key="k")
        # A worker gave it the permit, and died before it moved it.
        permits = KeyPermits(worker.broker, bench.layout.namespace, bench.layout.queue)
        await permits.write(digest, Permits(("low",)), 0)
        await bench.submit(an_address(of=bench.layout, lane=Lane.HIGH, id="high"), key="k")
        while (delivery := await bench.take_any(worker, bench.layout.lanes)).address.kind is Kind.TURN:
            await turns.take(delivery)
        assert delivery.address.id == "low"


@in_virtual_time
async def test_a_task_that_waits_again_with_its_permit_is_moved_though_others_are_before_it() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, KeyRules(permits=1))
        for number in range(3):
            await _submit(bench, "k", number)
        await turns.take(await bench.take(worker))
        first = await bench.take_any(worker)
        # Its attempt failed, its worker died before it gave the permit back, and it is to run again.
        held = bench.held(first)
        again = replace(held.flags, permit=False)
        assert not await turns.may_run(first.address, held.envelope, again)
        await turns.park(first, held.envelope, again)
        began = bench.server.now()
        assert len(await _drain(bench, worker, turns, 3)) == 3
        assert (bench.server.now() - began).total_seconds() <= LEASE_SECONDS + 10


@in_virtual_time
async def test_a_key_of_an_encrypted_task_is_readable_and_its_input_is_not() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, KeyRules(permits=1))
        work = bench.server.streams[topology.work_stream(bench.layout.namespace, bench.layout.queue)]
        work.definition["metadata"][topology.ENCRYPTION_KEY] = topology.ENCRYPTED
        bench.producer.payloads = payloads()
        for number in range(2):
            await bench.submit(an_address(of=bench.layout, id=f"k-{number}"), key="k", input={"card": "4111"})
        assert not any(b"4111" in each.body for each in work.messages.values())
        bench.producer.payloads = worker.broker.payloads  # one who has no keys
        found = await waiting_keys(bench.producer, bench.layout.namespace, bench.layout.queue)
        assert [(each.key, each.waiting) for each in found.keys] == [("k", 2)]
        assert len(await _drain(bench, worker, turns, 2)) == 2


@in_virtual_time
async def test_a_turn_stays_while_there_is_no_room_for_the_next_one_of_its_key() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, KeyRules())
        for number in range(QUANTUM + 1):
            await _submit(bench, "k", number)
        turn = await bench.take(worker)
        bench.server.full = (topology.task_subject(turn.address),)
        await turns.take(turn)
        await bench.pass_time(1)
        assert bench.seen("nak")
        bench.server.full = ()
        assert len(await _drain(bench, worker, turns, QUANTUM + 1)) == QUANTUM + 1


@in_virtual_time
async def test_a_task_with_unreadable_flags_waits_under_its_key_as_a_first_attempt() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns, odd = _turns(bench, worker, KeyRules()), an_address(of=bench.layout, id="odd")
        subject = topology.wait_subject(odd, digest_of_key("k"))
        bench.publish_raw(odd, encode(an_envelope(key="k")), "nonsense", subject)
        await _submit(bench, "k", 1)
        await turns.take(await bench.take(worker))
        first = await bench.take_any(worker)
        assert (first.address.id, bench.held(first).flags) == ("odd", replace(FIRST, republished=True))
        worker.ledger.acknowledge(first.reply)
        assert len(await _drain(bench, worker, turns, 1)) == 1


@in_virtual_time
async def test_a_task_that_two_turns_move_is_in_its_lane_once() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        turns = _turns(bench, worker, KeyRules())
        await _submit(bench, "k", 1)
        [waiting] = await turns._tasks.first(digest_of_key("k"), Lane.NORMAL, 2)
        await turns._tasks.move(waiting, permit=False)
        await turns._tasks.move(waiting, permit=False)
        work = bench.server.streams[topology.work_stream(bench.layout.namespace, bench.layout.queue)]
        assert not work.subjects("galley.wait.>")
        moved = [each for each in bench.seen("stored") if each.subject.endswith(".k-1")]
        assert [each.kind for each in moved] == ["wait", "due"]
        assert len(await _drain(bench, worker, turns, 1)) == 1
