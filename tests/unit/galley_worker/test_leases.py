"""Leases in virtual time."""

import asyncio
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galley_worker.leases import FENCE_MARGIN_SECONDS
from tests.support.virtual_time import in_virtual_time, virtual_loop
from tests.unit.galley_worker.lease_desk import LEASE, Delivered, a_desk

LOOK: Final = 1.0
"""How exactly a moment in the life of a lease is kept."""


@in_virtual_time
async def test_an_attempt_of_an_hour_keeps_its_lease_by_three_renewals_a_lease() -> None:
    async with a_desk() as desk:
        task = desk.take()
        await asyncio.sleep(3600)
        assert task.running
        moments = [task.delivered_at, *desk.line.renewed["ack.1"]]
        assert all(later - earlier <= LEASE / 3 + 2 * LOOK for earlier, later in pairwise(moments))
        assert len(moments) <= 3600 / (LEASE / 3) + 1, "no more often than needed"


@in_virtual_time
async def test_a_short_attempt_costs_no_renewal() -> None:
    async with a_desk() as desk:
        for number in range(1000):
            task = desk.take(f"ack.{number}")
            await asyncio.sleep(0.1)
            assert task.lease is not None
            desk.keeper.release(task.lease)
        assert desk.line.renewed == {}


@in_virtual_time
async def test_a_released_lease_is_neither_renewed_nor_lost() -> None:
    async with a_desk() as desk:
        task = desk.take()
        assert task.lease is not None
        desk.keeper.release(task.lease)
        desk.line.connected = False
        await asyncio.sleep(10 * LEASE)
        assert desk.line.renewed == {}
        assert task.lost_at == []


@in_virtual_time
async def test_renewals_go_where_the_latest_delivery_of_the_message_says() -> None:
    async with a_desk() as desk:
        task = desk.take("ack.first")
        assert task.lease is not None
        task.lease.reply = "ack.second"
        await asyncio.sleep(LEASE)
        assert list(desk.line.renewed) == ["ack.second"]


@pytest.mark.parametrize("trouble", ["connected", "stalled"])
@pytest.mark.parametrize("after", [0.0, 4.9, 9.0, 11.0, 17.5, 100.0])
@in_virtual_time
async def test_a_worker_that_cannot_renew_stops_the_attempt_before_another_may_begin_it(
    trouble: str, after: float
) -> None:
    async with a_desk() as desk:
        task = desk.take()
        await asyncio.sleep(after)
        setattr(desk.line, trouble, trouble == "stalled")
        ends_at = task.ends_at
        await asyncio.sleep(2 * LEASE)
        assert len(task.lost_at) == 1, "once"
        assert task.lost_at[0] <= ends_at - FENCE_MARGIN_SECONDS + LOOK
        assert task.lost_at[0] >= ends_at - LEASE / 2, "not at the first trouble"


@in_virtual_time
async def test_a_renewal_counts_from_when_it_was_sent_however_late_its_answer_came() -> None:
    async with a_desk() as desk:
        desk.line.round_trip = LEASE / 3 / 2 - 0.5
        task = desk.take()
        await asyncio.sleep(LEASE)
        ends_at = task.ends_at
        desk.line.stalled = True
        await asyncio.sleep(2 * LEASE)
        assert task.lost_at[0] <= ends_at - FENCE_MARGIN_SECONDS + LOOK


@in_virtual_time
async def test_a_breakdown_of_a_dozen_seconds_costs_no_attempt() -> None:
    async with a_desk() as desk:
        for cut_at in range(20):
            task = desk.take(f"ack.{cut_at}")
            await asyncio.sleep(cut_at)
            desk.line.stalled = True
            await asyncio.sleep(7)
            desk.line.stalled = False
            await asyncio.sleep(LEASE)
            desk.line.connected = False
            await asyncio.sleep(12)
            desk.line.connected = True
            await asyncio.sleep(LEASE)
            assert task.running, f"cut after {cut_at} s"


