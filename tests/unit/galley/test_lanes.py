"""The lanes and what they promise."""

from galley.lanes import DEFAULT_LANES, GUARANTEED_SHARE, HIGHEST_FIRST, Lane


def test_there_are_four_lanes_in_one_order() -> None:
    assert list(HIGHEST_FIRST) == list(Lane) == ["critical", "high", "normal", "low"]


def test_a_queue_has_three_lanes_unless_it_says_otherwise() -> None:
    assert DEFAULT_LANES == (Lane.HIGH, Lane.NORMAL, Lane.LOW)


def test_every_lane_below_another_has_a_share_unless_nothing_below_the_others_can_starve_it() -> None:
    assert set(GUARANTEED_SHARE) == set(Lane)
    lowest = [lane for lane in HIGHEST_FIRST if GUARANTEED_SHARE[lane] > 0]
    assert lowest == [Lane.NORMAL, Lane.LOW]


def test_the_shares_leave_most_starts_to_the_order_of_the_lanes() -> None:
    assert sum(GUARANTEED_SHARE.values()) <= 0.2
