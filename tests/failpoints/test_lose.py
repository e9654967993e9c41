"""Answers and acknowledgements lost at each named place: what happened is found out, and done once."""

import pytest

from tests.failpoints.places import WORKER
from tests.failpoints.stage import Stage, run_place


@pytest.mark.parametrize(("place", "scenario"), WORKER.items(), ids=list(WORKER))
async def test_an_answer_lost_at_a_place_is_made_up_for(stage: Stage, place: str, scenario: str) -> None:
    await run_place(stage, place, scenario, "lose")
