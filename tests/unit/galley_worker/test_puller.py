"""The puller over a server in memory: what it hands out, gives back, and forgets with a lost connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from galley.broker.pull import Delivery
from galley.envelope import Flags
from galley.lanes import Lane
from galley_worker import puller
from galley_worker.claim import must_claim
from galley_worker.ledger import Ledger, Replies
from galley_worker.puller import Puller
from tests.support.builders import an_address, an_envelope
from tests.support.eventually import eventually
from tests.support.memory_nats import MemoryBroker
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, a_bench


@dataclass
class Slots:
    """The slots of a worker, as the test has them."""

    free: int = 1
    brisk: bool = False
    supplied: bool = False


@dataclass
class Seat:
    """A puller at work, and what it has handed out."""

    bench: Bench
    broker: MemoryBroker
    slots: Slots
    puller: Puller
    came: list[Delivery] = field(default_factory=list)

    def sent(self) -> list[str]:
        """Return the list to which the subjects of what it sends are added from now on."""
        subjects: list[str] = []

        def take_note(subject: str) -> bool:
            subjects.append(subject)
            return False

        self.broker.line.lose(to_server=take_note)
        return subjects

    def end(self, slots: int = 1) -> None:
        """Have attempts end."""
        self.slots.free += slots
        self.puller.slots_changed()

    async def deliveries(self, count: int, within: float = 20) -> list[Delivery]:
        await eventually(lambda: len(self.came) >= count, within=within)
        return self.came


@asynccontextmanager
async def a_seat(bench: Bench, slots: int = 1, *, brisk: bool = False) -> AsyncIterator[Seat]:
    async with MemoryBroker(bench.server, "w1") as broker:
        free = Slots(slots, brisk)
        async with Puller(broker, bench.layout, free, Replies(broker).give_back) as pulling:
            seat = Seat(bench, broker, free, pulling)

            async def take() -> None:
                async for delivery in pulling.deliveries():
                    free.free -= 1
                    seat.came.append(delivery)

            taking = asyncio.create_task(take())
            await bench.pass_time(0.1)
            yield seat
            pulling.stop()
            await asyncio.wait([taking], timeout=10)


def later_stream_of(delivery: Delivery) -> str:
    return f"GS_{delivery.address.namespace}_{delivery.address.queue}"


@in_virtual_time
async def test_waiting_tasks_are_handed_out_highest_lane_first_to_as_many_slots_as_there_are() -> None:
    async with a_bench() as bench:
        for lane in (Lane.LOW, Lane.NORMAL, Lane.HIGH):
            await bench.submit(an_address(of=bench.layout, lane=lane))
        async with a_seat(bench, 2) as seat:
            came = await seat.deliveries(2)
            await bench.pass_time(5)
            assert [each.address.lane for each in came] == [Lane.HIGH, Lane.NORMAL]
            seat.end()
            assert (await seat.deliveries(3))[2].address.lane is Lane.LOW


@pytest.mark.parametrize("slots", [1, 4])
@in_virtual_time
async def test_while_a_task_waits_and_a_slot_is_free_it_starts_at_once(slots: int) -> None:
    async with a_bench() as bench, a_seat(bench, slots) as seat:
        await bench.pass_time(50)
        for number in range(slots):
            await bench.submit()
            await bench.pass_time(0.02)
            assert len(seat.came) == number + 1
        await bench.submit()
        await bench.pass_time(20)
        assert len(seat.came) == slots
        seat.end()
        await bench.pass_time(0.02)
        assert len(seat.came) == slots + 1


@in_virtual_time
async def test_a_task_that_came_without_a_slot_goes_to_another_worker() -> None:
    async with a_bench() as bench, a_seat(bench, 1) as seat:
        await bench.pass_time(1)
        # Parked in all lanes with one slot: two lanes bring one each.
        for lane in (Lane.HIGH, Lane.NORMAL):
            await bench.submit(an_address(of=bench.layout, lane=lane))
        await bench.pass_time(0.015)
        assert (len(seat.came), len(bench.seen("nak"))) == (1, 1), "at once"
        async with a_seat(bench, 1) as other:
            (delivery,) = await other.deliveries(1)
            assert delivery.delivered == 2
            assert {seat.came[0].address, delivery.address} == addresses(bench)


def addresses(bench: Bench) -> set[object]:
    return {
        an_address(of=bench.layout, lane=each.subject.split(".")[4], id=each.subject.split(".")[6])
        for each in bench.server.log
        if each.what == "stored" and each.kind == "task"
    }


@in_virtual_time
async def test_a_delivery_of_a_lost_connection_is_not_begun_after_the_reconnection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(puller, "HOLD_SECONDS", 3600.0)
    async with a_bench() as bench, a_seat(bench, 1, brisk=True) as seat:
        await bench.pass_time(1)
        for lane in (Lane.HIGH, Lane.NORMAL):
            await bench.submit(an_address(of=bench.layout, lane=lane))
        await seat.deliveries(1)
        await bench.pass_time(0.001)
        assert seat.puller._held == 1, "the other waits for a slot"
        seat.broker.line.reconnect_seconds = 5
        seat.broker.line.cut()
        await bench.pass_time(6)
        seat.end()
        came = await seat.deliveries(2, within=10)
        await bench.pass_time(5)
        assert len(seat.came) == 2
        assert came[1].delivered == 2, "it came again, and only that is begun"


@in_virtual_time
async def test_what_was_there_before_the_connection_has_to_be_claimed_and_what_comes_after_it_not() -> None:
    async with a_bench() as bench:
        await bench.submit()
        async with a_seat(bench, 5) as seat:
            await seat.deliveries(1)
            await bench.submit()
            old, new = await seat.deliveries(2)
            assert (old.old, new.old) == (True, False)
            assert must_claim(old, Flags(), later_stream_of(old))
            assert not must_claim(new, Flags(), later_stream_of(new))
            seat.broker.line.cut()
            await bench.submit()
            await bench.pass_time(3)
            await bench.submit()
            _, _, between, after = await seat.deliveries(4)
            assert (between.old, after.old) == (True, False)


@in_virtual_time
async def test_after_a_killed_server_that_forgot_its_deliveries_nothing_is_begun_unclaimed() -> None:
    async with a_bench() as bench, a_seat(bench, 4) as seat:
        await bench.submit()
        (first,) = await seat.deliveries(1)
        assert not first.old
        bench.server.kill(forgets=lambda _sequence: True)
        await bench.pass_time(3)
        bench.server.start()
        _, again = await seat.deliveries(2)
        assert (again.sequence, again.delivered, again.old) == (first.sequence, 1, True)


@in_virtual_time
async def test_pulls_that_a_dead_server_took_with_it_are_made_again() -> None:
    async with a_bench() as bench, a_seat(bench, 1) as seat:
        await bench.pass_time(1)
        # Their server died and the connection did not: nothing is said, and no heartbeat comes.
        for consumer in bench.server.consumers.values():
            consumer.restarted()
        await bench.submit()
        await seat.deliveries(1, within=25)


@in_virtual_time
async def test_at_whatever_moment_a_task_comes_to_an_idle_worker_it_starts_at_once() -> None:
    """Parked pulls expire and are made again, and no task waits for that."""
    async with a_bench() as bench, a_seat(bench, 1000) as seat:
        for number in range(90):
            await bench.pass_time(0.73)
            await bench.submit()
            await bench.pass_time(0.05)
            assert len({each.sequence for each in seat.came}) == number + 1
    async with a_bench() as bench, a_seat(bench, 10) as seat:
        await bench.pass_time(2.2)
        await bench.submit()  # its lane is pulled from again then, and the others only when they expire
        await bench.pass_time(28.3)
        await bench.submit(an_address(of=bench.layout, lane=Lane.HIGH))
        await bench.pass_time(0.05)
        assert Lane.HIGH in {each.address.lane for each in seat.came}


@in_virtual_time
async def test_after_a_reconnection_a_task_starts_at_once() -> None:
    async with a_bench() as bench, a_seat(bench, 2) as seat:
        await bench.pass_time(1)
        seat.broker.line.cut()
        await bench.pass_time(1.5)
        await bench.submit()
        await bench.pass_time(0.1)
        assert len(seat.came) == 1


@in_virtual_time
async def test_a_sweep_whose_answer_is_lost_is_given_up() -> None:
    async with a_bench() as bench, a_seat(bench, 1) as seat:
        await bench.submit()
        await seat.deliveries(1)
        seat.broker.line.lose(to_server=lambda subject: ".MSG.NEXT." in subject)
        await bench.submit()
        seat.end()
        await bench.pass_time(3)
        seat.broker.line.lose()
        await seat.deliveries(2, within=20)


@in_virtual_time
async def test_pulls_that_go_silent_are_noticed_within_ten_seconds_however_much_happens_beside_them() -> None:
    async with a_bench() as bench, a_seat(bench, 2) as seat:
        await bench.pass_time(21)
        for consumer in bench.server.consumers.values():
            for pull in list(consumer.pulls):
                consumer._end(pull)
        await bench.submit()
        await bench.pass_time(4)
        assert seat.came == []
        for _ in range(7):
            seat.puller.slots_changed()
            await bench.pass_time(1)
        assert len(seat.came) == 1


@in_virtual_time
async def test_a_queue_that_is_not_there_is_pulled_from_once_it_is() -> None:
    async with a_bench() as bench:
        away = {key: bench.server.consumers.pop(key) for key in list(bench.server.consumers)}
        async with a_seat(bench, 1) as seat:
            await bench.submit()
            await bench.pass_time(5)
            assert seat.came == []
            bench.server.consumers.update(away)
            await bench.pass_time(1)
            assert len(seat.came) == 1


@in_virtual_time
async def test_a_queue_whose_stream_is_not_answered_for_is_pulled_from_once_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_bench() as bench, a_seat(bench, 1) as seat:
        seat.broker.line.lose(to_server=lambda subject: subject.startswith("$JS.API.STREAM.INFO."))
        seat.broker.line.cut()
        await bench.pass_time(60)
        await bench.submit()
        assert seat.came == []
        seat.broker.line.lose()
        await seat.deliveries(1, within=60)
    assert "queue cannot be pulled from yet" in {one.message for one in caplog.records}


@in_virtual_time
async def test_a_paused_puller_gives_back_what_it_holds_and_takes_nothing_until_it_resumes() -> None:
    async with a_bench() as bench, a_seat(bench, 1, brisk=True) as seat:
        await bench.pass_time(1)
        for lane in (Lane.HIGH, Lane.NORMAL):
            await bench.submit(an_address(of=bench.layout, lane=lane))
        await seat.deliveries(1)
        seat.puller.pause()
        seat.end(2)
        await bench.pass_time(5)
        assert len(seat.came) == 1
        assert len(bench.seen("nak")) == 1
        seat.puller.resume()
        await bench.pass_time(0.1)
        assert len(seat.came) == 2


@in_virtual_time
async def test_a_stopped_puller_leaves_nothing_in_hand() -> None:
    async with a_bench() as bench:
        async with a_seat(bench, 1, brisk=True) as seat:
            await bench.pass_time(1)
            for lane in (Lane.HIGH, Lane.NORMAL, Lane.LOW):
                await bench.submit(an_address(of=bench.layout, lane=lane))
            await seat.deliveries(1)
        await bench.pass_time(1)
        in_flight = sum(consumer.in_flight for consumer in bench.server.consumers.values())
        given_back = sum(len(consumer.given_back) for consumer in bench.server.consumers.values())
        assert in_flight - given_back == 1, "the one that runs; the others wait for another worker"


@in_virtual_time
async def test_a_backlog_is_drained_without_asking_each_time_for_what_is_due_and_what_is_due_comes() -> None:
    async with a_bench() as bench:
        for _ in range(30):
            await bench.submit()
        async with a_seat(bench, 2, brisk=True) as seat:
            await seat.deliveries(2)
            asked = seat.sent()
            for number in range(3, 21):
                seat.end()
                await seat.deliveries(number)
            pulls = {subject.split(".")[5] for subject in asked if subject.endswith(f".{Lane.NORMAL}")}
            assert pulls == {f"GW_{bench.layout.namespace}_{bench.layout.queue}"}
            due = an_address(of=bench.layout, id="due")
            at = bench.server.now() + timedelta(seconds=5)
            await Ledger(seat.broker).schedule(due, an_envelope(), Flags(2, 1), at)
            await bench.pass_time(6)
            seat.end(2)
            assert due.id in {each.address.id for each in await seat.deliveries(22)}


@in_virtual_time
async def test_while_enough_is_under_way_nothing_is_pulled_and_the_next_pull_is_a_large_one() -> None:
    async with a_bench() as bench:
        for _ in range(30):
            await bench.submit()
        async with a_seat(bench, 8, brisk=True) as seat:
            await seat.deliveries(8)
            asked = seat.sent()
            seat.slots.supplied = True
            for _ in range(4):
                seat.end()
                await bench.pass_time(1)
            assert (len(seat.came), asked) == (8, [])
            seat.slots.supplied = False
            seat.end()
            await seat.deliveries(13)
            assert len([subject for subject in asked if ".MSG.NEXT." in subject]) == 1
