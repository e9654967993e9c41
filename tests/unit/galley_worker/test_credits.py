import itertools
from collections import Counter
from collections.abc import Collection, Iterator
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galley.lanes import DEFAULT_LANES, GUARANTEED_SHARE, HIGHEST_FIRST, Lane
from galley_worker.credits import LaneCredits

ALL = frozenset(HIGHEST_FIRST)
BOUND = {lane: ceil(1 / share) for lane, share in GUARANTEED_SHARE.items() if share}


def starts(worker: LaneCredits, number: int, waiting: Collection[Lane]) -> Iterator[Lane]:
    """Start tasks one by one while lanes never run out."""
    for _ in range(number):
        [(lane, count)] = worker.plan(1, waiting).items()
        assert count == 1
        worker.started(lane, waiting)
        yield lane


def longest_wait(order: list[Lane], lane: Lane) -> int:
    """Return the most starts that passed up to one of the lane's, that one included."""
    at = [0, *(index for index, started in enumerate(order, 1) if started is lane), len(order) + 1]
    return max(later - earlier for earlier, later in itertools.pairwise(at))


def test_shares_are_exact_under_a_flood_of_all_lanes() -> None:
    order = Counter(starts(LaneCredits(ALL), 20_000, ALL))
    assert order[Lane.NORMAL] == 2000
    assert order[Lane.LOW] == 1000
    assert order[Lane.CRITICAL] == 17_000


@pytest.mark.parametrize("at_once", [2, 8, 16, 72, 500])
def test_shares_are_exact_when_many_start_at_once_lane_by_lane(at_once: int) -> None:
    worker, order = LaneCredits(ALL), Counter[Lane]()
    while order.total() < 20_000:
        for lane, count in worker.plan(at_once, ALL).items():
            for _ in range(count):
                worker.started(lane, ALL)
                order[lane] += 1
    assert order[Lane.NORMAL] == pytest.approx(2000, abs=50)
    assert order[Lane.LOW] == pytest.approx(1000, abs=25)


def test_what_started_early_is_not_owed_once_a_lane_is_alone() -> None:
    worker, pair = LaneCredits(ALL), {Lane.CRITICAL, Lane.LOW}
    assert worker.plan(100, pair) == {Lane.LOW: 5, Lane.CRITICAL: 95}
    for _ in range(5):
        worker.started(Lane.LOW, pair)
    worker.started(Lane.LOW, {Lane.LOW})
    assert longest_wait(list(starts(worker, 100, pair)), Lane.LOW) == BOUND[Lane.LOW]


@pytest.mark.parametrize("lane", BOUND)
@pytest.mark.parametrize("lanes", [ALL, frozenset(DEFAULT_LANES)], ids=["four lanes", "default lanes"])
def test_a_lane_under_a_flood_of_all_others_starts_within_its_bound(
    lane: Lane, lanes: frozenset[Lane]
) -> None:
    assert longest_wait(list(starts(LaneCredits(lanes), 5000, lanes)), lane) == BOUND[lane]


def test_the_lowest_of_two_lanes_starts_within_its_bound() -> None:
    pair = {Lane.HIGH, Lane.LOW}
    order = list(starts(LaneCredits(pair), 1000, pair))
    assert [index for index, lane in enumerate(order, 1) if lane is Lane.LOW] == list(range(20, 1001, 20))


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(HIGHEST_FIRST), min_size=1), st.integers(1, 30)),
        min_size=1,
        max_size=12,
    )
)
def test_however_lanes_fill_and_empty_none_waits_longer_than_its_bound(
    history: list[tuple[set[Lane], int]],
) -> None:
    worker = LaneCredits(ALL)
    waited = dict.fromkeys(HIGHEST_FIRST, 0)
    for waiting, number in history:
        for lane in ALL - waiting:
            worker.emptied(lane)
            waited[lane] = 0
        for started in starts(worker, number, waiting):
            for lane in waiting:
                waited[lane] += 1
            assert all(waited[lane] <= bound for lane, bound in BOUND.items())
            waited[started] = 0


def test_without_a_claim_below_the_order_is_strict() -> None:
    worker = LaneCredits(ALL)
    nine = list(starts(worker, 9, ALL))
    assert nine == [Lane.CRITICAL] * 9
    assert list(starts(worker, 1, ALL)) == [Lane.NORMAL]
    assert list(starts(LaneCredits(ALL), 50, {Lane.CRITICAL, Lane.HIGH})) == [Lane.CRITICAL] * 50


def test_a_lane_alone_gets_every_start() -> None:
    for lane in HIGHEST_FIRST:
        assert set(starts(LaneCredits(ALL), 50, {lane})) == {lane}


def test_credit_is_not_saved_up_while_a_lane_is_empty() -> None:
    worker = LaneCredits(ALL)
    list(starts(worker, 9, ALL))
    worker.emptied(Lane.NORMAL)
    list(starts(worker, 5, {Lane.CRITICAL}))
    assert list(starts(worker, 10, ALL)).index(Lane.NORMAL) == 9


def test_nothing_is_planned_where_nothing_waits() -> None:
    assert LaneCredits(ALL).plan(1, ()) == {}
    assert LaneCredits(ALL).plan(8, ()) == {}


def test_a_lane_that_is_not_enabled_is_never_planned() -> None:
    assert LaneCredits((Lane.NORMAL,)).plan(8, ALL) == {Lane.NORMAL: 8}


@settings(max_examples=200)
@given(
    st.integers(0, 60),
    st.integers(1, 64),
    st.sets(st.sampled_from(HIGHEST_FIRST), min_size=1),
)
def test_a_batch_is_planned_as_its_starts_one_by_one_would_be(
    before: int, batch: int, waiting: set[Lane]
) -> None:
    at_once, one_by_one = LaneCredits(ALL), LaneCredits(ALL)
    list(starts(at_once, before, ALL))
    list(starts(one_by_one, before, ALL))
    planned = at_once.plan(batch, waiting)
    assert planned == Counter(starts(one_by_one, batch, waiting))
    assert at_once.plan(batch, waiting) == planned, "planning alone takes no credit"


@given(st.integers(2, 64))
def test_a_batch_asks_the_lanes_with_a_claim_before_the_highest(batch: int) -> None:
    assert list(LaneCredits(ALL).plan(batch, ALL)) == [
        lane for lane in reversed(HIGHEST_FIRST) if lane in LaneCredits(ALL).plan(batch, ALL)
    ]


def test_a_lane_keeps_nothing_of_what_it_earned_before_it_was_empty() -> None:
    worker = LaneCredits(ALL)
    assert set(starts(worker, 18, {Lane.HIGH, Lane.LOW})) == {Lane.HIGH}, "one start more, and it is due"
    worker.started(Lane.HIGH, {Lane.HIGH})
    again = list(starts(worker, 18, {Lane.HIGH, Lane.LOW}))
    assert again == [Lane.HIGH] * 18, "or what it had saved would starve those above it"


def test_of_two_lanes_that_are_due_the_lower_one_starts_first() -> None:
    worker = LaneCredits(ALL)
    order = list(starts(worker, 40, ALL))
    due = [lane for lane in order if lane in (Lane.NORMAL, Lane.LOW)]
    first_low = order.index(Lane.LOW)
    assert order[first_low + 1] is Lane.NORMAL
    assert due[:3] == [Lane.NORMAL, Lane.LOW, Lane.NORMAL]