@in_virtual_time
async def test_a_connection_that_is_back_before_the_fence_saves_the_attempt() -> None:
    async with a_desk() as desk:
        task = desk.take()
        desk.line.connected = False
        await asyncio.sleep(LEASE - FENCE_MARGIN_SECONDS - 2 * LOOK)
        desk.line.connected = True
        await asyncio.sleep(LEASE)
        assert task.running


@in_virtual_time
async def test_the_lease_of_a_second_is_fenced_halfway() -> None:
    async with a_desk(lease_seconds=1.0) as desk:
        task = desk.take()
        desk.line.stalled = True
        await asyncio.sleep(3)
        [lost_at] = task.lost_at
        assert 0.5 <= lost_at - task.delivered_at <= 0.6


@in_virtual_time
async def test_a_worker_that_slept_through_its_lease_loses_it_before_it_says_anything() -> None:
    async with a_desk() as desk:
        task = desk.take()
        await asyncio.sleep(7)
        virtual_loop().freeze(60)
        await asyncio.sleep(LOOK)
        assert not task.running
        assert desk.line.renewed == {}


@in_virtual_time
async def test_a_lease_that_ended_in_its_sleep_is_fenced_before_the_next_look_if_asked_for() -> None:
    async with a_desk() as desk:
        slept_through, short = desk.take("ack.1"), desk.take("ack.2")
        await asyncio.sleep(7)
        desk.keeper.check(slept_through.held)
        assert slept_through.running
        virtual_loop().freeze(60)
        desk.keeper.check(slept_through.held)
        assert not slept_through.running
        assert short.running, "nothing asked for it yet"
        desk.keeper.check(slept_through.held)
        await asyncio.sleep(LOOK)
        assert (len(slept_through.lost_at), len(short.lost_at)) == (1, 1)


@pytest.mark.parametrize("noticed", [False, True])
@in_virtual_time
async def test_before_work_leaves_a_worker_that_slept_it_loses_all_leases_that_ended(noticed: bool) -> None:
    async with a_desk() as desk:
        tasks = [desk.take("ack.1"), desk.take("ack.2")]
        await asyncio.sleep(0.5)
        desk.keeper.look()
        assert all(task.running for task in tasks)
        virtual_loop().freeze(60)
        if noticed:  # by a delivery, which is read first
            assert desk.take("ack.3").lease is None
        desk.keeper.look()
        assert [task.running for task in tasks] == [False, False]


@in_virtual_time
async def test_a_worker_that_slept_for_a_moment_goes_on_and_renews_in_time() -> None:
    async with a_desk() as desk:
        task = desk.take()
        await asyncio.sleep(2)
        virtual_loop().freeze(20)
        await asyncio.sleep(LEASE)
        assert task.running
        assert task.ends_at > virtual_loop().time() + LEASE / 2


@in_virtual_time
async def test_what_is_read_right_after_a_long_sleep_may_be_as_old_as_the_sleep() -> None:
    async with a_desk() as desk:
        await asyncio.sleep(5)
        virtual_loop().freeze(40)
        assert desk.take(delivered_ago=39).lease is None, "the first thing it does on waking"
        await asyncio.sleep(0)
        assert desk.take(delivered_ago=39).lease is None


@in_virtual_time
async def test_what_is_read_after_a_short_sleep_is_held_as_if_it_came_when_that_began() -> None:
    async with a_desk() as desk:
        await asyncio.sleep(5)
        virtual_loop().freeze(20)
        desk.line.stalled = True
        task = desk.take(delivered_ago=20)
        ends_at = task.ends_at
        assert task.lease is not None
        await asyncio.sleep(LEASE)
        assert len(task.lost_at) == 1
        assert task.lost_at[0] <= ends_at - FENCE_MARGIN_SECONDS + LOOK


@pytest.mark.parametrize("after", [0.0, 0.02, 0.3, 0.52, 0.98])
@in_virtual_time
async def test_once_all_that_waited_has_been_read_deliveries_are_new_again(after: float) -> None:
    async with a_desk() as desk:
        await asyncio.sleep(4.5)
        virtual_loop().freeze(5)
        await asyncio.sleep(2 * LOOK + after)
        virtual_loop().freeze(40)
        await asyncio.sleep(0.1)
        assert desk.take().running, "no later than a round trip"


