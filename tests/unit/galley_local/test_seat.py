import pytest

from galley_local.seat import LONGEST_PAUSE_SECONDS, pause_before_restart


@pytest.mark.parametrize(
    ("deaths", "seconds"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (5, 8), (6, 16), (7, 30), (10_000, 30)]
)
def test_the_first_restart_is_at_once_and_the_pauses_double_up_to_half_a_minute(
    deaths: int, seconds: float
) -> None:
    assert pause_before_restart(deaths) == seconds
    assert pause_before_restart(deaths) <= LONGEST_PAUSE_SECONDS