@in_virtual_time
async def test_what_a_stalled_line_may_still_bring_after_a_sleep_is_not_new() -> None:
    async with a_desk() as desk:
        await asyncio.sleep(5)
        desk.line.stalled = True
        virtual_loop().freeze(40)
        await asyncio.sleep(20)
        assert desk.take("ack.1", delivered_ago=55).lease is None
        virtual_loop().freeze(4)
        assert desk.take("ack.2", delivered_ago=59).lease is None, (
            "the shorter sleep does not hide the longer"
        )
        desk.line.stalled = False
        await asyncio.sleep(LEASE / 3)
        assert desk.take().running


@in_virtual_time
async def test_what_a_lost_line_did_not_bring_never_comes_so_deliveries_are_new_again() -> None:
    async with a_desk() as desk:
        await asyncio.sleep(5)
        desk.line.connected = False
        virtual_loop().freeze(40)
        await asyncio.sleep(LOOK)
        desk.line.connected = True
        assert desk.take().running


@pytest.mark.parametrize("round_trip", [0.0, 0.4, 0.96])
@in_virtual_time
async def test_a_second_sleep_while_the_first_is_made_up_for_counts_as_well(round_trip: float) -> None:
    async with a_desk() as desk:
        desk.line.round_trip = round_trip
        await asyncio.sleep(5)
        virtual_loop().freeze(40)
        # The round trip is over and what it brought is being read out when the second one begins.
        await asyncio.sleep(round_trip + 0.03)
        virtual_loop().freeze(40)
        await asyncio.sleep(0.01)
        assert desk.take(delivered_ago=39).lease is None
        await asyncio.sleep(3 * LOOK)
        assert desk.take().running


@in_virtual_time
async def test_a_sleep_while_a_renewal_waits_for_its_answer_is_noticed() -> None:
    async with a_desk() as desk:
        desk.take()
        desk.line.stalled = True
        await asyncio.sleep(LEASE / 3 + 2 * LOOK)
        virtual_loop().freeze(40)
        assert desk.take("ack.2", delivered_ago=39).lease is None


STRETCHES = st.lists(
    st.tuples(st.sampled_from(["well", "cut", "stalled", "asleep"]), st.integers(1, 40)),
    min_size=1,
    max_size=10,
)


async def _live_through(stretches: list[tuple[str, int]]) -> None:
    async with a_desk() as desk:
        tasks: list[Delivered] = []
        for number, (weather, seconds) in enumerate(stretches):
            desk.line.connected, desk.line.stalled = weather != "cut", weather == "stalled"
            if weather == "well":
                tasks.append(desk.take(f"ack.{number}"))
            if weather == "asleep":
                virtual_loop().freeze(seconds)
                # Delivered while it slept, and read before anything else.
                tasks.append(desk.take(f"ack.{number}", delivered_ago=seconds - 0.5))
                await asyncio.sleep(0.01)
            else:
                for _ in range(2 * seconds):
                    await asyncio.sleep(0.5)
                    now = virtual_loop().time()
                    assert not [task.reply for task in tasks if task.running and task.ends_at < now]
            now = virtual_loop().time()
            assert not [task.reply for task in tasks if task.running and task.ends_at < now]
        assert all(len(task.lost_at) <= 1 for task in tasks)


@settings(max_examples=150)
@given(STRETCHES)
def test_whatever_happens_no_attempt_goes_on_whose_lease_has_ended(stretches: list[tuple[str, int]]) -> None:
    in_virtual_time(_live_through)(stretches)


@in_virtual_time
async def test_an_attempt_that_cannot_be_stopped_keeps_no_other_from_being_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse() -> None:
        raise RuntimeError("raised by a test")

    async with a_desk() as desk:
        for number in range(3):
            desk.keeper.hold(f"faulty.{number}", refuse)
        tasks = [desk.take(f"ack.{number}") for number in range(3)]
        desk.line.connected = False
        await asyncio.sleep(LEASE)
        assert not any(task.running for task in tasks)
    assert [one.message for one in caplog.records] == ["attempt not stopped"] * 3
